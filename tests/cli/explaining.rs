//! `why`, `diff` and `show`.

use std::fs;
use std::path::Path;

use crate::support::{RELEASES, TestContext, index, manifest};

const IMAGES: &str = "image \"plain\" base=\"own\" {
    pip \"alpha\" \"==1.0\"
    env \"MODE\" \"slow\"
    file \"src/\" to=\"/app\"
}
image \"more\" base=\"own\" {
    pip \"alpha\" \"==2.0\"
    pip \"gamma\"
    env \"MODE\" \"fast\"
    file \"src/\" to=\"/app\"
}
";

fn project() -> TestContext {
    let server = index(&RELEASES);
    let context = TestContext::on_python(&manifest(&server, IMAGES));
    context.write("src/main.py", "print(1)\n");
    context.ok(&["build"]);
    context
}

#[test]
fn why_names_what_changed_since_the_lock() {
    let context = project();
    let told = context.ok(&["why", "plain"]);
    assert!(
        told.contains("plain against the lock") && told.contains("request key: the same"),
        "{told}"
    );
    let original = context.read("imagewright.kdl");
    let changes: [(&str, &str, &[&str]); 4] = [
        (
            "env \"MODE\" \"slow\"",
            "env \"MODE\" \"slow\"\n    pip \"gamma\"",
            &["gamma"],
        ),
        (
            "pip \"alpha\" \"==1.0\"",
            "pip \"alpha\" \"==2.0\"",
            &["alpha", "1.0", "2.0"],
        ),
        ("\"slow\"", "\"slower\"", &["MODE", "slow", "slower"]),
        ("to=\"/app\"", "to=\"/opt/app\"", &["/opt/app"]),
    ];
    for (old, new, words) in changes {
        let at = original.find(old).unwrap();
        context.write(
            "imagewright.kdl",
            original[..at].to_owned() + new + &original[at + old.len()..],
        );
        let told = context.ok(&["why", "plain"]);
        assert!(told.contains("request key: was sha256:"), "{told}");
        for word in words {
            assert!(told.contains(word), "{word}: {told}");
        }
        let document = context.json(&["why", "plain"]);
        assert_ne!(document["request_before"], document["request_after"]);
        let differences = document["request"].as_array().unwrap();
        assert!(!differences.is_empty(), "{document}");
    }
    context.write("imagewright.kdl", &original);
    context.write("src/main.py", "print(2)\n");
    let told = context.ok(&["why", "plain"]);
    assert!(told.contains("main.py"), "{told}");
    assert!(
        !told.contains("MODE") && !told.contains("alpha"),
        "only what changed: {told}"
    );
}

#[test]
fn why_compares_with_other_images_and_builds() {
    let context = project();
    let told = context.ok(&["why", "more", "--against", "plain"]);
    for word in [
        "image `plain`",
        "alpha",
        "+ pip gamma 1.0",
        "layers:",
        "MODE",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    let before = context.digest("plain");
    context.edit("\"slow\"", "\"slower\"");
    context.ok(&["build"]);
    assert_ne!(context.digest("plain"), before);
    let told = context.ok(&["why", "plain", "--against", &before]);
    assert!(
        told.contains("slower") && told.contains("configuration"),
        "{told}"
    );
    let missing = format!("sha256:{}", "0".repeat(64));
    let told = context.fails(8, &["why", "plain", "--against", &missing]);
    assert!(told.contains(&missing), "{told}");
    let told = context.fails(8, &["why", "plan"]);
    assert!(told.contains("did you mean `plain`?"), "{told}");
    context.fails(8, &["why", "plain", "--against", "nothing"]);

    fs::remove_file(context.path("imagewright.lock")).unwrap();
    let told = context.fails(8, &["why", "plain"]);
    assert!(told.contains("not in the lock"), "{told}");
}

#[test]
fn a_store_that_never_saw_the_other_request_says_so() {
    let mut context = project();
    context.store = context.folder().join("other");
    context.edit("\"slow\"", "\"slower\"");
    let told = context.ok(&["why", "plain"]);
    assert!(told.contains("never saw"), "{told}");
    assert!(context.json(&["why", "plain"])["request"].is_null());
}

#[test]
fn diff_lists_packages() {
    let context = project();
    let told = context.ok(&["diff", "plain", "more"]);
    assert_eq!(told, "~ pip alpha 1.0 -> 2.0\n+ pip gamma 1.0\n");
    assert_eq!(
        context.ok(&["diff", "more", "more"]),
        "no package differs\n"
    );
    let reverse = context.ok(&["diff", "more", "plain"]);
    assert!(reverse.contains("- pip gamma 1.0"), "{reverse}");
    fs::copy(context.path("imagewright.lock"), context.path("old.lock")).unwrap();
    context.edit("pip \"alpha\" \"==1.0\"", "pip \"alpha\" \"==2.0\"");
    context.ok(&["lock"]);
    assert!(
        context
            .ok(&["diff", "old.lock:plain", "plain"])
            .contains("~ pip alpha 1.0 -> 2.0")
    );
    assert!(
        context
            .fails(8, &["diff", "plain", "mor"])
            .contains("`mor`")
    );
    assert!(
        context
            .fails(8, &["diff", "no.lock:plain", "plain"])
            .contains("no.lock")
    );
    context.fails(2, &["diff", "plain", "more", "--platform", "linux/vax"]);
}

#[test]
fn show_prints_bases_and_images() {
    let context = project();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manifest/bases");
    for name in ["minimal", "tabular", "nlp", "images", "all"] {
        let text = fs::read_to_string(folder.join(format!("{name}.kdl"))).unwrap();
        assert_eq!(context.ok(&["show", "base", name]), text);
        assert_eq!(context.json(&["show", "base", name])["text"], text);
    }
    let told = context.fails(8, &["show", "base", "tabluar"]);
    assert!(told.contains("did you mean `tabular`?"), "{told}");

    let told = context.ok(&["show", "more"]);
    assert!(
        told.contains("* gamma 1.0")
            && told.contains("  beta 1.1")
            && told.contains(&context.digest("more")),
        "{told}"
    );
    let document = context.json(&["show", "more"]);
    let platform = &document["platforms"][0];
    assert_eq!(platform["digest"], context.digest("more"));
    let names: Vec<_> = platform["pip"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            (
                p["name"].as_str().unwrap(),
                p["requested"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(names, [("alpha", true), ("beta", false), ("gamma", true)]);
    assert!(
        context
            .fails(8, &["show", "mre"])
            .contains("did you mean `more`?")
    );
    context.fails(2, &["show", "more", "plain"]);
    fs::remove_file(context.path("imagewright.lock")).unwrap();
    assert!(
        context
            .fails(8, &["show", "more"])
            .contains("imagewright lock")
    );
}
