//! OS layers: the Debian base and an image's own packages, from the store, from somebody who is believed, or made.

use std::path::PathBuf;

use super::accounts;
use super::job::Job;
use super::materialise::{self, Need};
use super::sandbox::Dpkg;
use super::substitute::{OsLayer, TakenLayer};
use super::trees;
use crate::catalog::Accounts;
use crate::cli::failure::Failure;
use crate::diagnostic::Kind;
use crate::digest::Digest;
use crate::layer::debian::{self, Built, DebianRequest, build_base, build_os};
use crate::layer::{Layer, LayerContent};
use crate::lock::{LockedBase, LockedDeb};
use crate::progress::Progress;
use crate::resolve::base::BaseImage;

/// What an image has of OS layers so far.
#[derive(Debug, Default)]
pub(super) struct OsLayers {
    base: Option<OsLayer>,
    own: Option<OsLayer>,
    /// One of them must be made.
    missing: bool,
    /// It was asked whether somebody has the own one.
    asked: bool,
}

impl OsLayers {
    /// Lowest first.
    fn layers(&self) -> Vec<Layer> {
        let all = self.base.iter().chain(&self.own);
        all.map(|os| os.layer.clone()).collect()
    }

    /// Compressed bytes that were pulled.
    pub fn pulled(&self) -> u64 {
        let all = self.base.iter().chain(&self.own);
        all.map(|os| os.pulled).sum()
    }

    /// Those that were not made here.
    pub fn taken(&self) -> Vec<TakenLayer> {
        let all = self.base.iter().chain(&self.own);
        let taken = all.filter_map(|os| {
            Some(TakenLayer {
                diff_id: os.layer.diff_id,
                belief: os.belief.clone()?,
            })
        });
        taken.collect()
    }
}

