//! Pull: manifests, and blobs into the store (OCI distribution specification, "Pull").

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use reqwest::{RequestBuilder, Response, StatusCode, header};
use serde::Deserialize;

use super::challenge::Challenge;
use super::reference::is_loopback;
use super::{Credential, Credentials, Reference, RegistryError};
use crate::ambient::{Ambient, redact};
use crate::digest::Digest;
use crate::http::{Http, HttpError, with_login};
use crate::oci::{DOCUMENT_LIMIT, Descriptor, ImageReader, ReadError};
use crate::progress::{Progress, Stage};
use crate::store::Store;

/// Manifest types that are understood.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// Most bytes of an error's or token server's answer.
const ANSWER_LIMIT: u64 = 1 << 20;

/// Attempts to go on with a blob whose transfer broke off.
const RESUMES: usize = 4;

/// A client for registries; clones share connections and tokens.
#[derive(Clone)]
pub struct Registry {
    http: Http,
    credentials: Credentials,
    tokens: Arc<Mutex<BTreeMap<String, Proof>>>,
}

/// What goes into the `Authorization` header.
#[derive(Clone)]
enum Proof {
    Basic(crate::ambient::Login),
    Bearer(String),
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("http", &self.http)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registry {
    /// A client with the machine's credential files.
    pub fn new(http: Http, ambient: &Ambient) -> Self {
        Self {
            http,
            credentials: Credentials::new(&ambient.registry_auth),
            tokens: Arc::default(),
        }
    }

    /// The repository of `reference`, as a source of base images.
    pub fn repository(&self, reference: &Reference) -> Repository {
        Repository {
            registry: self.clone(),
            reference: reference.clone(),
        }
    }

    /// The bytes of the index or manifest that `reference` names. With a digest in it they are verified.
    ///
    /// # Errors
    /// When it does not exist, is not allowed, is larger than 4 MiB, or is not what the digest says.
    pub async fn manifest(&self, reference: &Reference) -> Result<Vec<u8>, RegistryError> {
        let url = format!("{}/manifests/{}", reference.endpoint(), reference.target());
        let what = reference.to_string();
        let response = self
            .send(reference, &url, &what, |client| {
                client.get(&url).header(header::ACCEPT, ACCEPT)
            })
            .await?;
        let bytes = read_limited(response, &url, &what, DOCUMENT_LIMIT).await?;
        if let Some(expected) = reference.digest {
            let found = Digest::of(&bytes);
            if found != expected {
                return Err(RegistryError::WrongDigest {
                    what,
                    expected,
                    found,
                });
            }
        }
        Ok(bytes)
    }

    /// As [`Registry::manifest`]; `None` if it does not exist.
    ///
    /// # Errors
    /// The same, but for that it does not exist.
    pub async fn find_manifest(
        &self,
        reference: &Reference,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        match self.manifest(reference).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The descriptor of what `reference` names, without fetching it; `None` if it does not exist.
    ///
    /// # Errors
    /// When that cannot be known.
    pub async fn head_manifest(
        &self,
        reference: &Reference,
    ) -> Result<Option<Descriptor>, RegistryError> {
        let url = format!("{}/manifests/{}", reference.endpoint(), reference.target());
        let what = reference.to_string();
        let response = self
            .send(reference, &url, &what, |client| {
                client.head(&url).header(header::ACCEPT, ACCEPT)
            })
            .await;
        let response = match response {
            Ok(response) => response,
            Err(RegistryError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let text = |name: &str| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let digest = text("docker-content-digest").and_then(|digest| digest.parse().ok());
        let size = text("content-length").and_then(|size| size.parse().ok());
        match (digest, size) {
            (Some(digest), Some(size)) => Ok(Some(Descriptor::new(
                text("content-type").unwrap_or_default(),
                digest,
                size,
            ))),
            _ => {
                let bytes = self.manifest(reference).await?;
                Ok(Some(Descriptor::of(
                    text("content-type").unwrap_or_default(),
                    bytes,
                )))
            }
        }
    }

    /// Puts a manifest, index or artifact manifest under the reference's tag, or under its digest if there is none.
    ///
    /// # Errors
    /// When the registry does not take it.
    pub async fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let digest = Digest::of(bytes);
        let target = reference.tag.clone().unwrap_or_else(|| digest.to_string());
        let url = format!("{}/manifests/{target}", reference.endpoint());
        let what = reference.to_string();
        self.send(reference, &url, &what, |client| {
            client
                .put(&url)
                .header(header::CONTENT_TYPE, media_type)
                .body(bytes.to_vec())
        })
        .await?;
        Ok(digest)
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
        let url = format!("{}/blobs/{}", reference.endpoint(), blob.digest);
        let what = format!(
            "blob {} of {}/{}",
            blob.digest, reference.host, reference.repository
        );
        let mut pending = store.pending()?;
        let mut got = 0;
        for attempt in 0..=RESUMES {
            let response = self
                .send(reference, &url, &what, |client| match got {
                    0 => client.get(&url),
                    _ => client
                        .get(&url)
                        .header(header::RANGE, format!("bytes={got}-")),
                })
                .await?;
            if got > 0 && !continues_at(&response, got) {
                pending = store.pending()?;
                got = 0;
            }
            let broken =
                append(response, &mut pending, &mut got, blob.size, &what, advance).await?;
            match broken {
                None => break,
                Some(_) if attempt < RESUMES => {}
                Some(error) => return Err(HttpError::from_reqwest(&url, error).into()),
            }
        }
        if got != blob.size {
            return Err(RegistryError::Truncated {
                what,
                got,
                size: blob.size,
            });
        }
        pending.commit_verified(&store.blob_path(&blob.digest), &blob.digest, &what)?;
        Ok(())
    }

    /// Sends a request, answers a challenge once, and turns an error status into an error.
    pub(super) async fn send(
        &self,
        reference: &Reference,
        url: &str,
        what: &str,
        build: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let known = self.known_proof(reference);
        let attempt = |proof: Option<Proof>| {
            let build = &build;
            self.http
                .exchange(url, move |client| with_proof(build(client), proof.as_ref()))
        };
        let mut response = attempt(known).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let proof = self.answer(reference, what, &response).await?;
            response = attempt(Some(proof.clone())).await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                self.keep_proof(reference, proof);
            }
        }
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = read_limited(response, url, what, ANSWER_LIMIT)
            .await
            .unwrap_or_default();
        Err(RegistryError::from_answer(what, status, &body))
    }

    fn proof_key(reference: &Reference) -> String {
        format!("{}/{}", reference.host, reference.repository)
    }

    fn known_proof(&self, reference: &Reference) -> Option<Proof> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(&Self::proof_key(reference)).cloned()
    }

