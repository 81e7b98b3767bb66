//! The lock beside a record: read as what a stranger wrote, and made the reader's own.

use std::collections::BTreeMap;

use super::{Offer, Reason, Wanted, reasons, satisfy};
use crate::catalog::{Catalog, CatalogError, Record};
use crate::diagnostic::{Explain as _, Kind, SourceText};
use crate::digest::Digest;
use crate::identity::{self, EMITTER_VERSION, RequestDocument, SetDocument, canonical_url};
use crate::lock::{Lock, LockedBase, LockedImage, WheelOrigin};
use crate::manifest::{ImageRequest, Platform, Root};
use crate::progress::Progress;
use crate::store::Store;

/// Largest lock of one image that is read, in bytes.
const LIMIT: u64 = 4 << 20;

/// An image and the lock that it was made from.
#[derive(Clone, Debug)]
pub struct Fragment {
    /// What the registry says of the image.
    pub record: Record,
    /// Its lock: this image alone.
    pub lock: Lock,
    /// The image in that.
    pub image: LockedImage,
}

impl Fragment {
    /// Reads the lock beside `record`.
    ///
    /// # Errors
    /// When the text is not a lock, or not the lock of the image that the record describes; a sentence's end.
    pub fn read(record: Record, text: String) -> Result<Self, String> {
        let source = SourceText::new("the lock beside the record", text);
        let (lock, name, platform, image) = Lock::parse_only(&source).map_err(|problems| {
            let first = problems.0.first().map(|problem| problem.message.clone());
            first.unwrap_or_else(|| "it is not readable".into())
        })?;
        if (&name, platform) != (&record.name, record.platform) {
            return Err(format!("it is the lock of {name} for {platform}"));
        }
        let (told, locked) = (
            Offer::recorded(&record),
            Offer::locked(&record, &lock, &image),
        );
        let versions = |offer: &Offer| -> BTreeMap<String, String> {
            let pip = offer.pip.iter();
            pip.map(|(name, found)| (name.clone(), found.version.clone()))
                .collect()
        };
        for (what, same) in [
            ("request", told.request == locked.request),
            ("Python", told.python == locked.python),
            (
                "base",
                (&told.root, told.base_digest, told.base_request)
                    == (&locked.root, locked.base_digest, locked.base_request),
            ),
            (
                "Python packages",
                versions(&told) == versions(&locked) && locked.pip.len() == image.wheels.len(),
            ),
            ("OS packages", told.os == locked.os),
        ] {
            if !same {
                return Err(format!("its {what} and the record's are not the same"));
            }
        }
        Ok(Self {
            record,
            lock,
            image,
        })
    }

    /// Every reason why the locked image does not satisfy the request.
    pub fn reasons(&self, wanted: &Wanted<'_>) -> Vec<Reason> {
        reasons(
            wanted,
            &Offer::locked(&self.record, &self.lock, &self.image),
        )
    }

    /// The same pins as an answer to a request that they satisfy, and the artifacts that they use. Wheels get the places
    /// that the manifest gives them. What was built is kept where the same rules build it; the image's digest only
    /// where the manifest configures the image alike, so that the set key is the same.
    pub fn adopted(
        &self,
        request: &ImageRequest,
        document: &RequestDocument,
        content: &identity::ProjectContent,
    ) -> (LockedImage, Lock) {
        let mut lock = self.lock.clone();
        for wheel in lock.wheels.values_mut() {
            wheel.origin = own_origin(&wheel.origin, &wheel.sha256, request, content);
        }
        let same_rules = lock.emitter == EMITTER_VERSION;
        let mut image = LockedImage {
            request: identity::key(document),
            os_request: (!self.image.debs.is_empty() || !document.os.is_empty())
                .then(|| document.os_key()),
            os_diff_id: self.image.os_diff_id.filter(|_| same_rules),
            digest: None,
            ..self.image.clone()
        };
        if let (
            LockedBase::Debian {
                mirror, diff_id, ..
            },
            Root::Debian(debian),
        ) = (&mut image.base, &request.root)
        {
            *mirror = debian.mirror.as_ref().map(|mirror| mirror.value.clone());
            *diff_id = diff_id.filter(|_| same_rules);
        }
        let platform = document.platform;
        let set = SetDocument::new(request, platform, &lock, &image, &content.files);
        if identity::key(&set) == self.record.keys.set {
            image.digest = Some(self.record.digest);
        }
        (image, lock)
    }

