//! `schemas/identity/vectors.json` against the types, against an encoder of another make, and against the program that
//! `schemas/identity/README.md` shows.

use std::path::PathBuf;
use std::process::Command;

use imagewright::identity::DocumentError;
use serde_json::{Value, json};

use crate::canonical;
use crate::documents::{self, Document, KINDS};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("schemas/identity")
        .join(name)
}

fn stored() -> Vec<Value> {
    let text = std::fs::read_to_string(file("vectors.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_types_give_the_vectors() {
    let vectors: Vec<Value> = documents::all()
        .iter()
        .map(|(name, document)| {
            let canonical = document.canonical();
            json!({
                "name": name,
                "kind": document.kind(),
                "document": serde_json::from_str::<Value>(&canonical).unwrap(),
                "canonical": canonical,
                "key": document.key(),
            })
        })
        .collect();
    let text = serde_json::to_string_pretty(&vectors).unwrap() + "\n";
    if std::env::var_os("UPDATE_VECTORS").is_some_and(|value| value == "1") {
        std::fs::write(file("vectors.json"), &text).unwrap();
    }
    let found = std::fs::read_to_string(file("vectors.json")).unwrap_or_default();
    assert!(
        found == text,
        "schemas/identity/vectors.json is not what the types give: keys have changed. If that is meant, raise the \
         document's version and run this test with UPDATE_VECTORS=1."
    );
}

#[test]
fn an_encoder_of_another_make_gives_the_vectors() {
    let vectors = stored();
    assert!(vectors.len() >= 18);
    for vector in &vectors {
        let canonical = canonical::text(&vector["document"]);
        assert_eq!(vector["canonical"], canonical, "{}", vector["name"]);
        assert_eq!(
            vector["key"],
            canonical::key(&canonical),
            "{}",
            vector["name"]
        );
    }
}

#[test]
fn every_list_that_is_a_set_stands_in_the_order_of_the_specification() {
    /// Lists whose order has a meaning.
    const ORDERED: [&str; 5] = ["indexes", "layers", "parents", "entrypoint", "cmd"];
    fn walk(name: &str, value: &Value, seen: &mut usize) {
        match value {
            Value::Array(list) => {
                let encoded: Vec<String> = list.iter().map(canonical::text).collect();
                if !ORDERED.contains(&name) {
                    assert!(
                        encoded
                            .windows(2)
                            .all(|pair| pair[0].as_bytes() < pair[1].as_bytes()),
                        "{name}: {encoded:#?}"
                    );
                    *seen += usize::from(list.len() > 1);
                }
                list.iter().for_each(|member| walk("", member, seen));
            }
            Value::Object(map) => map.iter().for_each(|(name, value)| walk(name, value, seen)),
            _ => {}
        }
    }
    let mut seen = 0;
    for vector in stored() {
        walk("", &vector["document"], &mut seen);
    }
    assert!(seen >= 8, "only {seen} sets with two members");
}

#[test]
fn the_program_in_the_readme_gives_the_vectors() {
    let readme = std::fs::read_to_string(file("README.md")).unwrap();
    let program = readme
        .split("```python\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("the README shows a program");
    let output = Command::new("python3")
        .args(["-c", program])
        .arg(file("vectors.json"))
        .output()
        .expect("python3 is needed to judge the vectors");
    let shown = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    assert_eq!(shown.trim(), format!("{} vectors agree", stored().len()));
}

#[test]
fn documents_read_back_what_they_store_and_refuse_the_rest() {
    for vector in stored() {
        let (kind, canonical) = (
            vector["kind"].as_str().unwrap(),
            vector["canonical"].as_str().unwrap(),
        );
        let document = Document::read(kind, canonical.as_bytes()).unwrap();
        assert_eq!(document.canonical(), canonical);
        for other in KINDS.into_iter().filter(|other| *other != kind) {
            let found = Document::read(other, canonical.as_bytes());
            assert!(
                found.is_err(),
                "a {kind} document reads as {other}: {found:?}"
            );
        }
        let refuse = |text: String, what: &str| {
            let found = Document::read(kind, text.as_bytes());
            assert!(found.is_err(), "{}: {what} is accepted", vector["name"]);
            found.unwrap_err()
        };
        refuse(format!(" {canonical}"), "space");
        refuse(canonical[1..].into(), "broken JSON");
        refuse(canonical.replacen('{', "{\"a\":1,", 1), "an unknown field");
        refuse(canonical.replacen("\"v\":1", "\"v\":1.0", 1), "a float");
        let newer = refuse(
            canonical.replacen("\"v\":1", "\"v\":2", 1),
            "a newer version",
        );
        assert!(matches!(newer, DocumentError::Version { .. }), "{newer}");
        for field in vector["document"].as_object().unwrap().keys() {
            let mut less = vector["document"].clone();
            less.as_object_mut().unwrap().remove(field);
            refuse(canonical::text(&less), field);
        }
    }
    let unsorted = stored()
        .iter()
        .find(|vector| vector["name"] == "Debian base")
        .unwrap()["document"]
        .clone();
    let mut reversed = unsorted;
    reversed["debs"].as_array_mut().unwrap().reverse();
    let text = canonical::text(&reversed);
    let error = Document::read("layer", text.as_bytes()).unwrap_err();
    assert!(matches!(error, DocumentError::NotCanonical), "{error}");
}