    fn keep_proof(&self, reference: &Reference, proof: Proof) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(Self::proof_key(reference), proof);
    }

    async fn answer(
        &self,
        reference: &Reference,
        what: &str,
        response: &Response,
    ) -> Result<Proof, RegistryError> {
        let values: Vec<&str> = response
            .headers()
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let Some(challenge) = Challenge::choose(values.iter().copied()) else {
            let schemes = values
                .iter()
                .map(|value| value.split(' ').next().unwrap_or_default());
            let challenge = schemes
                .collect::<Vec<_>>()
                .join(", ")
                .chars()
                .take(100)
                .collect();
            return Err(RegistryError::Challenge {
                host: reference.host.clone(),
                challenge,
            });
        };
        let credentials = self.credentials.clone();
        let wanted = reference.clone();
        let found = tokio::task::spawn_blocking(move || credentials.find(&wanted)).await;
        let credential = found.ok().transpose()?.flatten();
        match (challenge, credential) {
            (Challenge::Basic, Some(Credential::Login(login))) => Ok(Proof::Basic(login)),
            (Challenge::Basic, _) => Err(RegistryError::NoCredentials {
                host: reference.host.clone(),
                what: what.into(),
            }),
            (
                Challenge::Bearer {
                    realm,
                    service,
                    scope,
                },
                credential,
            ) => {
                let scope =
                    scope.unwrap_or_else(|| format!("repository:{}:pull", reference.repository));
                self.token(&realm, service.as_deref(), &scope, credential)
                    .await
            }
        }
    }

    /// The token server's part (distribution's token authentication, and its OAuth2 form for identity tokens).
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credential: Option<Credential>,
    ) -> Result<Proof, RegistryError> {
        let shown = redact(realm);
        let mut url =
            url::Url::parse(realm).map_err(|_| RegistryError::NoToken { url: shown.clone() })?;
        let safe = url.scheme() == "https" || url.host_str().is_some_and(is_loopback);
        if !safe && credential.is_some() {
            return Err(RegistryError::InsecureTokenServer { url: shown });
        }
        let mut fields: Vec<(&str, &str)> = service
            .map(|service| ("service", service))
            .into_iter()
            .collect();
        fields.push(("scope", scope));
        let response = match &credential {
            Some(Credential::IdentityToken(token)) => {
                fields.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", "imagewright"),
                    ("refresh_token", token.as_str()),
                ]);
                let body = url::form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(&fields)
                    .finish();
                let form = "application/x-www-form-urlencoded";
                self.http
                    .exchange(realm, |client| {
                        client
                            .post(url.clone())
                            .header(header::CONTENT_TYPE, form)
                            .body(body.clone())
                    })
                    .await?
            }
            other => {
                url.query_pairs_mut().extend_pairs(&fields);
                let login = match other {
                    Some(Credential::Login(login)) => Some(login),
                    _ => None,
                };
                self.http
                    .exchange(realm, |client| with_login(client.get(url.clone()), login))
                    .await?
            }
        };
        let status = response.status();
        let bytes = read_limited(response, realm, &shown, ANSWER_LIMIT).await?;
        if !status.is_success() {
            return Err(RegistryError::from_answer(
                &format!("a token of {shown}"),
                status,
                &bytes,
            ));
        }
        let answer: Option<TokenAnswer> = serde_json::from_slice(&bytes).ok();
        answer
            .and_then(|answer| answer.token.or(answer.access_token))
            .filter(|token| !token.is_empty())
            .map(Proof::Bearer)
            .ok_or(RegistryError::NoToken { url: shown })
    }
}

