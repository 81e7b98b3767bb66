//! What `--json` prints of a registry, against the published schemas.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::lab::{self, Lab, Options, Server};

const IMAGES: &str = "image \"a\" base=\"small\" { pip \"alpha\"; }\n\
                      image \"b\" base=\"small\" { pip \"beta\"; }";

/// The document follows the schema, which asks for some of its fields.
#[track_caller]
fn check(schema: &str, document: &Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let text = fs::read_to_string(folder.join(format!("{schema}.json"))).unwrap();
    let validator = jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(document)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{schema}: {errors:?}\n{document:#}");
    let required = |field: &String| {
        let mut without = document.clone();
        without.as_object_mut().unwrap().remove(field);
        !validator.is_valid(&without)
    };
    let mut fields = document.as_object().unwrap().keys();
    assert!(
        fields.any(required),
        "{schema}: the schema asks for nothing"
    );
}

#[track_caller]
fn printed(lab: &Lab, schema: &str, arguments: &[&str]) -> Value {
    let ran = lab.run(&[arguments, &["--json"]].concat()).expect(0, &[]);
    let document = serde_json::from_str(&ran.out).unwrap();
    check(schema, &document);
    document
}

#[test]
fn documents_of_a_registry_follow_their_schemas() {
    let server = Server::docker_registry(Options {
        delete: true,
        ..Options::default()
    });
    let index = lab::index();
    let lab = lab::project(server.address(), &index, IMAGES);
    printed(&lab, "push", &["push", "--dry-run"]);
    let key = lab.path("key").display().to_string();
    let key_of_signer = printed(&lab, "sign", &["sign", "--new", &key])["key"].clone();
    let made = lab.path("made.json").display().to_string();
    let pushed = printed(
        &lab,
        "push",
        &[
            "push",
            "--sign",
            &key,
            "--with-sources",
            "--metadata-file",
            &made,
        ],
    );
    assert_eq!(pushed["images"].as_array().unwrap().len(), 2, "{pushed}");
    check(
        "metadata",
        &serde_json::from_str(&fs::read_to_string(made).unwrap()).unwrap(),
    );
    let nothing = printed(&lab, "push", &["push"]);
    assert_eq!(nothing["failures"], Value::Array(Vec::new()));
    printed(&lab, "sign", &["sign", "a", "--key", &key]);
    let found = printed(
        &lab,
        "find",
        &["find", "--pip", "alpha==1.0", "--page-size", "1"],
    );
    let record = found["images"][0]["record"].as_str().unwrap();
    let shown = printed(&lab, "record", &["show", record]);
    let signers = shown["records"][0]["signers"].as_array().unwrap();
    assert_eq!(signers, &[key_of_signer], "who signed is told");
    printed(&lab, "lock", &["lock", "--prefer-catalog"]);
    fs::remove_file(lab.project().join("imagewright.lock")).unwrap();
    let reused = printed(&lab, "lock", &["lock", "--reuse"]);
    assert!(reused["images"][0]["catalog"].is_object(), "{reused}");
    printed(&lab, "build", &["build", "--no-substitute"]);
    let removed = printed(&lab, "rm", &["rm", "b", "--registry"]);
    assert!(removed["removed"][0]["repository"].is_string(), "{removed}");

    drop(server);
    let ran = lab.run(&["push", "--json"]).expect(4, &[]);
    let told: Value = serde_json::from_str(&ran.out).unwrap();
    check("push", &told);
    assert_eq!(told["failures"][0]["name"], "a");
    check("error", &serde_json::from_str(&ran.err).unwrap());
}
