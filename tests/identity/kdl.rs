//! Which node and property of the manifest's text changes which key. The list of nodes and properties comes from the
//! manifest's own schema, so that a new one fails here until it has its row.

use std::collections::{BTreeMap, BTreeSet};

use imagewright::diagnostic::SourceText;
use imagewright::manifest::{self, Manifest, ProjectFiles};

use crate::keys::Effect::{self, Config, Layer, Nothing, Platform as OnPlatform, Request};
use crate::keys::{Case, effect};

struct Files;

impl ProjectFiles for Files {
    fn read(&self, path: &str) -> Result<String, String> {
        match path {
            "one.txt" => Ok("requests\n".into()),
            "same.txt" => Ok("# the same\nRequests # again\nrequests\n".into()),
            "two.txt" => Ok(format!(
                "requests --hash=sha256:{}\n-c pins.txt\n",
                "0".repeat(64)
            )),
            "pins.txt" => Ok("urllib3<2\n".into()),
            _ => Err("no such file".into()),
        }
    }
}

fn parse(text: &str) -> Manifest {
    manifest::parse(&SourceText::new("imagewright.kdl", text), &Files)
        .unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"))
}

/// The image `one` (or the only one) of a text.
fn case(text: &str) -> Case {
    let manifest = parse(text);
    let image = manifest.image("one").unwrap_or(&manifest.images[0]).clone();
    let project = [
        ("src/main.py", "print(1)"),
        ("other/main.py", "print(2)"),
        ("dist/churn-1.0-py3-none-any.whl", "wheel"),
        ("dist/churn-1.1-py3-none-any.whl", "newer"),
    ];
    Case {
        platform: image.platforms[0],
        image,
        project: project
            .map(|(path, text)| (path.into(), text.into()))
            .into(),
    }
}

const GROUND: &str = "base \"ground\" { debian \"bookworm\"; os \"python3\"; }\n";

fn top(line: &str) -> String {
    format!("{line}\n{GROUND}image \"one\" base=\"ground\" {{ pip \"numpy\"; }}\n")
}

fn base(line: &str) -> String {
    format!(
        "base \"ground\" {{ debian \"bookworm\"; {line}\n }}\nimage \"one\" base=\"ground\" {{ pip \"numpy\"; }}\n"
    )
}

/// A base whose root is that line.
fn root(line: &str) -> String {
    format!("base \"ground\" {{ {line}\n }}\nimage \"one\" base=\"ground\" {{ pip \"numpy\"; }}\n")
}

fn image(line: &str) -> String {
    format!("{GROUND}image \"one\" base=\"ground\" {{ pip \"numpy\"; {line}\n }}\n")
}

/// An image without base.
fn own(line: &str) -> String {
    format!("image \"one\" {{ {line}\n }}\n")
}

fn run(line: &str) -> String {
    format!(
        "{GROUND}image \"one\" base=\"ground\" {{ pip \"numpy\"; }}\nrun \"r\" image=\"one\" {{ command \"true\"; {line}\n }}\n"
    )
}

/// Nodes that mean the same at the top, in a base and in an image.
fn shared(rows: &mut Vec<Row>, name: &str, before: &str, after: &str, effect: Effect) {
    for (place, text) in [
        ("", top as fn(&str) -> String),
        ("base/", base),
        ("image/", image),
    ] {
        row(
            rows,
            &format!("{place}{name}"),
            text(before),
            text(after),
            effect,
        );
    }
}

/// Nodes that mean the same in a base and in an image.
fn layered(rows: &mut Vec<Row>, name: &str, before: &str, after: &str, effect: Effect) {
    for (place, text) in [("base/", base as fn(&str) -> String), ("image/", image)] {
        row(
            rows,
            &format!("{place}{name}"),
            text(before),
            text(after),
            effect,
        );
    }
}

struct Row {
    item: String,
    before: String,
    after: String,
    effect: Effect,
}

fn row(rows: &mut Vec<Row>, item: &str, before: String, after: String, effect: Effect) {
    rows.push(Row {
        item: item.to_owned(),
        before,
        after,
        effect,
    });
}

const ZERO: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const ONE: &str = "1111111111111111111111111111111111111111111111111111111111111111";

