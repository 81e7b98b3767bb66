//! What cannot be resolved is said plainly, at the lines that are to blame.

use std::collections::BTreeSet;

use imagewright::diagnostic::{Explain, Kind};

use crate::support::{Case, Server, told, wheel, wheel_tagged};

fn marked(lines: &str) -> (BTreeSet<String>, String) {
    let case = Case::new(lines);
    let error = case.resolve().unwrap_err();
    assert_eq!(error.kind(), Kind::NoResolution, "{}", told(&error));
    let text = told(&error);
    for theirs in ["\u{1b}", "uv ", "`--", "--prerelease", "your requirements"] {
        assert!(!text.contains(theirs), "{theirs:?} in {text}");
    }
    (case.marked(&error), text)
}

fn set(lines: &[&str]) -> BTreeSet<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

#[test]
fn a_conflict_marks_its_lines_and_no_other() {
    let (lines, text) = marked("requests\npandas>=2.2\nflask\nconstraint numpy<1.20\nrich");
    assert_eq!(
        lines,
        set(&["pandas>=2.2", "constraint numpy<1.20"]),
        "{text}"
    );
    assert!(text.contains("numpy>="), "{text}");
    let (lines, text) = marked("flask==2.0.0\nwerkzeug==1.0.0\nnumpy");
    assert_eq!(lines, set(&["flask==2.0.0", "werkzeug==1.0.0"]), "{text}");
    let (lines, text) = marked("numpy==1.26.4\nnumpy==1.26.3\nattrs");
    assert_eq!(lines, set(&["numpy==1.26.4", "numpy==1.26.3"]), "{text}");
}

#[test]
fn a_version_that_does_not_exist() {
    let (lines, text) = marked("attrs==999.0\nrich");
    assert_eq!(lines, set(&["attrs==999.0"]), "{text}");
    assert!(text.contains("attrs==999.0"), "{text}");
}

#[test]
fn a_package_that_does_not_exist() {
    let server = Server::start();
    server.project("app", &[wheel("app", "1.0", &["midle"], 10)]);
    server.project("midle", &[wheel("midle", "1.0", &["no-such-thing"], 10)]);
    let line = "app";
    let (lines, text) = marked(&format!("index own {} default\n{line}", server.index()));
    assert_eq!(lines, set(&[line]), "{text}");
    assert!(
        text.contains("no index has a package named `no-such-thing`"),
        "{text}"
    );
    assert!(text.contains("app → midle → no-such-thing"), "{text}");
}

#[test]
fn only_source_is_said_plainly() {
    let server = Server::start();
    server.project("app", &[wheel("app", "1.0", &["srconly>=1"], 10)]);
    server.project("srconly", &[("srconly-1.5.tar.gz".into(), vec![1, 2, 3])]);
    let (lines, text) = marked(&format!("index own {} default\napp", server.index()));
    assert_eq!(lines, set(&["app"]), "{text}");
    assert!(
        text.contains("srconly 1.5, which exists only as source"),
        "{text}"
    );
    assert!(text.contains("app → srconly"), "{text}");
}

#[test]
fn only_another_platform_is_said_plainly() {
    let server = Server::start();
    server.project(
        "lib",
        &[wheel_tagged("lib", "1.0", "cp311-cp311-win_amd64", &[], 10)],
    );
    let (lines, text) = marked(&format!("index own {} default\nlib", server.index()));
    assert_eq!(lines, set(&["lib"]), "{text}");
    assert!(
        text.contains("no wheel for CPython 3.11 on linux/amd64 with glibc 2.36"),
        "{text}"
    );
}

/// A real package that never had a wheel.
#[test]
fn only_source_on_the_real_index() {
    let (lines, text) = marked("rich\ndocopt==0.6.2");
    assert_eq!(lines, set(&["docopt==0.6.2"]), "{text}");
    assert!(
        text.contains("docopt 0.6.2, which exists only as source"),
        "{text}"
    );
}

#[test]
fn an_old_release_for_want_of_wheels_is_told() {
    let server = Server::start();
    let own = format!("index own {} default\n", server.index());
    let source = |file: &str| (file.to_owned(), vec![1]);
    server.project(
        "lib",
        &[wheel("lib", "1.0", &[], 10), source("lib-2.0.tar.gz")],
    );
    let told = Case::new(&format!("{own}lib")).resolve().unwrap().warnings;
    assert_eq!(
        told,
        ["lib 1.0 is taken although 2.0 exists: newer releases exist only as source"]
    );
    let pinned = Case::new(&format!("{own}lib<2"))
        .resolve()
        .unwrap()
        .warnings;
    assert_eq!(pinned, [""; 0]);

    server.project(
        "app",
        &[
            wheel("app", "1.0", &[], 10),
            wheel("app", "2.0", &["srconly"], 10),
        ],
    );
    server.project("srconly", &[source("srconly-1.5.tar.gz")]);
    let told = Case::new(&format!("{own}app")).resolve().unwrap().warnings;
    assert_eq!(
        told,
        [
            "app 1.0 is taken although 2.0 exists: 2.0 needs srconly 1.5, which exists only as source"
        ]
    );
}

