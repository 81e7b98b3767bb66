//! Every single value of every document counts: changing any one changes the key, and the explanation names it.

use imagewright::identity::{
    explain, explain_config, explain_content, explain_layers, explain_set, key,
};
use serde_json::Value;

use crate::documents::{self, Document};

/// Every value that differs from `value` in one leaf, one list member or one map member, with the path of the change.
fn mutations(value: &Value) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    match value {
        Value::Null => all.push((String::new(), Value::from("x"))),
        Value::Bool(flag) => all.push((String::new(), Value::from(!flag))),
        Value::Number(number) => {
            let number = number.as_i64().unwrap();
            all.push((String::new(), Value::from(number - 1)));
        }
        Value::String(text) => {
            all.push((String::new(), Value::from(format!("{text}x"))));
            all.push((String::new(), Value::Null));
            let flipped = if text.ends_with('0') { "1" } else { "0" };
            let kept: String = text
                .chars()
                .take(text.chars().count().saturating_sub(1))
                .collect();
            all.push((String::new(), Value::from(kept + flipped)));
            let other = match text.as_str() {
                "linux/amd64" => "linux/arm64",
                "linux/arm64" => "linux/amd64",
                "file" => "folder",
                _ => "",
            };
            all.push((String::new(), Value::from(other)));
        }
        Value::Array(list) => {
            for at in 0..list.len() {
                let mut less = list.clone();
                less.remove(at);
                all.push((format!("[{at}]"), Value::from(less)));
                for (path, member) in mutations(&list[at]) {
                    let mut other = list.clone();
                    other[at] = member;
                    all.push((format!("[{at}]{path}"), Value::from(other)));
                }
            }
            let mut reversed = list.clone();
            reversed.reverse();
            all.push((" reversed".into(), Value::from(reversed)));
        }
        Value::Object(map) => {
            for (name, value) in map {
                let mut less = map.clone();
                less.remove(name);
                all.push((format!(".{name} removed"), Value::from(less)));
                for (path, member) in mutations(value) {
                    let mut other = map.clone();
                    other.insert(name.clone(), member);
                    all.push((format!(".{name}{path}"), Value::from(other)));
                }
            }
        }
    }
    all.retain(|(_, other)| other != value);
    all
}

/// The difference that the explanation for two documents of one kind gives.
fn differences(before: &Document, after: &Document) -> Vec<String> {
    let found = match (before, after) {
        (Document::Request(a), Document::Request(b)) => explain(a, b),
        (Document::Set(a), Document::Set(b)) => explain_set(a, b),
        (Document::Content(a), Document::Content(b)) if a.layers != b.layers => {
            // which layers: explained by their documents
            return vec!["layers".into()]
                .into_iter()
                .chain(explain_content(a, b).iter().map(ToString::to_string))
                .collect();
        }
        (Document::Content(a), Document::Content(b)) => explain_content(a, b),
        (Document::Image(a), Document::Image(b))
            if (a.content, a.v, a.emitter) == (b.content, b.v, b.emitter) =>
        {
            explain_config(&a.config, &b.config)
        }
        (Document::Image(_), Document::Image(_)) => return vec!["content or versions".into()],
        (Document::Layer(a), Document::Layer(b)) => {
            let compared =
                explain_layers(&[(a.clone(), "one".into())], &[(b.clone(), "one".into())]);
            assert_eq!(compared.unchanged, 0);
            compared.differences
        }
        _ => panic!("two kinds"),
    };
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn every_value_of_every_document_changes_its_key_and_is_explained() {
    for (name, document) in documents::all() {
        let value: Value = serde_json::from_str(&document.canonical()).unwrap();
        let mut changed = 0;
        for (path, other) in mutations(&value) {
            let Ok(other) = Document::parse(document.kind(), &other) else {
                continue;
            };
            if other == document {
                assert!(path.contains("reversed"), "{name}{path} is lost on the way");
                assert_eq!(other.key(), document.key());
                continue;
            }
            changed += 1;
            assert_ne!(other.key(), document.key(), "{name}{path}");
            let told = differences(&document, &other);
            assert!(!told.is_empty(), "{name}{path} is not explained");
        }
        let leaves = leaves(&value);
        assert!(
            changed >= leaves,
            "{name}: {changed} changes of {leaves} values"
        );
        assert!(differences_to_itself(&document));
    }
}

fn leaves(value: &Value) -> usize {
    match value {
        Value::Array(list) => list.iter().map(leaves).sum(),
        Value::Object(map) => map
            .iter()
            .filter(|(name, _)| *name != "kind")
            .map(|(_, value)| leaves(value))
            .sum(),
        // An absent list or structure becomes something by other means than a text.
        Value::Null => 0,
        _ => 1,
    }
}

fn differences_to_itself(document: &Document) -> bool {
    match document {
        Document::Request(a) => explain(a, &a.clone()).is_empty(),
        Document::Set(a) => explain_set(a, &a.clone()).is_empty(),
        Document::Content(a) => explain_content(a, &a.clone()).is_empty(),
        Document::Image(a) => explain_config(&a.config, &a.config.clone()).is_empty(),
        Document::Layer(a) => {
            let layers = [(a.clone(), "one".to_owned())];
            let compared = explain_layers(&layers, &layers);
            compared.unchanged == 1 && compared.differences.is_empty()
        }
    }
}

#[test]
fn two_different_documents_have_two_keys() {
    let all = documents::all();
    for (at, (name, one)) in all.iter().enumerate() {
        for (other_name, other) in &all[at + 1..] {
            assert_ne!(one.key(), other.key(), "{name} and {other_name}");
            assert_ne!(one.canonical(), other.canonical());
        }
    }
    assert_eq!(
        key(&documents::plain_request()),
        key(&documents::plain_request())
    );
}
