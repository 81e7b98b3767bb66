//! Wheels and debs that an index or archive no longer gives, kept in a registry.

use std::fs;
use std::path::Path;

use imagewright::ambient::{Ambient, Login};
use imagewright::catalog::{Catalog, Place};
use imagewright::diagnostic::{Explain, Kind};
use imagewright::digest::Digest;
use imagewright::http::Http;
use imagewright::lock::{LockedDeb, LockedWheel, WheelOrigin};
use imagewright::manifest::{Destination, Layout};
use imagewright::oci::{ArtifactMirror, Descriptor};
use imagewright::progress::Silent;
use imagewright::registry::Registry;
use imagewright::source::debian::{DebError, DebSource, fetch_debs};
use imagewright::source::{FetchContext, SourceError, fetch_wheels};
use imagewright::store::Store;

use serde_json::Value;

use crate::index;
use crate::lab::{self, Options, PREFIX, Ran, Server, client, login_file, wait};
use crate::wares;

fn keeper(registry: Registry, address: &str) -> Catalog {
    let place = Place::new(&Destination {
        registry: format!("{address}/team/ml"),
        layout: Layout::Split,
        plain_http: false,
    });
    Catalog::new(registry, place.unwrap())
}

/// Puts bytes into the cache of [`keeper`].
fn keep(keeper: &Catalog, bytes: &[u8]) -> Digest {
    let blob = Descriptor::of("application/zip", bytes);
    let cache = keeper.place().cache();
    let content = bytes.to_vec();
    let put = keeper
        .registry()
        .put_blob(&cache, &blob, &content, &[], &|_| {});
    wait(put).unwrap();
    blob.digest
}

/// A lock's wheel of an index that has dropped it, and what it would be.
struct Dropped {
    index: index::Server,
    file: String,
    bytes: Vec<u8>,
    wheel: LockedWheel,
    folder: tempfile::TempDir,
}