fn with_proof(request: RequestBuilder, proof: Option<&Proof>) -> RequestBuilder {
    match proof {
        None => request,
        Some(Proof::Basic(login)) => with_login(request, Some(login)),
        Some(Proof::Bearer(token)) => request.bearer_auth(token),
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

/// Appends what comes; gives back the error of a transfer that broke off.
async fn append(
    response: Response,
    pending: &mut crate::store::Pending,
    got: &mut u64,
    size: u64,
    what: &str,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<Option<reqwest::Error>, RegistryError> {
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => return Ok(Some(error)),
        };
        *got += chunk.len() as u64;
        if *got > size {
            return Err(RegistryError::TooLarge {
                what: what.into(),
                limit: size,
            });
        }
        pending.append(&chunk)?;
        advance(chunk.len() as u64);
    }
    Ok(None)
}

pub(super) async fn read_limited(
    response: Response,
    url: &str,
    what: &str,
    limit: u64,
) -> Result<Vec<u8>, RegistryError> {
    let too_large = || RegistryError::TooLarge {
        what: what.into(),
        limit,
    };
    if response
        .content_length()
        .is_some_and(|length| length > limit)
    {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| HttpError::from_reqwest(url, error))?;
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
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
            self.registry
                .manifest(&self.reference)
                .await
                .map_err(ReadError::new)
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
            self.registry
                .manifest(&pinned)
                .await
                .map_err(ReadError::new)
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
