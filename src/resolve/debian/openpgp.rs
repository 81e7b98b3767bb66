//! OpenPGP verification of an archive's `InRelease` against a keyring (RFC 9580, cleartext signatures).
//!
//! A signature counts if a primary key, or a signing subkey that its primary key has bound, made it; if neither key
//! was expired or revoked at the time given; and if its hash is of the SHA-2 or SHA-3 family.

use std::path::{Path, PathBuf};

use pgp::composed::{CleartextSignedMessage, Deserializable, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::{KeyDetails, Tag, Timestamp, VerifyingKey};

/// The certificates that may verify an archive.
#[derive(Debug)]
pub struct Keyring {
    path: PathBuf,
    certificates: Vec<SignedPublicKey>,
}

/// Why a text is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No cleartext signature.
    #[error("it is not signed")]
    Unsigned,
    /// The framing is broken.
    #[error("its signature cannot be read: {0}")]
    Broken(String),
    /// No key of the keyring made any of the signatures.
    #[error("it is signed by {issuers}, which the keyring {} does not hold", keyring.display())]
    UnknownKey {
        /// Key ids.
        issuers: String,
        /// The keyring.
        keyring: PathBuf,
    },
    /// The signature does not fit the text.
    #[error("the signature of key {0} does not fit the text: it was changed after signing")]
    Tampered(String),
    /// The key cannot be used at this time.
    #[error("key {key} {reason}")]
    Key {
        /// Key id.
        key: String,
        /// For example `expired on …`.
        reason: String,
    },
    /// The signature itself has expired, or is from the future.
    #[error("the signature of key {key} {reason}")]
    Signature {
        /// Key id.
        key: String,
        /// Why.
        reason: String,
    },
}

impl Keyring {
    /// Reads a keyring's bytes, armored or binary; certificates that cannot be read are left out.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, String> {
        let (found, _) = SignedPublicKey::from_reader_many(bytes)
            .map_err(|error| format!("it holds no OpenPGP key: {error}"))?;
        let certificates: Vec<_> = found.filter_map(Result::ok).collect();
        if certificates.is_empty() {
            return Err("it holds no OpenPGP key".into());
        }
        Ok(Self {
            path: path.into(),
            certificates,
        })
    }

    /// The text that a valid signature of this keyring covers. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// When no signature is valid; the reason of the one that came closest.
    pub fn verify(&self, signed: &str, now: i64) -> Result<String, SignatureError> {
        if !signed.starts_with("-----BEGIN PGP SIGNED MESSAGE-----") {
            return Err(SignatureError::Unsigned);
        }
        let (message, _) = CleartextSignedMessage::from_string(signed)
            .map_err(|error| SignatureError::Broken(error.to_string()))?;
        let text = message.signed_text();
        let mut closest = None;
        for signature in message.signatures() {
            match self.check(signature, text.as_bytes(), now) {
                Ok(()) => return Ok(text.replace("\r\n", "\n")),
                Err(Some(error)) => closest = Some(error),
                Err(None) => {}
            }
        }
        Err(closest.unwrap_or_else(|| SignatureError::UnknownKey {
            issuers: issuers(message.signatures()),
            keyring: self.path.clone(),
        }))
    }

    /// `Err(None)` if no key of the keyring is meant.
    fn check(
        &self,
        signature: &Signature,
        text: &[u8],
        now: i64,
    ) -> Result<(), Option<SignatureError>> {
        let mut closest = None;
        for certificate in &self.certificates {
            let primary = &certificate.primary_key;
            if is_issuer(signature, primary) {
                let checked = check_signature(signature, primary, text, now)
                    .and_then(|()| check_primary(certificate, now));
                match checked {
                    Ok(()) => return Ok(()),
                    Err(error) => closest = Some(error),
                }
            }
            for subkey in &certificate.public_subkeys {
                if is_issuer(signature, &subkey.key) {
                    let checked = check_signature(signature, &subkey.key, text, now)
                        .and_then(|()| check_primary(certificate, now))
                        .and_then(|()| check_subkey(certificate, subkey, now));
                    match checked {
                        Ok(()) => return Ok(()),
                        Err(error) => closest = Some(error),
                    }
                }
            }
        }
        Err(closest)
    }
}

fn issuers(signatures: &[Signature]) -> String {
    let mut ids: Vec<String> = signatures
        .iter()
        .flat_map(Signature::issuer_key_id)
        .map(|id| id.to_string().to_uppercase())
        .collect();
    ids.sort();
    ids.dedup();
    if ids.is_empty() {
        return "an unnamed key".into();
    }
    ids.join(", ")
}