impl Dropped {
    fn new() -> Self {
        let index = index::Server::start();
        let (file, bytes) = wares::wheel("alpha", "1.0", &[], 20, 50_000);
        let wheel = LockedWheel {
            name: "alpha".into(),
            version: "1.0".into(),
            sha256: Digest::of(&bytes),
            size: Some(bytes.len() as u64),
            origin: WheelOrigin::Index(index.index()),
        };
        Self {
            index,
            file,
            bytes,
            wheel,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn store(&self) -> Store {
        Store::open(&self.folder.path().join("store")).unwrap()
    }

    fn fetch(&self, keeper: Option<&Catalog>) -> Result<(), SourceError> {
        self.fetch_as(&Ambient::default(), &self.wheel, keeper)
    }

    fn fetch_as(
        &self,
        ambient: &Ambient,
        wheel: &LockedWheel,
        keeper: Option<&Catalog>,
    ) -> Result<(), SourceError> {
        let (http, store) = (Http::new(ambient, false).unwrap(), self.store());
        let context = FetchContext {
            http: &http,
            store: &store,
            ambient,
            indexes: &[],
            project_dir: Path::new("/"),
            progress: &Silent,
            jobs: 2,
            fallback: keeper.map(|keeper| keeper as &dyn ArtifactMirror),
        };
        wait(fetch_wheels(&[(&self.file, wheel)], &context)).map(drop)
    }

    /// Whether the store has the wheel; it is forgotten.
    fn take(&self) -> bool {
        let found = self.store().artifact(&self.wheel.sha256);
        let Some(path) = found else { return false };
        assert_eq!(fs::read(&path).unwrap(), self.bytes);
        fs::remove_file(path).unwrap();
        true
    }
}

#[test]
fn a_dropped_wheel_comes_from_the_registry_that_keeps_it() {
    let server = Server::docker_registry(Options::default());
    let keeper = keeper(client(&[]), server.address());
    let dropped = Dropped::new();
    keep(&keeper, &dropped.bytes);
    // The index does not know the project.
    assert_eq!(dropped.fetch(None).unwrap_err().kind(), Kind::NotFound);
    dropped.fetch(Some(&keeper)).unwrap();
    assert!(dropped.take());
    // The page lists the file, but the file is gone.
    let page = format!("/files/{}", dropped.file);
    dropped
        .index
        .add(&(dropped.file.clone(), dropped.bytes.clone()));
    for status in [404, 410, 403] {
        dropped.index.put(&page, index::Page::status(status));
        dropped.fetch(Some(&keeper)).unwrap();
        assert!(dropped.take(), "{status}");
    }
    // The page lists other files only; the length is not known.
    dropped
        .index
        .page("alpha", "alpha-2.0-py3-none-any.whl", "0");
    let lengthless = LockedWheel {
        size: None,
        ..dropped.wheel.clone()
    };
    dropped
        .fetch_as(&Ambient::default(), &lengthless, Some(&keeper))
        .unwrap();
    assert!(dropped.take());
    // Nobody is there.
    let gone = LockedWheel {
        origin: WheelOrigin::Index(format!("http://{}/simple", index::closed_port())),
        ..dropped.wheel.clone()
    };
    dropped
        .fetch_as(&Ambient::default(), &gone, Some(&keeper))
        .unwrap();
    assert!(dropped.take());
}

#[test]
fn the_registry_is_asked_only_for_what_the_index_does_not_give() {
    let server = Server::docker_registry(Options::default());
    let keeper = keeper(client(&[]), server.address());
    let dropped = Dropped::new();
    keep(&keeper, &dropped.bytes);
    dropped
        .index
        .add(&(dropped.file.clone(), dropped.bytes.clone()));
    let ((), asked) = server.during(|| dropped.fetch(Some(&keeper)).unwrap());
    assert!(dropped.take() && asked.is_empty(), "{asked:?}");
    // Other bytes than were locked are told, not replaced.
    let other = index::Page::new("application/octet-stream", vec![7; dropped.bytes.len()]);
    dropped
        .index
        .put(&format!("/files/{}", dropped.file), other);
    let (error, asked) = server.during(|| dropped.fetch(Some(&keeper)).unwrap_err());
    assert!(matches!(error, SourceError::WrongHash { .. }), "{error}");
    assert!(!dropped.take() && asked.is_empty(), "{asked:?}");
}

#[test]
fn when_nobody_has_it_every_place_is_named() {
    let server = Server::docker_registry(Options::default());
    let kept = keeper(client(&[]), server.address());
    let dropped = Dropped::new();
    let error = dropped.fetch(Some(&kept)).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let file = format!("alpha 1.0 ({})", dropped.file);
    let expected = format!(
        "{file} is no longer offered by {}; {}/team/ml/cache does not keep {file}",
        dropped.index.index(),
        server.address()
    );
    assert_eq!(error.to_string(), expected);
    assert!(error.hint().unwrap().contains("push --with-sources"));
    let closed = index::closed_port().to_string();
    let error = dropped
        .fetch(Some(&keeper(client(&[]), &closed)))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    let told = error.to_string();
    assert!(
        told.contains("no longer offered") && told.contains(&closed),
        "{told}"
    );
}

#[test]
fn other_bytes_in_the_registry_are_refused() {
    let server = Server::docker_registry(Options::default());
    let keeper = keeper(client(&[]), server.address());
    let dropped = Dropped::new();
    let digest = keep(&keeper, &dropped.bytes);
    let mut changed = dropped.bytes.clone();
    changed[100] ^= 1;
    let longer = [&dropped.bytes[..], b"more"].concat();
    for wrong in [&changed, &longer, &dropped.bytes[..100].to_vec()] {
        fs::write(server.blob_path(&digest), wrong).unwrap();
        let error = dropped.fetch(Some(&keeper)).unwrap_err();
        let expected = match wrong.len() < dropped.bytes.len() {
            true => Kind::Unavailable,
            false => Kind::Refused,
        };
        assert_eq!(error.kind(), expected, "{error}");
        assert!(!dropped.take());
        let left = fs::read_dir(dropped.store().base().join("blobs")).unwrap();
        assert_eq!(left.count(), 0, "nothing unverified stays");
    }
}

#[test]
fn logins_reach_their_own_hosts_only() {
    let server = Server::docker_registry(Options {
        login: true,
        delete: false,
    });
    let dropped = Dropped::new();
    let login = login_file(dropped.folder.path(), &[server.address()]);
    let own = keeper(client(&[login]), server.address());
    keep(&own, &dropped.bytes);
    // The registry's login does not go to the index.
    dropped.fetch(Some(&own)).unwrap();
    assert!(dropped.take());
    assert_eq!(dropped.index.logins(), 0);
    // The index's login does not go to a registry, which here counts logins.
    let canary = Login {
        username: "canary".into(),
        password: "canary-secret-1".into(),
    };
    let ambient = Ambient {
        netrc: [("127.0.0.1".to_owned(), canary)].into(),
        ..Ambient::default()
    };
    let foreign = index::Server::start();
    let address = foreign.address().to_string();
    let registry = Registry::new(Http::new(&ambient, false).unwrap(), &ambient);
    let error = dropped
        .fetch_as(&ambient, &dropped.wheel, Some(&keeper(registry, &address)))
        .unwrap_err();
    assert!(foreign.counts().1 > 0, "it was asked");
    assert!(dropped.index.logins() > 0, "the index got its login");
    assert_eq!(foreign.logins(), 0);
    assert!(
        !format!("{error} {error:?}").contains("canary"),
        "{error:?}"
    );
    // One that demands a login and gets none says so.
    let error = dropped
        .fetch(Some(&keeper(client(&[]), server.address())))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorised, "{error}");
}

#[test]
fn a_dropped_deb_comes_from_the_registry_last() {
    let server = Server::docker_registry(Options::default());
    let keeper = keeper(client(&[]), server.address());
    let archive = index::Server::start();
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let bytes = b"!<arch>\nwhat a deb is does not matter here".to_vec();
    let deb = LockedDeb {
        package: "one".into(),
        version: "1.0".into(),
        architecture: "all".into(),
        sha256: Digest::of(&bytes),
        size: bytes.len() as u64,
        path: "pool/one.deb".into(),
        suite: "bookworm".into(),
    };
    let (http, url) = (
        Http::new(&Ambient::default(), false).unwrap(),
        format!("http://{}", archive.address()),
    );
    let fetch = |mirror: Option<&str>| -> Result<(), DebError> {
        let source = DebSource {
            http: &http,
            ambient: &Ambient::default(),
            store: &store,
            progress: &Silent,
            mirror,
            snapshot: None,
            fallback: Some(&keeper),
        };
        wait(fetch_debs(source, &[&deb]))
    };
    let error = fetch(Some(&url)).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let expected = format!(
        "one 1.0 cannot be fetched: {url}/pool/one.deb does not exist; {}/team/ml/cache does not keep one 1.0",
        server.address()
    );
    assert_eq!(error.to_string(), expected);
    keep(&keeper, &bytes);
    archive.put("/pool/one.deb", index::Page::new("text/plain", "wrong"));
    let (error, asked) = server.during(|| fetch(Some(&url)).unwrap_err());
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(asked.is_empty(), "{asked:?}");
    let closed = format!("http://{}", index::closed_port());
    for mirror in [Some(closed.as_str()), None] {
        fetch(mirror).unwrap();
        fs::remove_file(store.artifact(&deb.sha256).unwrap()).unwrap();
    }
    archive.put("/pool/one.deb", index::Page::new("text/plain", bytes));
    let ((), asked) = server.during(|| fetch(Some(&url)).unwrap());
    assert!(asked.is_empty(), "{asked:?}");
}

const IMAGES: &str = "image \"one\" base=\"small\" { pip \"alpha\"; }\nimage \"two\" base=\"small\" { pip \"gamma\"; }";

/// The `sources` of what `push --json` printed, image by image: (uploaded, existing).
#[track_caller]
fn kept(ran: &Ran) -> Vec<(u64, u64)> {
    let document: Value = serde_json::from_str(&ran.out).unwrap();
    let images = document["images"].as_array().unwrap().iter();
    let count = |image: &Value, what: &str| image["sources"][what]["count"].as_u64().unwrap();
    images
        .map(|image| (count(image, "uploaded"), count(image, "existing")))
        .collect()
}

fn sources_tags(server: &Server, repository: &str) -> usize {
    let tags = server.tags(repository);
    tags.iter()
        .filter(|(tag, _)| tag.starts_with("sources-"))
        .count()
}

#[test]
fn what_is_pushed_with_its_sources_can_be_built_when_the_index_is_empty() {
    let server = Server::docker_registry(Options {
        login: true,
        delete: false,
    });
    let index = lab::index();
    let first = lab::project(server.address(), &index, IMAGES);
    let built = first.build();
    let cache = format!("{PREFIX}/cache");
    let push = ["push", "--with-sources", "--json"];
    let dry = first.run(&["push", "--with-sources", "--dry-run", "--json"]);
    assert_eq!(kept(&dry.expect(0, &[])), [(2, 0), (2, 1)]);
    assert!(server.repositories().is_empty());
    assert_eq!(kept(&first.run(&push).expect(0, &[])), [(2, 0), (2, 1)]);
    server.assert_whole();
    assert_eq!(sources_tags(&server, &cache), 2);
    let (ran, asked) = server.during(|| first.run(&push));
    assert_eq!(kept(&ran.expect(0, &[])), [(0, 0), (0, 0)]);
    let writes = asked
        .iter()
        .filter(|request| request.method != "GET" && request.method != "HEAD");
    assert_eq!(writes.count(), 0, "{asked:#?}");
    let told = first.run(&["push", "--with-sources"]);
    told.expect(0, &["sources: kept already"]);

    let empty = index::Server::start();
    let second = lab::colleague(&first, server.address()).env("PIP_INDEX_URL", &empty.index());
    let again = second.run(&["build", "--json", "--no-substitute"]);
    assert_eq!(again.expect(0, &[]).digests(), built);

    // Another place: layers are believed, wheels are not here and come from where they are kept.
    let third = lab::colleague(&first, server.address()).env("PIP_INDEX_URL", &empty.index());
    let other = format!("{}/other", server.address());
    let ran = third.run(&["push", "--with-sources", "--json", "--to", &other]);
    assert_eq!(kept(&ran.expect(0, &[])), [(2, 0), (2, 1)]);
    assert_eq!(sources_tags(&server, "other/cache"), 2);
    server.assert_whole();
}

#[test]
fn without_sources_an_empty_index_is_told_with_every_place() {
    let server = Server::docker_registry(Options::default());
    let index = lab::index();
    let first = lab::project(
        server.address(),
        &index,
        "image \"one\" base=\"small\" { pip \"delta\"; }",
    );
    first.build();
    first.run(&["push"]).expect(0, &[]);
    assert_eq!(sources_tags(&server, &format!("{PREFIX}/cache")), 0);
    let empty = index::Server::start();
    let second = lab::colleague(&first, server.address()).env("PIP_INDEX_URL", &empty.index());
    let words = [
        "delta 0.1 (delta-0.1-py3-none-any.whl) is no longer offered by",
        "/team/ml/cache does not keep delta 0.1",
        "push --with-sources",
    ];
    second.run(&["build", "--no-substitute"]).expect(8, &words);

    // Wrong bytes of the right length.
    first
        .run(&["push", "--with-sources"])
        .expect(0, &["sources: 1 uploaded"]);
    let lock = fs::read_to_string(first.project().join("imagewright.lock")).unwrap();
    let blob = lock
        .split('"')
        .filter_map(|word| Digest::from_hex(word).ok().or_else(|| word.parse().ok()))
        .find(|digest| {
            server.blob_size(digest).is_some_and(|_| {
                let bytes = fs::read(server.blob_path(digest)).unwrap();
                bytes.starts_with(b"PK")
            })
        })
        .expect("the wheel is in the registry");
    let mut bytes = fs::read(server.blob_path(&blob)).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(server.blob_path(&blob), bytes).unwrap();
    second
        .run(&["build", "--no-substitute"])
        .expect(7, &["is no longer offered by", "does not give delta 0.1"]);
}