#[test]
fn lines_that_cannot_be_used() {
    let cases = [
        (
            "lib @ git+https://example.com/lib",
            "would have to be built from source",
        ),
        (
            "lib @ https://example.com/lib-1.0.tar.gz",
            "would have to be built from source",
        ),
        (
            "lib @ https://example.com/lib-1.0-cp311-cp311-win_amd64.whl",
            "does not run on",
        ),
        (
            "lib @ https://${TOKEN}@example.com/lib-1.0-py3-none-any.whl",
            "environment variable",
        ),
        ("lib @index=nowhere", "no index is named `nowhere`"),
        ("lib @wheel=dist/lib-1.0-py3-none-any.whl", "does not exist"),
        ("index files file:///tmp/simple", "no usable URL"),
        ("lib>=1.0,=<2", "cannot be read as a requirement"),
    ];
    for (line, expected) in cases {
        let case = Case::new(line);
        let error = case.resolve().unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{line}");
        assert!(told(&error).contains(expected), "{line}: {}", told(&error));
        assert_eq!(case.marked(&error), set(&[line]));
    }
}

#[test]
fn no_network_no_cache_no_access() {
    let folder = tempfile::tempdir().unwrap();
    let mut offline = Case::new("numpy").own_cache(folder.path());
    offline.offline = true;
    let error = offline.resolve().unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{}", told(&error));
    assert!(
        told(&error).contains("numpy") && told(&error).contains("--offline"),
        "{}",
        told(&error)
    );

    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let case = Case::new(&format!("index own http://{closed}/simple default\nlib"))
        .own_cache(folder.path());
    let error = case.resolve().unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{}", told(&error));
    assert!(
        told(&error).contains(&closed.to_string()),
        "{}",
        told(&error)
    );

    let server = Server::start();
    server.project("lib", &[wheel("lib", "1.0", &[], 10)]);
    server.change("/simple/lib/", |page| {
        page.authorization = Some("other".into())
    });
    let case =
        Case::new(&format!("index own {} default\nlib", server.index())).own_cache(folder.path());
    let error = case.resolve().unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorised, "{}", told(&error));

    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = Case::new("numpy").own_cache(&file).resolve().unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{}", told(&error));
}

#[test]
fn exclude_newer_needs_upload_times() {
    let server = Server::start();
    server.project("lib", &[wheel("lib", "1.0", &[], 10)]);
    let limit = "exclude-newer 2024-06-01T00:00:00Z";
    let (lines, text) = marked(&format!(
        "index own {} default\n{limit}\nlib",
        server.index()
    ));
    assert_eq!(lines, set(&[limit]), "{text}");
    assert!(text.contains("no upload times"), "{text}");
}

/// Of two lines of one package, only the one that forbids is marked.
#[test]
fn an_innocent_line_of_the_same_package_is_not_marked() {
    let server = Server::start();
    let app = |major: u32| {
        wheel(
            "app",
            &format!("{major}.0"),
            &[&format!("lib>=2.{major}")],
            10,
        )
    };
    server.project("app", &(1..20).map(app).collect::<Vec<_>>());
    let lib = |minor: u32| wheel("lib", &format!("2.{minor}"), &[], 10);
    let mut libs: Vec<_> = (0..20).map(lib).collect();
    libs.push(wheel("lib", "1.0", &[], 10));
    server.project("lib", &libs);
    let own = format!("index own {} default", server.index());
    let (lines, text) = marked(&format!(
        "{own}\nlib\napp>=2\nconstraint lib<2\nconstraint lib>0"
    ));
    assert_eq!(lines, set(&["app>=2", "constraint lib<2"]), "{text}");
    // Eighteen releases, each with a bound of its own, in one sentence.
    let sentence = "app 19.0 needs lib>=2.19, and no other release fits app>=2 together with lib<2";
    assert!(text.contains(sentence), "{text}");
}

/// A constraint that leaves only releases without a wheel is marked beside the line that asks.
#[test]
fn a_limit_that_leaves_no_wheel() {
    let (lines, text) = marked("numpy\nconstraint numpy<1.20\nconstraint numpy>0.1");
    assert_eq!(lines, set(&["numpy", "constraint numpy<1.20"]), "{text}");
    assert!(text.contains("no wheel for CPython 3.11"), "{text}");
}