fn table() -> Vec<Row> {
    let mut all = Vec::new();
    let rows = &mut all;
    publishing(rows);
    row(rows, "project", top(""), top("project \"fraud\""), Nothing);
    row(
        rows,
        "project description=",
        top("project \"fraud\""),
        top("project \"fraud\" description=\"d\""),
        Nothing,
    );
    let renamed = top("").replace("\"ground\"", "\"earth\"");
    row(rows, "base", top(""), renamed, Nothing);
    let two = format!(
        "{GROUND}base \"up\" base=\"ground\" {{ pip \"six\"; }}\nimage \"one\" base=\"up\" {{ pip \"numpy\"; }}\n"
    );
    row(rows, "base base=", top(""), two, Request);
    row(
        rows,
        "image",
        top(""),
        top("").replace("\"one\"", "\"two\""),
        Nothing,
    );
    row(
        rows,
        "image base=",
        top(""),
        top("").replace(" base=\"ground\"", ""),
        Request,
    );
    row(
        rows,
        "image base=",
        top(""),
        top("").replace("base=\"ground\" {", "base=\"tabular\" {"),
        Request,
    );
    row(
        rows,
        "base/image",
        format!(
            "{GROUND}image \"low\" base=\"ground\" {{ pip \"six\"; }}\nbase \"b\" {{ image \"low\"; }}\nimage \"one\" base=\"b\"\n"
        ),
        format!(
            "{GROUND}image \"low\" base=\"ground\" {{ pip \"idna\"; }}\nbase \"b\" {{ image \"low\"; }}\nimage \"one\" base=\"b\"\n"
        ),
        Request,
    );
    for (place, text) in [("base", root as fn(&str) -> String), ("image", own)] {
        let item = |name: &str| format!("{place}/{name}");
        let plain = || text("debian \"bookworm\"");
        row(
            rows,
            &item("debian"),
            plain(),
            text("debian \"trixie\""),
            Request,
        );
        row(
            rows,
            &item("debian mirror="),
            plain(),
            text("debian \"bookworm\" mirror=\"https://deb.example.com\""),
            Request,
        );
        row(
            rows,
            &item("debian mirror="),
            text("debian \"bookworm\" mirror=\"https://deb.example.com\""),
            text("debian \"bookworm\" mirror=\"https://DEB.example.com:443/\""),
            Nothing,
        );
        row(
            rows,
            &item("debian components="),
            plain(),
            text("debian \"bookworm\" components=\"contrib main\""),
            Request,
        );
        row(
            rows,
            &item("debian components="),
            plain(),
            text("debian \"bookworm\" components=\"main\""),
            Nothing,
        );
        row(
            rows,
            &item("debian components="),
            text("debian \"bookworm\" components=\"contrib main\""),
            text("debian \"bookworm\" components=\"main contrib main\""),
            Nothing,
        );
        row(
            rows,
            &item("debian keyring="),
            plain(),
            text("debian \"bookworm\" keyring=\"keys.gpg\""),
            Nothing,
        );
        row(
            rows,
            &item("debian updates="),
            plain(),
            text("debian \"bookworm\" updates=#true"),
            Request,
        );
        row(
            rows,
            &item("debian updates="),
            plain(),
            text("debian \"bookworm\" updates=#false"),
            Nothing,
        );
        row(
            rows,
            &item("debian snapshot="),
            plain(),
            text("debian \"bookworm\" snapshot=\"https://old.example.com/{timestamp}\""),
            Nothing,
        );
        row(
            rows,
            &item("from"),
            plain(),
            text("from \"r.example.com/python:3.11\""),
            Request,
        );
        row(
            rows,
            &item("from"),
            text("from \"r.example.com/python:3.11\""),
            text("from \"r.example.com/python:3.12\""),
            Request,
        );
        row(
            rows,
            &item("python"),
            text("from \"oci:x\""),
            text("from \"oci:x\"; python \"3.11\""),
            Request,
        );
        row(
            rows,
            &item("python"),
            plain(),
            text("debian \"bookworm\"; python \"3.11\""),
            Nothing,
        );
    }
    requirements(rows);
    settings(rows);
    runs(rows);
    all
}

/// Where images go and what they are called there is in no key.
fn publishing(rows: &mut Vec<Row>) {
    const KEY: &str = "trust \"ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\"";
    let mut nothing = |item: &str, before: String, after: String| {
        row(rows, item, before, after, Nothing);
    };
    for node in ["registry", "push"] {
        let plain = format!("{node} \"r.example.com/ml\"");
        nothing(node, top(""), top(&plain));
        for property in [
            "layout=\"single\"",
            "layout=\"per-image\"",
            "plain-http=#true",
        ] {
            let name = property.split('=').next().unwrap();
            let item = format!("{node} {name}=");
            nothing(&item, top(&plain), top(&format!("{plain} {property}")));
        }
    }
    nothing("trust", top(""), top(KEY));
    let commented = format!("{KEY} comment=\"whose\"");
    nothing("trust comment=", top(KEY), top(&commented));
    nothing("version", top(""), top("version \"1.4.2\""));
    nothing("protected", top(""), top("protected #true"));
    nothing("image/version", image(""), image("version \"1.4.2\""));
    nothing("image/protected", image(""), image("protected #true"));
    nothing("image/tag", image(""), image("tag \"stable\" \"{git}\""));
}

