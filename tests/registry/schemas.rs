//! The published schemas of the catalog's documents.

use std::fs;

use imagewright::catalog::{LayerRecord, Record};
use imagewright::layer::LayerContents;
use schemars::schema_for;
use serde_json::{Value, json};

use crate::pushing::schema_path;
use crate::records;

/// Set `UPDATE_SCHEMAS=1` to write them anew.
#[test]
fn committed_schemas_are_those_of_the_documents() {
    for (name, schema) in [
        ("record", schema_for!(Record)),
        ("layer", schema_for!(LayerRecord)),
        ("paths", schema_for!(LayerContents)),
    ] {
        let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        let path = schema_path(name);
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        assert_eq!(
            fs::read_to_string(&path).unwrap_or_default(),
            text,
            "UPDATE_SCHEMAS=1 writes {name}"
        );
    }
}

#[test]
fn the_schema_of_records_tells_right_from_wrong() {
    let schema: Value = serde_json::from_slice(&fs::read(schema_path("record")).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let right = json!(records::record(
        "one",
        1,
        &["numpy==1.26.4", "os:curl==7.88"]
    ));
    assert!(validator.is_valid(&right), "{right:#}");
    // A reader needs each of these.
    for field in schema["required"].as_array().unwrap() {
        let mut wrong = right.clone();
        wrong
            .as_object_mut()
            .unwrap()
            .remove(field.as_str().unwrap());
        assert!(!validator.is_valid(&wrong), "{field}");
        assert!(serde_json::from_value::<Record>(wrong).is_err(), "{field}");
    }
    for (field, value) in [
        ("digest", json!("sha256:abc")),
        ("digest", json!(7)),
        ("platform", json!("windows/amd64")),
        ("pushed_ms", json!("now")),
        ("layers", json!({})),
        ("keys", json!({"request": right["keys"]["request"]})),
    ] {
        let mut wrong = right.clone();
        wrong[field] = value;
        assert!(!validator.is_valid(&wrong), "{field}: {}", wrong[field]);
        assert!(serde_json::from_value::<Record>(wrong).is_err(), "{field}");
    }
}
