//! Which registries a manifest's images are pushed to and looked up in.

use crate::catalog::{Catalog, Place, Trust};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::diagnostic::Kind;
use crate::http::Http;
use crate::manifest::{Destination, Layout, Manifest};

/// The catalog of the manifest's `registry`, if it declares one.
pub fn lookup(
    context: &Context,
    http: &Http,
    manifest: &Manifest,
) -> Result<Option<Catalog>, Failure> {
    let declared = manifest.registry.as_ref();
    declared
        .map(|destination| catalog(context, http, destination))
        .transpose()
}

/// The catalogs of `registry` and of every `push`.
pub fn destinations(
    context: &Context,
    http: &Http,
    manifest: &Manifest,
) -> Result<Vec<Catalog>, Failure> {
    let all = manifest.registry.iter().chain(&manifest.pushes);
    all.map(|destination| catalog(context, http, destination))
        .collect()
}

/// Where a command writes to.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// Another place than those that the manifest declares; can be given several times
    #[arg(long, value_name = "HOST/PATH")]
    pub to: Vec<String>,
}

impl Target {
    /// The catalogs of `--to`, or else those of the manifest.
    pub fn catalogs(
        &self,
        context: &Context,
        http: &Http,
        manifest: &Manifest,
    ) -> Result<Vec<Catalog>, Failure> {
        let found = match self.to.as_slice() {
            [] => destinations(context, http, manifest)?,
            named => named
                .iter()
                .map(|text| self::named(context, http, manifest, text))
                .collect::<Result<_, _>>()?,
        };
        if found.is_empty() {
            return Err(Failure::plain(
                Kind::Usage,
                "nothing says where to push to",
                "declare it in the manifest: registry \"registry.example.com/ml\"; or give --to HOST/PATH",
            ));
        }
        Ok(found)
    }
}

/// The catalog of the place that `text` names: the declared one if it is one of them.
pub fn named(
    context: &Context,
    http: &Http,
    manifest: &Manifest,
    text: &str,
) -> Result<Catalog, Failure> {
    let text = text.trim_end_matches('/');
    let mut declared = manifest.registry.iter().chain(&manifest.pushes);
    match declared.find(|destination| destination.registry == text) {
        Some(destination) => catalog(context, http, destination),
        None => {
            let destination = Destination {
                registry: text.to_owned(),
                layout: Layout::default(),
                plain_http: false,
            };
            catalog(context, http, &destination)
        }
    }
}

/// Whom the manifest and the command line believe.
pub fn trust(manifest: &Manifest, registry: bool) -> Trust {
    Trust {
        keys: manifest.trust.iter().map(|key| key.value).collect(),
        registry,
    }
}

fn catalog(context: &Context, http: &Http, destination: &Destination) -> Result<Catalog, Failure> {
    let place = Place::new(destination)?;
    let plain = destination.plain_http.then(|| place.host().to_owned());
    let registry = context.registry(http.clone()).with_plain_http(plain);
    Ok(Catalog::new(registry, place))
}
