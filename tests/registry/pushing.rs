//! What the tests of `push` share: projects, `push --json`, and what a registry then holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use imagewright::digest::Digest;
use serde_json::Value;

use crate::lab::{Lab, Options, PREFIX, Request, Server};

pub const LOGIN: Options = Options {
    login: true,
    delete: false,
};

/// Two images that share their wheels.
pub const ONE: &str = r#"image "one" base="small" { pip "alpha"; }"#;
pub const TWO: &str = r#"image "two" base="small" { pip "alpha"; file "big.bin" to="/opt/"; }"#;

/// A manifest whose `registry` node goes on with `more`.
pub fn manifest(server: &Server, more: &str, images: &str) -> String {
    format!(
        "registry \"{}/{PREFIX}\" {more}\nbase \"small\" {{ from \"oci:../base:busybox\"; }}\n{images}\n",
        server.address()
    )
}

/// What `push --json` prints.
#[track_caller]
pub fn push(lab: &Lab, arguments: &[&str]) -> Value {
    let ran = lab
        .run(&[&["push", "--json"], arguments].concat())
        .expect(0, &[]);
    serde_json::from_str(&ran.out).unwrap()
}

/// Bytes of layers that one image of that made us send.
pub fn uploaded(pushed: &Value) -> u64 {
    pushed["layers"]["uploaded"]["bytes"].as_u64().unwrap()
}

/// Its layers: uploaded, mounted, there already.
pub fn counts(pushed: &Value) -> [u64; 3] {
    ["uploaded", "mounted", "existing"].map(|what| {
        let count = &pushed["layers"][what]["count"];
        count.as_u64().unwrap()
    })
}

/// What its names stand for.
pub fn digest(pushed: &Value) -> Digest {
    pushed["digest"].as_str().unwrap().parse().unwrap()
}

/// Requests that were to change something.
pub fn writes(requests: &[Request]) -> Vec<&Request> {
    let writing = requests
        .iter()
        .filter(|request| !matches!(request.method.as_str(), "GET" | "HEAD"));
    writing.collect()
}

/// A document of JSON that the registry has as a blob.
pub fn blob(server: &Server, digest: &str) -> Value {
    let bytes = fs::read(server.blob_path(&digest.parse().unwrap())).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// The documents that lie under the tags of a kind in a repository, by tag; all of them follow their schemas.
#[track_caller]
pub fn documents(server: &Server, repository: &str, kind: &str) -> BTreeMap<String, Value> {
    let tags = server.tags(repository).into_iter();
    tags.filter(|(tag, _)| tag.starts_with(kind))
        .map(|(tag, digest)| {
            let manifest = blob(server, &digest.to_string());
            let document = blob(server, manifest["config"]["digest"].as_str().unwrap());
            assert_follows(&tag, &document);
            (tag, document)
        })
        .collect()
}

/// The published schema of a document of the catalog.
pub fn schema_path(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/catalog");
    folder.join(format!("{name}.json"))
}

/// A document has just what its published schema tells, no more and no less.
#[track_caller]
fn assert_follows(tag: &str, document: &Value) {
    static SCHEMAS: OnceLock<[Value; 2]> = OnceLock::new();
    let read = |name| serde_json::from_slice(&fs::read(schema_path(name)).unwrap()).unwrap();
    let [record, layer] = SCHEMAS.get_or_init(|| ["record", "layer"].map(read));
    let schema = match tag.split('-').next() {
        Some("layer") => layer,
        Some("record" | "image" | "set") => record,
        _ => return,
    };
    let validator = jsonschema::validator_for(schema).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(document)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{tag}: {errors:?}\n{document:#}");
    let fields =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    let (told, mut found) = (fields(&schema["properties"]), fields(document));
    found.sort();
    let mut expected = told;
    expected.sort();
    assert_eq!(found, expected, "{tag}");
}
