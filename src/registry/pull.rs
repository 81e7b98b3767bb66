//! Pull of blobs into the store (OCI distribution specification, "Pulling blobs").

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use reqwest::{Method, Response, StatusCode, header};

use super::grants::Access;
use super::push::blob_of;
use super::{Reference, Registry, RegistryError};
use crate::digest::Digest;
use crate::http::HttpError;
use crate::oci::{Descriptor, ImageReader, ReadError};
use crate::progress::{Progress, Stage};
use crate::store::{Pending, Store, StoreError};

/// In this time at least [`LEAST`] bytes have to come, or the transfer stands still.
const WINDOW: Duration = Duration::from_secs(60);
const LEAST: u64 = 4096;

impl Registry {
    /// The repository of `reference`, as a source of base images.
    pub fn repository(&self, reference: &Reference) -> Repository {
        Repository {
            registry: self.clone(),
            reference: reference.clone(),
        }
    }

    /// Streams a blob into the store, verified; goes on where a transfer broke off.
    ///
    /// # Errors
    /// As for manifests; when it is longer or shorter than its descriptor says.
    pub async fn blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<(), RegistryError> {
        let id = progress.begin(Stage::Base, &blob.digest.short(), Some(blob.size));
        let result = self
            .blob_into(reference, blob, store, &|n| progress.advance(id, n))
            .await;
        progress.end(id);
        result
    }

    async fn blob_into(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        store: &Store,
        advance: &(dyn Fn(u64) + Sync),
    ) -> Result<(), RegistryError> {
        let what = blob_of(reference, &blob.digest);
        let target = store.blob_path(&blob.digest);
        let mut coming = Coming {
            what: &what,
            size: blob.size,
            pending: store.pending()?,
            got: 0,
            best: 0,
            advance,
        };
        let mut damaged = false;
        loop {
            self.receive(reference, &blob.digest, store, &mut coming)
                .await?;
            let whole = std::mem::replace(&mut coming.pending, store.pending()?);
            coming.got = 0;
            match whole.commit_verified(&target, &blob.digest, &what) {
                // On its way, perhaps, or where it was put together: once more.
                Err(StoreError::WrongDigest { .. }) if !damaged => damaged = true,
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// All bytes of a blob.
    async fn receive(
        &self,
        reference: &Reference,
        digest: &Digest,
        store: &Store,
        coming: &mut Coming<'_>,
    ) -> Result<(), RegistryError> {
        let path = format!("/blobs/{digest}");
        let mut waits = self.waits();
        loop {
            let mut ask = self.ask(reference, coming.what, Method::GET, &path, Access::Pull)?;
            if coming.got > 0 {
                ask = ask.header(header::RANGE, &format!("bytes={}-", coming.got));
            }
            let response = match self.open(&ask).await {
                // There is nothing behind what came.
                Err(RegistryError::OutOfStep { .. }) if coming.got > 0 => return coming.end(),
                response => response?,
            };
            if coming.got > 0 && !continues_at(&response, coming.got) {
                coming.pending = store.pending()?;
                coming.got = 0;
            }
            let before = coming.best;
            match self.append(response, coming).await {
                Ok(()) => return Ok(()),
                Err(error) => waits.after(error).await?,
            }
            if coming.best - before >= LEAST {
                waits.progress();
            }
        }
    }

    /// Appends what comes, to the end.
    async fn append(
        &self,
        response: Response,
        coming: &mut Coming<'_>,
    ) -> Result<(), RegistryError> {
        let url = response.url().clone();
        let mut stream = response.bytes_stream();
        let mut window = (tokio::time::Instant::now() + WINDOW, coming.got);
        loop {
            let next = tokio::time::timeout_at(window.0, stream.next());
            let Ok(next) = next.await else {
                return Err(RegistryError::Stalled {
                    what: coming.what.into(),
                });
            };
            let Some(chunk) = next else {
                return coming.end();
            };
            let chunk = chunk.map_err(|error| HttpError::from_reqwest(url.as_str(), error))?;
            self.transfers.received(chunk.len());
            coming.take(&chunk)?;
            if coming.got - window.1 >= LEAST {
                window = (tokio::time::Instant::now() + WINDOW, coming.got);
            }
        }
    }
}

/// A blob on its way into the store.
struct Coming<'a> {
    what: &'a str,
    size: u64,
    pending: Pending,
    got: u64,
    /// The most that was there in any attempt.
    best: u64,
    advance: &'a (dyn Fn(u64) + Sync),
}

impl Coming<'_> {
    fn take(&mut self, chunk: &[u8]) -> Result<(), RegistryError> {
        self.got += chunk.len() as u64;
        if self.got > self.size {
            return Err(RegistryError::TooLarge {
                what: self.what.into(),
                limit: self.size,
            });
        }
        self.pending.append(chunk)?;
        if self.got > self.best {
            (self.advance)(self.got - self.best);
            self.best = self.got;
        }
        Ok(())
    }

    fn end(&self) -> Result<(), RegistryError> {
        match self.got == self.size {
            true => Ok(()),
            false => Err(RegistryError::Truncated {
                what: self.what.into(),
                got: self.got,
                size: self.size,
            }),
        }
    }
}

/// Whether the server took the range up where we are.
fn continues_at(response: &Response, got: u64) -> bool {
    let range = response
        .headers()
        .get(header::CONTENT_RANGE)
        .and_then(|range| range.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {got}-")))
}

/// A repository of a registry, as a source of base images.
#[derive(Clone, Debug)]
pub struct Repository {
    registry: Registry,
    reference: Reference,
}

impl ImageReader for Repository {
    fn top(&self) -> BoxFuture<'_, Result<Vec<u8>, ReadError>> {
        async {
            let bytes = self.registry.manifest(&self.reference).await;
            bytes.map_err(ReadError::new)
        }
        .boxed()
    }

    fn manifest<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Vec<u8>, ReadError>> {
        async {
            let pinned = Reference {
                digest: Some(*digest),
                tag: None,
                ..self.reference.clone()
            };
            let bytes = self.registry.manifest(&pinned).await;
            bytes.map_err(ReadError::new)
        }
        .boxed()
    }

    fn blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        store: &'a Store,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<(), ReadError>> {
        async move {
            let pulled = self
                .registry
                .blob(&self.reference, blob, store, progress)
                .await;
            pulled.map_err(ReadError::new)
        }
        .boxed()
    }
}
