//! The KDL schema is what the language table says.

use std::fs;
use std::path::Path;

use kdl::KdlDocument;

#[test]
fn the_schema_file_is_made_from_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/imagewright.kdl-schema");
    let made = imagewright::manifest::kdl_schema();
    if std::env::var_os("IMAGEWRIGHT_UPDATE_SCHEMAS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap();
    assert!(
        committed == made,
        "schemas/imagewright.kdl-schema is stale; run this test with IMAGEWRIGHT_UPDATE_SCHEMAS=1"
    );
}

#[test]
fn the_schema_is_kdl_and_knows_every_node() {
    let schema = KdlDocument::parse_v2(&imagewright::manifest::kdl_schema()).unwrap();
    let document = schema.get("document").unwrap().children().unwrap();
    let named = |document: &KdlDocument| -> Vec<String> {
        let nodes = document
            .nodes()
            .iter()
            .filter(|node| node.name().value() == "node");
        nodes
            .filter_map(|node| node.get(0)?.as_string().map(str::to_owned))
            .collect()
    };
    let top = named(document);
    for name in [
        "registry",
        "push",
        "trust",
        "version",
        "protected",
        "base",
        "image",
        "run",
        "project",
        "constraint",
        "override",
        "exclude-newer",
        "index",
    ] {
        assert!(top.iter().any(|known| known == name), "{name}");
    }
    for parent in ["image", "base", "run"] {
        let node = document
            .nodes()
            .iter()
            .find(|node| node.get(0).and_then(|v| v.as_string()) == Some(parent))
            .unwrap();
        let children = node
            .children()
            .unwrap()
            .get("children")
            .unwrap()
            .children()
            .unwrap();
        assert!(named(children).len() > 7, "{parent}");
    }
}