    /// The pins as an old lock that answers no request: versions to prefer, and nothing that would be believed.
    pub fn versions(&self) -> LockedImage {
        let none = Digest::of("");
        let mut image = LockedImage {
            request: none,
            os_request: None,
            os_diff_id: None,
            digest: None,
            ..self.image.clone()
        };
        if let LockedBase::Debian {
            request, diff_id, ..
        } = &mut image.base
        {
            (*request, *diff_id) = (none, None);
        }
        image
    }

    /// The platform.
    pub fn platform(&self) -> Platform {
        self.record.platform
    }
}

/// Where the manifest says that a wheel is, which [`reasons`] found to be such a place.
fn own_origin(
    origin: &WheelOrigin,
    sha256: &Digest,
    request: &ImageRequest,
    content: &identity::ProjectContent,
) -> WheelOrigin {
    match origin {
        WheelOrigin::Index(url) => {
            let mut declared = request.indexes.iter().map(|index| &index.url);
            let own = declared.find(|own| canonical_url(own) == canonical_url(url));
            WheelOrigin::Index(own.unwrap_or(url).clone())
        }
        WheelOrigin::Path(path) => {
            let own = content.wheels.iter().find(|(_, own)| *own == sha256);
            WheelOrigin::Path(own.map_or(path, |(own, _)| own).clone())
        }
        WheelOrigin::DefaultIndex | WheelOrigin::Url(_) => origin.clone(),
    }
}

impl Catalog {
    /// As [`satisfy()`], with what the lock beside the record proves.
    ///
    /// # Errors
    /// When the registry is out of reach.
    pub async fn satisfy(
        &self,
        wanted: &Wanted<'_>,
        record: &Record,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Vec<Reason>, CatalogError> {
        let reasons = satisfy(wanted, record);
        if reasons.is_empty() || reasons.iter().any(|reason| !reason.unproven) {
            return Ok(reasons);
        }
        match self.fragment(record.clone(), store, progress).await {
            Ok(fragment) => Ok(fragment.reasons(wanted)),
            Err(error) if error.kind() == Kind::Unavailable => Err(error),
            // Without its lock nothing is proved.
            Err(_) => Ok(reasons),
        }
    }

    /// The lock beside a record, read and compared with it.
    ///
    /// # Errors
    /// Those of the registry; when it is missing, too large, or not the lock of the record's image.
    pub async fn fragment(
        &self,
        record: Record,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fragment, CatalogError> {
        let malformed = |record: &Record, reason: String| CatalogError::Malformed {
            what: format!(
                "the lock beside the record of {} in {}",
                record.name,
                self.place.cache()
            ),
            reason,
        };
        let Some(blob) = record.lock.clone() else {
            return Err(malformed(&record, "there is none".into()));
        };
        if blob.media_type != Lock::MEDIA_TYPE {
            return Err(malformed(&record, "its media type is another".into()));
        }
        if blob.size > LIMIT {
            return Err(malformed(
                &record,
                format!("it has {} bytes, more than {LIMIT}", blob.size),
            ));
        }
        let path = match store.blob(&blob.digest) {
            Some(path) => path,
            None => {
                let cache = self.place.cache();
                self.registry.blob(&cache, &blob, store, progress).await?;
                store.blob_path(&blob.digest)
            }
        };
        let bytes = std::fs::read(&path).map_err(crate::store::StoreError::io("read", &path))?;
        if Digest::of(&bytes) != blob.digest {
            return Err(malformed(&record, "the store's copy is damaged".into()));
        }
        let text =
            String::from_utf8(bytes).map_err(|_| malformed(&record, "it is not text".into()))?;
        Fragment::read(record.clone(), text).map_err(|reason| malformed(&record, reason))
    }
}