fn requirements(rows: &mut Vec<Row>) {
    layered(rows, "os", "", "os \"vim\"", Request);
    layered(rows, "os", "os \"vim\"", "os \"vim\" \"2:9.0\"", Request);
    layered(
        rows,
        "os",
        "os \"vim\"; os \"git\"",
        "os \"git\"; os \"vim\"; os \"git\"",
        Nothing,
    );
    layered(rows, "pip", "", "pip \"pandas\"", Request);
    layered(rows, "pip", "", "pip \"six\"; pip \"six\"", Request);
    layered(
        rows,
        "pip",
        "pip \"A.b[y,X]\" \"<2, >=1\"",
        "pip \"a_B[x, y]>=1,<2\" /* the same */",
        Nothing,
    );
    layered(
        rows,
        "pip",
        "pip \"a\"; pip \"b\"",
        "pip \"b\"; pip \"a\"",
        Nothing,
    );
    let index = "index \"i\" \"https://i.example.com/simple\" explicit=#true;";
    layered(
        rows,
        "pip index=",
        &format!("{index} pip \"a\""),
        &format!("{index} pip \"a\" index=\"i\""),
        Request,
    );
    layered(
        rows,
        "pip wheel=",
        "pip \"churn\"",
        "pip \"churn\" wheel=\"dist/churn-1.0-py3-none-any.whl\"",
        Request,
    );
    layered(
        rows,
        "pip wheel=",
        "pip \"churn\" wheel=\"dist/churn-1.0-py3-none-any.whl\"",
        "pip \"churn\" wheel=\"dist/churn-1.1-py3-none-any.whl\"",
        Request,
    );
    layered(rows, "pip-from", "", "pip-from \"one.txt\"", Request);
    layered(
        rows,
        "pip-from",
        "pip-from \"one.txt\"",
        "pip-from \"same.txt\"",
        Nothing,
    );
    layered(
        rows,
        "pip-from",
        "pip-from \"one.txt\"",
        "pip \"requests\"",
        Nothing,
    );
    layered(
        rows,
        "pip-from",
        "pip-from \"one.txt\"",
        "pip-from \"two.txt\"",
        Request,
    );
    shared(
        rows,
        "constraint",
        "",
        "constraint \"numpy\" \"<2\"",
        Request,
    );
    shared(
        rows,
        "constraint",
        "constraint \"numpy\" \"<2\"",
        "constraint \"NumPy<2\"; constraint \"numpy\" \"<2\"",
        Nothing,
    );
    shared(
        rows,
        "override",
        "",
        "override \"attrs\" \"==23.1\"",
        Request,
    );
    shared(
        rows,
        "exclude-newer",
        "",
        "exclude-newer \"2024-06-30\"",
        Request,
    );
    shared(
        rows,
        "exclude-newer",
        "exclude-newer \"2024-06-30\"",
        "exclude-newer \"2024-07-01T02:00:00+02:00\"",
        Nothing,
    );
    let one = "index \"i\" \"https://i.example.com/simple\"";
    shared(rows, "index", "", one, Request);
    shared(
        rows,
        "index",
        one,
        "index \"j\" \"https://I.example.com:443/simple/\"",
        Nothing,
    );
    shared(
        rows,
        "index",
        &format!("{one}; index \"j\" \"https://j.example.com\""),
        &format!("index \"j\" \"https://j.example.com\"; {one}"),
        Request,
    );
    shared(
        rows,
        "index default=",
        one,
        &format!("{one} default=#true"),
        Request,
    );
    shared(
        rows,
        "index default=",
        one,
        &format!("{one} default=#false"),
        Nothing,
    );
    shared(
        rows,
        "index explicit=",
        one,
        &format!("{one} explicit=#true"),
        Request,
    );
    shared(
        rows,
        "index explicit=",
        "",
        &format!("{one} explicit=#true"),
        Nothing,
    );
    shared(rows, "platform", "", "platform \"linux/arm64\"", OnPlatform);
    shared(rows, "platform", "", "platform \"linux/amd64\"", Nothing);
    shared(
        rows,
        "platform",
        "",
        "platform \"linux/arm64\" \"linux/amd64\"",
        Nothing,
    );
}

