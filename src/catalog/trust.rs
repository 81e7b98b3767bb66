//! Who may be believed when a registry says that a key stands for certain bytes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LayerRecord, Record};
use crate::digest::Digest;
use crate::identity;
use crate::manifest::TrustedKey;

/// An Ed25519 signature (RFC 8032) of a statement's canonical JSON.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Signature {
    /// The public key, `ed25519:` and base64.
    pub key: String,
    /// Base64.
    pub signature: String,
}

/// What a signer says of an image: this set is this image, and this is the lock that it was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Tells statements apart: `imagewright image 1`.
    pub statement: String,
    /// The set key.
    pub set: Digest,
    /// The image key.
    pub image: Digest,
    /// Digest of the image manifest.
    pub digest: Digest,
    /// Digest of the lock beside the record, if there is one.
    pub lock: Option<Digest>,
}

/// What a signer says of a layer: this key is this blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerStatement {
    /// Tells statements apart: `imagewright layer 1`.
    pub statement: String,
    /// The layer key.
    pub key: Digest,
    /// Of the blob.
    pub digest: Digest,
    /// Of the blob, in bytes.
    pub size: u64,
    /// Of the uncompressed tar.
    pub diff_id: Digest,
    /// Digest of the canonical JSON of the accounts, if there are any.
    pub accounts: Option<Digest>,
    /// Digest of the blob of paths, if there is one.
    pub paths: Option<Digest>,
}

impl Statement {
    /// What `record` claims.
    pub fn of(record: &Record) -> Self {
        Self {
            statement: "imagewright image 1".into(),
            set: record.keys.set,
            image: record.keys.image,
            digest: record.digest,
            lock: record.lock.as_ref().map(|lock| lock.digest),
        }
    }
}

impl Record {
    /// Public keys whose signatures in this record are right. Whether they are trusted is another question.
    pub fn signers(&self) -> impl Iterator<Item = String> {
        let statement = Statement::of(self);
        let right = move |signature: &&Signature| {
            let key = signature.key.parse::<TrustedKey>();
            key.is_ok_and(|key| signature.is_of(&key, &statement))
        };
        let signatures = self.signatures.iter().filter(right);
        signatures.map(|signature| signature.key.clone())
    }
}

impl LayerStatement {
    /// What `record` claims of `key`.
    pub fn of(key: Digest, record: &LayerRecord) -> Self {
        let layer = &record.layer;
        Self {
            statement: "imagewright layer 1".into(),
            key,
            digest: layer.digest,
            size: layer.size,
            diff_id: layer.diff_id,
            accounts: record.accounts.as_ref().map(identity::key),
            paths: record.paths.as_ref().map(|paths| paths.digest),
        }
    }
}

impl Signature {
    /// Signs a statement.
    pub fn sign(statement: &impl Serialize, key: &SigningKey) -> Self {
        let message = identity::canonical_json(statement);
        Self {
            key: TrustedKey(key.verifying_key().to_bytes()).to_string(),
            signature: BASE64.encode(key.sign(&message).to_bytes()),
        }
    }

    /// Whether this is `key`'s signature of the statement.
    pub fn is_of(&self, key: &TrustedKey, statement: &impl Serialize) -> bool {
        let signature = BASE64.decode(&self.signature).ok();
        let signature =
            signature.and_then(|bytes| ed25519_dalek::Signature::from_slice(&bytes).ok());
        let (Some(signature), Ok(verifier)) = (signature, VerifyingKey::from_bytes(&key.0)) else {
            return false;
        };
        let message = identity::canonical_json(statement);
        self.key == key.to_string() && verifier.verify_strict(&message, &signature).is_ok()
    }
}

impl TrustedKey {
    /// What tags call it: the first 16 hex digits of the SHA-256 of its bytes.
    pub fn id(&self) -> String {
        Digest::of(self.0).hex()[..16].to_owned()
    }
}

/// Whom this command believes.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Keys named in the manifest.
    pub keys: Vec<TrustedKey>,
    /// Whether whoever can write to the registry is believed (`--trust-registry`).
    pub registry: bool,
}

/// Why a claim is believed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Belief {
    /// The committed lock says the same.
    Lock,
    /// A trusted key signed it; its id.
    Signed(String),
    /// The registry is trusted.
    Registry,
}

impl fmt::Display for Belief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock => f.write_str("the lock has its digest"),
            Self::Signed(key) => write!(f, "the trusted key {key} signed it"),
            Self::Registry => f.write_str("the registry is trusted"),
        }
    }
}

impl Trust {
    /// Whether anybody's word counts beside the lock's.
    pub fn trusts_somebody(&self) -> bool {
        self.registry || !self.keys.is_empty()
    }

    /// Whether what was believed for this reason is believed still; `locked` says whether the lock has it.
    pub fn still(&self, belief: &Belief, locked: bool) -> bool {
        match belief {
            Belief::Lock => locked,
            Belief::Signed(id) => {
                locked || self.registry || self.keys.iter().any(|key| key.id() == *id)
            }
            Belief::Registry => locked || self.registry,
        }
    }

    /// Why a statement with these signatures is believed; `None`: it is not.
    pub fn belief(&self, statement: &impl Serialize, signatures: &[Signature]) -> Option<Belief> {
        let signed = self.keys.iter().find(|key| {
            signatures
                .iter()
                .any(|signature| signature.is_of(key, statement))
        });
        match signed {
            Some(key) => Some(Belief::Signed(key.id())),
            None => self.registry.then_some(Belief::Registry),
        }
    }
}
