//! A record as plain as one can be; what matters to a test is put in place of its fields.

use imagewright::catalog::{BaseRecord, Keys, Record, RequestRecord};
use imagewright::digest::Digest;
use imagewright::manifest::Platform;

/// The digest of a thing that nobody has.
pub fn digest(kind: &str, id: &str) -> Digest {
    Digest::of(format!("{kind} of {id}"))
}

/// The record of an image without packages and layers; all its digests are [`digest`]s of `id`.
pub fn record(id: &str) -> Record {
    let id = |kind: &str| digest(kind, id);
    Record {
        v: Record::VERSION,
        name: "model".into(),
        platform: Platform::LinuxAmd64,
        repository: String::new(),
        tags: Vec::new(),
        digest: id("image"),
        index: None,
        config: id("config"),
        keys: Keys {
            request: id("request"),
            set: id("set"),
            content: id("content"),
            image: id("key"),
        },
        emitter: 1,
        python: "3.11.2".into(),
        base: BaseRecord {
            name: "tabular".into(),
            root: "debian bookworm".into(),
            digest: None,
            request: None,
        },
        requested: RequestRecord::default(),
        pip: Vec::new(),
        os: Vec::new(),
        layers: Vec::new(),
        base_layers: 0,
        version: None,
        git: None,
        pushed_ms: 0,
        supersedes: None,
        lock: None,
        sbom: None,
        removed: false,
        signatures: Vec::new(),
    }
}
