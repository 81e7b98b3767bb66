//! Secret keys: files that hold one, and signing with it.
//!
//! A key file is one line, `imagewright-ed25519-secret:` and the base64 of the 32 bytes that RFC 8032 calls the private
//! key. No message of this module shows any of it.

use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::SigningKey;

use super::{LayerRecord, LayerStatement, Record, Signature, Statement};
use crate::diagnostic::{Explain, Kind};
use crate::manifest::TrustedKey;

/// What a key file begins with.
const PREFIX: &str = "imagewright-ed25519-secret:";

/// A key that signs. `Debug` shows the public part.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

/// Why there is no secret key.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say what each variant means.
pub enum SecretKeyError {
    #[error("{} is not a key file: it does not begin with `{PREFIX}`", path.display())]
    Prefix { path: PathBuf },
    #[error("{} is not a key file: `{PREFIX}` is not followed by 32 bytes in base64 on one line", path.display())]
    Bytes { path: PathBuf },
    #[error("this machine has no random numbers for a key: {0}")]
    Random(String),
}

impl Explain for SecretKeyError {
    fn kind(&self) -> Kind {
        match self {
            Self::Random(_) => Kind::Unavailable,
            _ => Kind::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Random(_) => None,
            _ => Some("`imagewright sign --new FILE` writes a key file".into()),
        }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretKey").field(&self.public()).finish()
    }
}

impl SecretKey {
    /// A new one, from the operating system's random numbers.
    ///
    /// # Errors
    /// When it has none.
    pub fn generate() -> Result<Self, SecretKeyError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| SecretKeyError::Random(error.to_string()))?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Whether `text` has a key in it, so that nobody may be shown it.
    pub fn is_in(text: &str) -> bool {
        text.contains(PREFIX)
    }

    /// Reads the text of the key file at `path`.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(text: &str, path: impl Into<PathBuf>) -> Result<Self, SecretKeyError> {
        let path = path.into();
        let Some(encoded) = text.trim().strip_prefix(PREFIX) else {
            return Err(SecretKeyError::Prefix { path });
        };
        let bytes = BASE64.decode(encoded).ok();
        match bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
            Some(seed) => Ok(Self(SigningKey::from_bytes(&seed))),
            None => Err(SecretKeyError::Bytes { path }),
        }
    }

    /// The text of a key file.
    pub fn to_text(&self) -> String {
        format!("{PREFIX}{}\n", BASE64.encode(self.0.to_bytes()))
    }

    /// The public key, which manifests name in `trust`.
    pub fn public(&self) -> TrustedKey {
        TrustedKey(self.0.verifying_key().to_bytes())
    }

    /// `record` with this key's signature, other signatures kept.
    pub fn sign_record(&self, record: &Record) -> Record {
        let mut signed = record.clone();
        let signature = Signature::sign(&Statement::of(record), &self.0);
        self.replace(&mut signed.signatures, signature);
        signed
    }

    /// As [`SecretKey::sign_record`], for a layer; one without a key cannot be signed.
    pub fn sign_layer(&self, record: &LayerRecord) -> Option<LayerRecord> {
        let mut signed = record.clone();
        let statement = LayerStatement::of(record.layer.key?, record);
        self.replace(&mut signed.signatures, Signature::sign(&statement, &self.0));
        Some(signed)
    }

    fn replace(&self, signatures: &mut Vec<Signature>, signature: Signature) {
        signatures.retain(|other| other.key != signature.key);
        signatures.push(signature);
        signatures.sort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_files_read_back_and_broken_ones_are_refused_without_a_word_of_them() {
        let key = SecretKey::generate().unwrap();
        let text = key.to_text();
        let read = SecretKey::parse(&text, "k").unwrap();
        assert_eq!(read.public(), key.public());
        let seed = text.trim().strip_prefix(PREFIX).unwrap();
        assert!(!format!("{key:?}").contains(seed));
        for broken in [
            String::new(),
            seed.to_owned(),
            format!("{PREFIX}{}", &seed[..40]),
            format!("{PREFIX}{seed}{seed}"),
            format!("{PREFIX}!{}", &seed[1..]),
            format!("{PREFIX}{seed}\n{seed}"),
            key.public().to_string(),
        ] {
            let error = SecretKey::parse(&broken, "my.key").unwrap_err();
            let told = format!("{error} {error:?} {:?}", error.hint());
            assert!(told.contains("my.key"), "{told}");
            assert!(!told.contains(&seed[1..20]), "{told}");
        }
    }
}