fn is_issuer(signature: &Signature, key: &impl KeyDetails) -> bool {
    let fingerprints = signature.issuer_fingerprint();
    if !fingerprints.is_empty() {
        return fingerprints.contains(&&key.fingerprint());
    }
    signature.issuer_key_id().contains(&&key.legacy_key_id())
}

fn seconds(timestamp: Timestamp) -> i64 {
    i64::from(timestamp.as_secs())
}

fn id(key: &impl KeyDetails) -> String {
    key.legacy_key_id().to_string().to_uppercase()
}

fn check_signature(
    signature: &Signature,
    key: &impl VerifyingKey,
    text: &[u8],
    now: i64,
) -> Result<(), SignatureError> {
    let refuse = |reason: &str| SignatureError::Signature {
        key: id(key),
        reason: reason.into(),
    };
    let strong = [
        HashAlgorithm::Sha256,
        HashAlgorithm::Sha384,
        HashAlgorithm::Sha512,
        HashAlgorithm::Sha3_256,
        HashAlgorithm::Sha3_512,
    ];
    if !signature
        .hash_alg()
        .is_some_and(|hash| strong.contains(&hash))
    {
        return Err(refuse("uses a hash that is broken"));
    }
    let kinds = [Some(SignatureType::Binary), Some(SignatureType::Text)];
    if !kinds.contains(&signature.typ()) {
        return Err(refuse("is not one over a document"));
    }
    signature
        .verify(key, text)
        .map_err(|_| SignatureError::Tampered(id(key)))?;
    let Some(created) = signature.created().map(seconds) else {
        return Err(refuse("does not say when it was made"));
    };
    // A day of grace for clocks that go wrong.
    if created > now + 86_400 {
        return Err(refuse("is from the future: is this machine's clock right?"));
    }
    match signature.signature_expiration_time() {
        Some(lifetime)
            if lifetime.as_secs() > 0 && created + i64::from(lifetime.as_secs()) < now =>
        {
            Err(refuse("has expired"))
        }
        _ => Ok(()),
    }
}

fn check_primary(certificate: &SignedPublicKey, now: i64) -> Result<(), SignatureError> {
    let key = &certificate.primary_key;
    let refuse = |reason: String| SignatureError::Key {
        key: id(key),
        reason,
    };
    let revoked = certificate.details.revocation_signatures.iter();
    if revoked
        .clone()
        .any(|signature| signature.verify_key(key).is_ok())
    {
        return Err(refuse("was revoked".into()));
    }
    let direct = certificate
        .details
        .direct_signatures
        .iter()
        .filter(|signature| signature.verify_key(key).is_ok());
    let users = certificate.details.users.iter().flat_map(|user| {
        user.signatures.iter().filter(move |signature| {
            signature.is_certification()
                && is_issuer(signature, key)
                && signature
                    .verify_certification(key, Tag::UserId, &user.id)
                    .is_ok()
        })
    });
    let newest = direct
        .chain(users)
        .max_by_key(|signature| signature.created());
    match newest {
        Some(binding) => check_lifetime(key, binding, now),
        None => Err(refuse("has no valid self-signature".into())),
    }
}

fn check_subkey(
    certificate: &SignedPublicKey,
    subkey: &pgp::composed::SignedPublicSubKey,
    now: i64,
) -> Result<(), SignatureError> {
    let (primary, key) = (&certificate.primary_key, &subkey.key);
    let refuse = |reason: &str| SignatureError::Key {
        key: id(key),
        reason: reason.into(),
    };
    let valid = |kind: SignatureType| {
        subkey.signatures.iter().filter(move |signature| {
            signature.typ() == Some(kind) && signature.verify_subkey_binding(primary, key).is_ok()
        })
    };
    if valid(SignatureType::SubkeyRevocation).next().is_some() {
        return Err(refuse("was revoked"));
    }
    let newest = valid(SignatureType::SubkeyBinding).max_by_key(|signature| signature.created());
    let Some(binding) = newest else {
        return Err(refuse("is not bound to its primary key"));
    };
    let back = binding.embedded_signature();
    let bound_back = back.is_some_and(|back| back.verify_primary_key_binding(key, primary).is_ok());
    if !binding.key_flags().sign() || !bound_back {
        return Err(refuse("is not a signing key"));
    }
    check_lifetime(key, binding, now)
}

fn check_lifetime(
    key: &impl KeyDetails,
    binding: &Signature,
    now: i64,
) -> Result<(), SignatureError> {
    let Some(lifetime) = binding
        .key_expiration_time()
        .filter(|time| time.as_secs() > 0)
    else {
        return Ok(());
    };
    let end = seconds(key.created_at()) + i64::from(lifetime.as_secs());
    if end < now {
        return Err(SignatureError::Key {
            key: id(key),
            reason: format!("expired on {}", super::date::day(end)),
        });
    }
    Ok(())
}