fn settings(rows: &mut Vec<Row>) {
    shared(rows, "env", "", "env \"A\" \"1\"", Config);
    shared(
        rows,
        "env",
        "env \"A\" \"1\"; env \"B\" \"2\"",
        "env \"B\" \"2\"; env \"A\" \"1\"",
        Nothing,
    );
    shared(rows, "label", "", "label \"a\" \"1\"", Config);
    shared(rows, "annotation", "", "annotation \"a\" \"1\"", Config);
    layered(rows, "user", "", "user \"data\"", Layer("user"));
    layered(rows, "user", "", "user \"app\"", Nothing);
    layered(
        rows,
        "user uid=",
        "user \"app\"",
        "user \"app\" uid=2000",
        Layer("user"),
    );
    layered(rows, "user uid=", "", "user \"app\" uid=1000", Nothing);
    layered(
        rows,
        "user gid=",
        "user \"app\"",
        "user \"app\" gid=2000",
        Layer("user"),
    );
    layered(
        rows,
        "user home=",
        "user \"app\"",
        "user \"app\" home=\"/srv\"",
        Layer("user"),
    );
    layered(
        rows,
        "user home=",
        "user \"app\"",
        "user \"app\" home=\"/home/app\"",
        Nothing,
    );
    layered(rows, "workdir", "", "workdir \"/work\"", Layer("user"));
    layered(rows, "entrypoint", "", "entrypoint \"x\"", Config);
    layered(rows, "cmd", "", "cmd \"x\" \"y\"", Config);
    layered(rows, "cmd", "cmd \"x\" \"y\"", "cmd \"y\" \"x\"", Config);
    let file = "file \"src/\" to=\"/app\"";
    layered(rows, "file", "", file, Layer("files"));
    layered(
        rows,
        "file",
        file,
        "file \"other/\" to=\"/app\"",
        Layer("files"),
    );
    layered(rows, "file", file, "file \"./src/\" to=\"/app/\"", Nothing);
    layered(
        rows,
        "file to=",
        file,
        "file \"src/\" to=\"/srv\"",
        Layer("files"),
    );
    layered(
        rows,
        "file mode=",
        file,
        &format!("{file} mode=\"0755\""),
        Layer("files"),
    );
    let fetch = |host: &str, digest: &str, rest: &str| {
        format!("fetch \"https://{host}.example.com/m.bin\" sha256=\"{digest}\" {rest}")
    };
    let plain = fetch("a", ZERO, "to=\"/opt/m.bin\"");
    layered(rows, "fetch", "", &plain, Layer("download"));
    layered(
        rows,
        "fetch",
        &plain,
        &fetch("b", ZERO, "to=\"/opt/\""),
        Nothing,
    );
    layered(
        rows,
        "fetch sha256=",
        &plain,
        &fetch("a", ONE, "to=\"/opt/m.bin\""),
        Layer("download"),
    );
    layered(
        rows,
        "fetch to=",
        &plain,
        &fetch("a", ZERO, "to=\"/opt/n.bin\""),
        Layer("download"),
    );
    layered(
        rows,
        "fetch mode=",
        &plain,
        &fetch("a", ZERO, "to=\"/opt/m.bin\" mode=\"0755\""),
        Layer("download"),
    );
    layered(
        rows,
        "fetch mode=",
        &plain,
        &fetch("a", ZERO, "to=\"/opt/m.bin\" mode=\"0644\""),
        Nothing,
    );
}

/// Runs stand above images: nothing in them changes an image's keys.
fn runs(rows: &mut Vec<Row>) {
    for (item, line) in [
        ("run/file", "file \"src/\" to=\"/work\""),
        ("run/file to=", "file \"src/\" to=\"/work/x\""),
        (
            "run/file mode=",
            "file \"src/\" to=\"/work/x\" mode=\"0755\"",
        ),
        (
            "run/matrix",
            "matrix { seed 1 2; }; env \"SEED\" \"{seed}\"",
        ),
        ("run/env", "env \"A\" \"1\""),
        ("run/workdir", "workdir \"/work\""),
        ("run/resources", "resources"),
        ("run/resources ram=", "resources ram=\"1GB\""),
        ("run/resources cpu=", "resources cpu=\"2\""),
        ("run/resources ram-limit=", "resources ram-limit=\"9GB\""),
        ("run/resources cpu-limit=", "resources cpu-limit=\"9\""),
        ("run/resources pids=", "resources pids=9"),
        ("run/timeout", "timeout \"2h\""),
        ("run/network", "network \"host\""),
    ] {
        row(rows, item, run(""), run(line), Nothing);
    }
    row(rows, "run", top(""), run(""), Nothing);
    row(rows, "run image=", top(""), run(""), Nothing);
    row(
        rows,
        "run/command",
        run(""),
        run("").replace("\"true\"", "\"false\""),
        Nothing,
    );
    row(
        rows,
        "run project=",
        run(""),
        run("").replace("image=\"one\"", "image=\"one\" project=\"fraud\""),
        Nothing,
    );
}