impl Job<'_> {
    /// The OS layers that are known; nothing is made.
    pub async fn find_os(&self, from: Option<&BaseImage>) -> Result<OsLayers, Failure> {
        let mut os = OsLayers::default();
        if let Some(request) = self.base_request() {
            os.base = self.known_os(&request).await?;
            os.missing = os.base.is_none();
        }
        // Without its base, the key of what stands above it is not known.
        let below = below(from, &os.layers());
        if let (false, Some(request)) = (os.missing, self.own_request(from, &below)) {
            os.own = self.known_os(&request).await?;
            os.asked = true;
            os.missing = os.own.is_none();
        }
        Ok(os)
    }

    async fn known_os(&self, request: &DebianRequest<'_>) -> Result<Option<OsLayer>, Failure> {
        let fits = |layer: &Layer| {
            request
                .expected
                .is_none_or(|wanted| wanted == layer.diff_id)
        };
        if let Some(layer) = debian::known(self.store, &request.key())?.filter(fits) {
            self.present.borrow_mut().push(layer.digest);
            return Ok(Some(made(layer)));
        }
        match self.substitutes {
            Some(substitutes) => substitutes.os_layer(request).await,
            None => Ok(None),
        }
    }

    /// Before anything is downloaded: can the OS packages that are not configured yet be configured here?
    pub fn check_sandbox(&self, os: &OsLayers) -> Result<(), Failure> {
        let host = self.order.platform.architecture() == host_architecture();
        match os.missing && host {
            true => self.dpkg().check(),
            false => Ok(()),
        }
    }

    fn dpkg(&self) -> Dpkg {
        Dpkg::new(self.store.scratch().path(), self.context.cancel.clone())
    }

    /// Makes those that are not known.
    pub async fn make_os(
        &self,
        from: Option<&BaseImage>,
        os: &mut OsLayers,
    ) -> Result<(), Failure> {
        if let Some(request) = self.base_request() {
            self.document(request.document(), &request.comment);
            if os.base.is_none() {
                os.base = Some(self.make(&request, &[]).await?);
            }
        }
        let below = below(
            from,
            os.base.as_ref().map(|base| base.layer.clone()).as_slice(),
        );
        if let Some(request) = self.own_request(from, &below) {
            self.document(request.document(), &request.comment);
            if os.own.is_none() {
                // It may be known now that its base has been made.
                let known = match os.asked {
                    true => None,
                    false => self.known_os(&request).await?,
                };
                os.own = Some(match known {
                    Some(known) => known,
                    None => self.make(&request, &below).await?,
                });
            }
        }
        Ok(())
    }

    async fn make(&self, request: &DebianRequest<'_>, below: &[Layer]) -> Result<OsLayer, Failure> {
        if request.architecture != host_architecture() {
            return Err(Failure::plain(
                Kind::Unavailable,
                format!(
                    "OS packages for {} cannot be configured on this {} machine",
                    request.architecture,
                    host_architecture()
                ),
                "build this platform on a machine of its own architecture, or begin with an image that has the packages (`from`)",
            ));
        }
        let progress = &*self.context.progress;
        let dpkg = self.dpkg();
        dpkg.check()?;
        let (asked, locked) = (self.order.request, &self.order.locked);
        self.artifacts.debs(asked, locked, &request.debs).await?;
        let built = if below.is_empty() {
            build_base(self.store, &dpkg, request, progress)?
        } else {
            let below = self.pulled(below, Need::Trees).await?;
            let lower: Vec<PathBuf> = trees::unpack_all(self.context, self.store, &below)?;
            build_os(self.store, &dpkg, request, &lower, progress)?
        };
        self.tell_difference(&built);
        Ok(made(built.layer))
    }

    /// A layer that differs from the one that is recorded is told and not swapped in.
    fn tell_difference(&self, built: &Built) {
        if let Some(first) = built.differs_from {
            self.context.progress.warn(&format!(
                "{}: this build of the OS layer is {}, the recorded one {first}: its maintainer scripts are not \
                 reproducible",
                built.layer.comment, built.layer.diff_id
            ));
        }
    }

    /// The same layers, with what must be here.
    async fn pulled(&self, layers: &[Layer], need: Need) -> Result<Vec<Layer>, Failure> {
        let Some(substitutes) = self.substitutes else {
            return Ok(layers.to_vec());
        };
        let cache = [substitutes.catalog().place().cache()];
        let registry = substitutes.registry();
        let (layers, _) =
            materialise::layers(self.context, self.store, registry, &cache, layers, need).await?;
        Ok(layers)
    }

    /// The Debian base, if the root is one.
    fn base_request(&self) -> Option<DebianRequest<'_>> {
        let LockedBase::Debian {
            suite,
            epoch,
            debs,
            diff_id,
            ..
        } = &self.order.locked.base
        else {
            return None;
        };
        let debs = self.debs(debs);
        Some(DebianRequest {
            architecture: self.order.platform.architecture(),
            comment: format!("Debian {suite}, {} packages", debs.len()),
            debs,
            epoch: *epoch,
            parents: Vec::new(),
            expected: *diff_id,
        })
    }

    /// The image's own OS packages, if it has any, above the layers `below`.
    fn own_request(&self, from: Option<&BaseImage>, below: &[Layer]) -> Option<DebianRequest<'_>> {
        let locked = &self.order.locked;
        if locked.debs.is_empty() {
            return None;
        }
        let debs = self.debs(&locked.debs);
        Some(DebianRequest {
            architecture: self.order.platform.architecture(),
            comment: comment_of(&debs),
            debs,
            epoch: match &locked.base {
                LockedBase::Debian { epoch, .. } => *epoch,
                LockedBase::From { .. } => from.map_or(0, BaseImage::epoch),
            },
            parents: below.iter().map(|layer| layer.diff_id).collect(),
            expected: locked.os_diff_id,
        })
    }

    fn debs(&self, ids: &[String]) -> Vec<&LockedDeb> {
        ids.iter().filter_map(|id| self.lock.debs.get(id)).collect()
    }

    /// `/etc/passwd` and `/etc/group` below the user's layer, and the OS layers, with those here that had to be read.
    pub async fn accounts(
        &self,
        from: Option<&BaseImage>,
        os: &OsLayers,
    ) -> Result<(Accounts, Vec<Layer>), Failure> {
        let mut layers = os.layers();
        if let (true, Some(base)) = (layers.is_empty(), from) {
            let accounts = Accounts {
                passwd: base.contents.passwd.clone(),
                group: base.contents.group.clone(),
            };
            return Ok((accounts, layers));
        }
        let top = os.own.as_ref().or(os.base.as_ref());
        if let Some(told) = top.and_then(|os| os.accounts.clone()) {
            return Ok((told, layers));
        }
        if layers
            .iter()
            .any(|layer| layer.content == LayerContent::Registry)
        {
            layers = self.pulled(&layers, Need::Bytes).await?;
        }
        let base = from
            .into_iter()
            .flat_map(|base| base.layers.iter().map(|layer| layer.digest));
        let blobs: Vec<Digest> = base
            .chain(layers.iter().map(|layer| layer.digest))
            .collect();
        Ok((accounts::read(self.store, self.state, &blobs)?, layers))
    }
}

fn made(layer: Layer) -> OsLayer {
    OsLayer {
        layer,
        accounts: None,
        belief: None,
        pulled: 0,
    }
}

/// What OS packages are put upon: the base image's layers, then the ones above it.
fn below(from: Option<&BaseImage>, above: &[Layer]) -> Vec<Layer> {
    from.iter()
        .flat_map(|base| base.layers.iter().map(crate::image::base_layer))
        .chain(above.iter().cloned())
        .collect()
}

/// For the image's history: the packages that a layer of debs adds.
fn comment_of(debs: &[&LockedDeb]) -> String {
    let names: Vec<String> = debs
        .iter()
        .take(12)
        .map(|deb| format!("{} {}", deb.package, deb.version))
        .collect();
    let more = debs.len().saturating_sub(12);
    let mut comment = format!("OS packages: {}", names.join(", "));
    if more > 0 {
        comment.push_str(&format!(" and {more} more"));
    }
    comment
}

fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
