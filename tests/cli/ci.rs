//! What a CI job asks: a key for its copy of the store, and a file with what was built.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;

use serde_json::Value;

use crate::support::{RELEASES, TestContext, index, manifest, publish};

const A: &str = "image \"a\" base=\"own\" {\n    pip \"alpha\"\n}\n";
const B: &str = "image \"b\" base=\"own\" {\n    pip \"gamma\"\n}\n";

#[track_caller]
fn key(context: &TestContext) -> String {
    let key = context.ok(&["lock", "--print-cache-key"]);
    let key = key.strip_suffix('\n').unwrap().to_owned();
    let digits = key.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(digits && key.len() == 64, "{key}");
    key
}

#[test]
fn the_cache_key_says_what_is_pinned_and_nothing_else() {
    let server = index(&RELEASES);
    let of = |images: &str| {
        let context = TestContext::on_python(&manifest(&server, images));
        context.ok(&["lock"]);
        context
    };
    let (one, other) = (of(&format!("{A}{B}")), of(&format!("{B}{A}")));
    let first = key(&one);
    assert_eq!(key(&other), first, "order is nothing");
    let renamed = format!("{A}{B}").replace("image \"b\"", "// A comment.\nimage \"c\"");
    assert_eq!(key(&of(&renamed)), first, "names are nothing");
    let store = one.folder().join("store");
    let before = fs::read_dir(&store).map(|entries| entries.count()).ok();
    fs::remove_file(one.path("imagewright.kdl")).unwrap();
    assert_eq!(key(&one), first, "the lock is enough");
    let after = fs::read_dir(&store).map(|entries| entries.count()).ok();
    assert_eq!(after, before);
    assert_ne!(key(&of(A)), first, "a wheel less");
    other.ok(&["build"]);
    assert_eq!(key(&other), first, "what building teaches is nothing");

    publish(&server, &[("alpha", "9.0", &["beta"])]);
    other.ok(&["lock", "--upgrade", "alpha"]);
    assert_ne!(key(&other), first, "another wheel");
    let document = other.json(&["lock", "--print-cache-key"]);
    assert_eq!(document["key"], key(&other));
}

#[test]
fn without_a_lock_there_is_no_cache_key() {
    let context = TestContext::of("image \"a\" base=\"minimal\"\n");
    let told = context.fails(8, &["lock", "--print-cache-key"]);
    assert!(
        told.contains("imagewright.lock") && told.contains("run `imagewright lock`"),
        "{told}"
    );
    context.write("imagewright.lock", "<<<<<<< ours\n");
    context.fails(2, &["lock", "--print-cache-key"]);
    context.fails(2, &["lock", "--print-cache-key", "--upgrade"]);
}

fn read(context: &TestContext, name: &str) -> Value {
    serde_json::from_str(&context.read(name)).unwrap()
}

#[test]
fn the_metadata_file_tells_what_was_built_in_words_of_buildx() {
    let server = index(&RELEASES);
    // A build asks the registry, which does not answer, and never the mirror.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let registry = format!("{}/ml", closed.local_addr().unwrap());
    drop(closed);
    let registries =
        format!("registry \"{registry}\"\npush \"mirror.example.com/ml\" layout=\"per-image\"\n");
    let text = format!("{registries}{}", manifest(&server, &format!("{A}{B}")));
    let context = TestContext::on_python(&text);
    let built = context.json(&["build", "a", "--metadata-file", "out.json"]);
    let built = &built["images"][0];
    let one = read(&context, "out.json");
    assert_eq!(one["containerimage.digest"], built["digest"]);
    assert_eq!(one["containerimage.descriptor"]["digest"], built["digest"]);
    assert_eq!(
        one["image.name"],
        format!("{registry}:a,mirror.example.com/ml/a:latest")
    );
    let image = &one["images"][0];
    assert_eq!(image["name"], "a");
    assert_eq!(image["platform"], "linux/amd64");
    assert_eq!(image["keys"]["image"], built["key"]);
    assert_eq!(
        image["containerimage.config.digest"],
        one["containerimage.config.digest"]
    );
    let references: Vec<_> = image["references"].as_array().unwrap().iter().collect();
    assert_eq!(
        references,
        [&format!("{registry}:a"), "mirror.example.com/ml/a:latest"]
    );

    context.ok(&["build", "--metadata-file", "out.json"]);
    let both = read(&context, "out.json");
    assert_eq!(both["images"].as_array().unwrap().len(), 2);
    assert!(both.get("containerimage.digest").is_none(), "of which one?");
    let keys: BTreeSet<String> = both["images"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|image| image["keys"].as_object().unwrap().values())
        .map(|key| key.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys.len(), 6, "{keys:?}");

    // A build that fails leaves the file as it is; a file that cannot be written is an error.
    let before = context.read("out.json");
    context.fails(8, &["build", "c", "--metadata-file", "out.json"]);
    assert_eq!(context.read("out.json"), before);
    let told = context.fails(4, &["build", "--metadata-file", "no/such/folder/out.json"]);
    assert!(told.contains("no/such/folder/out.json"), "{told}");
    let left = fs::read_dir(context.project()).unwrap().flatten();
    let left = left.filter(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .starts_with(".imagewright")
    });
    assert_eq!(left.count(), 0);
}