#[test]
fn each_node_and_property_changes_the_keys_that_the_table_says() {
    let mut wrong = Vec::new();
    let mut known = BTreeMap::new();
    for Row {
        item,
        before,
        after,
        effect: expected,
    } in table()
    {
        let mut keys = |text: &String| {
            known
                .entry(text.clone())
                .or_insert_with(|| case(text).keys())
                .clone()
        };
        let found = effect(&keys(&before), &keys(&after));
        if found != Ok(expected) {
            wrong.push(format!(
                "{item}: expected {expected:?}, found {found:?}\n{before}{after}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_node_and_property_of_the_language_has_a_row() {
    fn walk(document: &kdl::KdlDocument, place: &str, all: &mut BTreeSet<String>) {
        let named =
            |document: &kdl::KdlDocument, kind: &str| -> Vec<(String, Option<kdl::KdlDocument>)> {
                let nodes = document
                    .nodes()
                    .iter()
                    .filter(|node| node.name().value() == kind);
                let found = nodes.filter_map(|node| {
                    let name = node.get(0)?.as_string()?;
                    Some((name.to_owned(), node.children().cloned()))
                });
                found.collect()
            };
        for (name, inside) in named(document, "node") {
            all.insert(format!("{place}{name}"));
            let Some(inside) = inside else { continue };
            for (property, _) in named(&inside, "prop") {
                all.insert(format!("{place}{name} {property}="));
            }
            if let Some(children) = inside.get("children").and_then(|node| node.children()) {
                walk(children, &format!("{name}/"), all);
            }
        }
    }
    let schema: kdl::KdlDocument = manifest::kdl_schema().parse().unwrap();
    let mut language = BTreeSet::new();
    walk(
        schema.get("document").unwrap().children().unwrap(),
        "",
        &mut language,
    );
    assert!(language.len() > 80, "{language:?}");
    let covered: BTreeSet<String> = table().into_iter().map(|row| row.item).collect();
    let missing: Vec<_> = language.difference(&covered).collect();
    let unknown: Vec<_> = covered.difference(&language).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "without a row: {missing:?}; not in the language: {unknown:?}"
    );
}

#[test]
fn comments_layout_and_order_of_nodes_change_nothing() {
    let text = "registry \"r.example.com/ml\"\nconstraint \"numpy\" \"<2\"\nbase \"ground\" { debian \"bookworm\"; os \"bb\"; os \"aa\"; pip \"x\"; }\n\
                image \"one\" base=\"ground\" { pip \"numpy\"; env \"A\" \"1\"; os \"vim\"; file \"src/\" to=\"/app\"; }\n";
    let other = "// a comment, ü\nimage \"uno\" base=\"ground\" {\n    file \"src/\" to=\"/app\"\n    os \"vim\"\n    /- os \"emacs\"\n    env \"A\" \"1\"\n    pip \"numpy\"\n    pip \"numpy\"\n}\n\
                 base \"ground\" {\n    pip \"x\"\n    os \"aa\" /* inline */\n    os \"bb\"\n    debian \"bookworm\"\n}\nconstraint \"numpy<2\"\n";
    assert_eq!(case(text).keys(), case(other).keys());
}

#[test]
fn the_example_of_the_specification_is_true() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/identity/README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let example = readme.split("\n## An example\n").nth(1).unwrap();
    let (manifest, rest) = example.split_once("\ngives this").unwrap();
    let (document, rest) = rest
        .split_once("```json\n")
        .unwrap()
        .1
        .split_once("\n```")
        .unwrap();
    let request = case(manifest).request();
    let canonical = String::from_utf8(imagewright::identity::canonical_json(&request)).unwrap();
    let shown: serde_json::Value = serde_json::from_str(&canonical).unwrap();
    let pretty = serde_json::to_string_pretty(&shown).unwrap();
    assert!(
        document == pretty,
        "the specification should show:\n{pretty}"
    );
    let key = crate::canonical::key(&canonical);
    assert!(rest.contains(&format!("\n    {key}\n")), "the key is {key}");
}
