//! A login reaches its index and nothing else: not the lock, the store, the cache, a message, or another host.

use std::path::Path;

use imagewright::ambient::{Ambient, Login};
use imagewright::digest::Digest;
use imagewright::http::Http;
use imagewright::lock::WheelOrigin;
use imagewright::progress::Silent;
use imagewright::source::{FetchContext, fetch_wheels};
use imagewright::store::Store;

use crate::support::{Case, Page, Server, basic, runtime, told, wheel};

const CANARY: &str = "c4n4ry-p4ssw0rd";
const USER: &str = "robot-user";

fn login() -> Login {
    Login {
        username: USER.into(),
        password: CANARY.into(),
    }
}

/// A private index: pages and one file on it want the login, another file is on another host, a third is redirected
/// to that host.
fn private() -> (Server, Server) {
    let (index, elsewhere) = (Server::start(), Server::start());
    let (near, near_bytes) = wheel("near", "1.0", &["far", "moved"], 2000);
    let (far, far_bytes) = wheel("far", "1.0", &[], 2000);
    let (moved, moved_bytes) = wheel("moved", "1.0", &[], 2000);
    index.project("near", &[(near, near_bytes)]);
    index.project("moved", &[(moved.clone(), moved_bytes.clone())]);
    elsewhere.file(&moved, &moved_bytes);
    elsewhere.file(&far, &far_bytes);
    let target = elsewhere.url(&format!("/files/{moved}"));
    index.change(&format!("/files/{moved}"), |page| {
        page.redirect = Some(target)
    });
    let hash = Digest::of(&far_bytes).hex();
    let url = elsewhere.url(&format!("/files/{far}"));
    index.put(
        "/simple/far/",
        Page {
            kind: "text/html",
            body: format!(
                "<!DOCTYPE html><html><body><a href=\"{url}#sha256={hash}\">{far}</a></body></html>"
            )
            .into(),
            ..Page::default()
        },
    );
    for path in [
        "/simple/near/",
        "/simple/far/",
        "/simple/moved/",
        "/files/near-1.0-py3-none-any.whl",
        &format!("/files/{moved}"),
    ] {
        index.change(path, |page| page.authorization = Some(basic(USER, CANARY)));
    }
    (index, elsewhere)
}

/// Fails if a file below `folder` has the password, plain or as it stands in the header.
fn without_canary(folder: &Path) {
    let header = basic(USER, CANARY);
    let encoded = header.strip_prefix("Basic ").unwrap();
    let mut files = 0;
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            files += 1;
            let bytes = std::fs::read(entry.path()).unwrap();
            for secret in [CANARY, USER, encoded] {
                let found = bytes
                    .windows(secret.len())
                    .any(|part| part == secret.as_bytes());
                assert!(!found, "{secret} in {}", entry.path().display());
            }
        }
    }
    assert!(files > 0, "nothing was looked at");
}

/// Resolves and fetches with a machine's configuration; returns everything that could be shown or stored as text.
fn all_the_way(index: &Server, elsewhere: &Server, ambient: Ambient, lines: &str, name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut case = Case::new(lines).own_cache(folder.path());
    case.ambient = ambient;
    let resolution = case
        .resolve()
        .unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(resolution.wheels.len(), 3);
    assert!(!format!("{resolution:?}").contains(CANARY));
    let wheels: Vec<_> = resolution
        .wheels
        .iter()
        .map(|(file, wheel)| (file.as_str(), wheel))
        .collect();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let indexes = [(name.to_owned(), index.index())];
    let http = Http::new(&case.ambient, false).unwrap();
    let ctx = FetchContext {
        http: &http,
        store: &store,
        ambient: &case.ambient,
        indexes: &indexes,
        project_dir: folder.path(),
        progress: &Silent,
        jobs: 4,
        fallback: None,
    };
    runtime()
        .block_on(fetch_wheels(&wheels, &ctx))
        .unwrap_or_else(|error| panic!("{}", told(&error)));
    without_canary(folder.path());
    let sent: Vec<_> = elsewhere
        .seen()
        .into_iter()
        .filter(|seen| seen.header("authorization").is_some())
        .collect();
    assert!(sent.is_empty(), "{sent:?}");
    assert!(elsewhere.seen().len() >= 2);
}

#[test]
fn from_netrc() {
    let (index, elsewhere) = private();
    let mut ambient = Ambient::default();
    // Both servers have this host name: the port tells them apart.
    ambient.netrc.insert("127.0.0.1".into(), login());
    let lines = format!("index team {} default\nnear", index.index());
    all_the_way(&index, &elsewhere, ambient, &lines, "team");
}

#[test]
fn by_the_index_name() {
    let (index, elsewhere) = private();
    let mut ambient = Ambient::default();
    ambient.index_logins.insert("MY_TEAM".into(), login());
    let lines = format!("index my-team {} default\nnear", index.index());
    all_the_way(&index, &elsewhere, ambient, &lines, "my-team");
}

#[test]
fn in_the_mirror_url() {
    let (index, elsewhere) = private();
    let url = index
        .index()
        .replace("http://", &format!("http://{USER}:{CANARY}@"));
    let ambient = Ambient {
        python_index: Some(url),
        ..Ambient::default()
    };
    all_the_way(&index, &elsewhere, ambient, "near", "unused");
}

#[test]
fn messages_have_none() {
    let (index, _) = private();
    let broken = index
        .index()
        .replace("http://", &format!("http://{USER}:{CANARY}@"));
    let folder = tempfile::tempdir().unwrap();
    let mut cases = Vec::new();
    // A login that the server does not take.
    index.change("/simple/near/", |page| {
        page.authorization = Some("other".into())
    });
    cases.push((Some(broken.clone()), "near"));
    // A server that is not there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    cases.push((
        Some(format!("http://{USER}:{CANARY}@{closed}/simple")),
        "near",
    ));
    // An index that has nothing of the kind.
    cases.push((Some(broken), "nothing-of-the-kind"));
    for (mirror, line) in cases {
        let mut case = Case::new(line).own_cache(folder.path());
        case.ambient.python_index = mirror;
        let error = case.resolve().unwrap_err();
        let text = format!("{} {error:?}", told(&error));
        assert!(!text.contains(CANARY) && !text.contains(USER), "{text}");
    }
    without_canary(folder.path());
}

/// A second index on the same host without a login of its own gets none.
#[test]
fn a_neighbour_on_the_same_host_gets_none() {
    let server = Server::start();
    let (file, bytes) = wheel("open", "1.0", &[], 100);
    server.file(&file, &bytes);
    let hash = Digest::of(&bytes).hex();
    server.put(
        "/public/simple/open/",
        Page {
            kind: "text/html",
            body: format!("<!DOCTYPE html><html><body><a href=\"/public/{file}#sha256={hash}\">{file}</a></body></html>").into(),
            ..Page::default()
        },
    );
    server.put(
        &format!("/public/{file}"),
        Page {
            body: bytes,
            ranges: true,
            kind: "application/octet-stream",
            ..Page::default()
        },
    );
    let lines = format!(
        "index private {} explicit\nindex public {} default\nopen",
        server.url("/private/simple"),
        server.url("/public/simple")
    );
    let mut case = Case::new(&lines);
    case.ambient.index_logins.insert("PRIVATE".into(), login());
    let resolution = case
        .resolve()
        .unwrap_or_else(|error| panic!("{}", told(&error)));
    let origin = WheelOrigin::Index(server.url("/public/simple"));
    assert_eq!(resolution.wheels[0].1.origin, origin);
    assert!(
        server
            .seen()
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );
}
