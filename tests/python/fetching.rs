//! Downloads against a server that breaks off, lies, refuses and comes back.

use std::path::Path;
use std::sync::Mutex;

use imagewright::ambient::Ambient;
use imagewright::diagnostic::{Explain, Kind};
use imagewright::digest::Digest;
use imagewright::http::Http;
use imagewright::lock::{LockedWheel, WheelOrigin};
use imagewright::progress::{Progress, Stage};
use imagewright::source::{FetchContext, Fetched, SourceError, fetch_file, fetch_wheels};
use imagewright::store::Store;

use crate::support::{Case, Page, Server, Trouble, ambient, runtime, told, wheel};

/// Fetches into a store of its own.
struct Bench {
    folder: tempfile::TempDir,
    ambient: Ambient,
    offline: bool,
    /// Bytes told and pieces open.
    told: Counting,
}

#[derive(Default)]
struct Counting(Mutex<(u64, i64)>);

impl Progress for Counting {
    fn begin(&self, _: Stage, _: &str, _: Option<u64>) -> u64 {
        self.0.lock().unwrap().1 += 1;
        0
    }
    fn advance(&self, _: u64, units: u64) {
        self.0.lock().unwrap().0 += units;
    }
    fn end(&self, _: u64) {
        self.0.lock().unwrap().1 -= 1;
    }
    fn warn(&self, _: &str) {}
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            ambient: Ambient::default(),
            offline: false,
            told: Counting::default(),
        }
    }

    fn store(&self) -> Store {
        Store::open(&self.folder.path().join("store")).unwrap()
    }

    fn with<T>(&self, work: impl AsyncFnOnce(&FetchContext<'_>) -> T) -> T {
        runtime().block_on(async {
            let (http, store) = (
                Http::new(&self.ambient, self.offline).unwrap(),
                self.store(),
            );
            work(&FetchContext {
                http: &http,
                store: &store,
                ambient: &self.ambient,
                indexes: &[],
                project_dir: self.folder.path(),
                progress: &self.told,
                jobs: 4,
                fallback: None,
            })
            .await
        })
    }

    fn fetch(&self, file: &str, wheel: &LockedWheel) -> Result<Fetched, SourceError> {
        self.with(async |ctx| fetch_wheels(&[(file, wheel)], ctx).await)
    }

    fn has(&self, digest: &Digest) -> bool {
        let path = self.store().artifact(digest);
        let right = path.map(|path| Digest::of(std::fs::read(path).unwrap()) == *digest);
        right.unwrap_or(false)
    }

    /// Nothing is under way, nothing temporary is left.
    fn clean(&self) {
        assert_eq!(
            self.told.0.lock().unwrap().1,
            0,
            "progress that never ended"
        );
        let left = std::fs::read_dir(self.folder.path().join("store/store-v1/tmp")).unwrap();
        assert_eq!(left.count(), 0, "temporary files");
    }
}

fn locked(name: &str, bytes: &[u8], origin: WheelOrigin) -> LockedWheel {
    LockedWheel {
        name: name.into(),
        version: "1.0".into(),
        sha256: Digest::of(bytes),
        size: Some(bytes.len() as u64),
        origin,
    }
}

/// A server with one project `lib`, and the wheel that a lock has of it.
fn served(payload: usize) -> (Server, String, Vec<u8>, LockedWheel) {
    let server = Server::start();
    let (file, bytes) = wheel("lib", "1.0", &[], payload);
    server.project("lib", &[(file.clone(), bytes.clone())]);
    let origin = WheelOrigin::Index(server.index());
    let wheel = locked("lib", &bytes, origin);
    (server, file, bytes, wheel)
}

fn requests(server: &Server, file: &str) -> Vec<crate::support::Seen> {
    let path = format!("/files/{file}");
    server
        .seen()
        .into_iter()
        .filter(|seen| seen.path == path)
        .collect()
}

#[test]
fn from_html_and_json_and_only_once() {
    let (server, file, bytes, wheel) = served(300_000);
    let bench = Bench::new();
    assert_eq!(
        bench.fetch(&file, &wheel).unwrap(),
        Fetched {
            present: 0,
            fetched: 1
        }
    );
    assert!(bench.has(&wheel.sha256));
    assert_eq!(bench.told.0.lock().unwrap().0, bytes.len() as u64);
    let before = server.seen().len();
    assert_eq!(
        bench.fetch(&file, &wheel).unwrap(),
        Fetched {
            present: 1,
            fetched: 0
        }
    );
    assert_eq!(server.seen().len(), before);
    bench.clean();

    server.change("/simple/lib/", |page| {
        page.kind = "application/vnd.pypi.simple.v1+json";
        page.body =
            format!("{{\"files\":[{{\"filename\":\"{file}\",\"url\":\"../../files/{file}\"}}]}}")
                .into();
    });
    let json = Bench::new();
    json.fetch(&file, &wheel).unwrap();
    assert!(json.has(&wheel.sha256));
    let page = server
        .seen()
        .into_iter()
        .rev()
        .find(|seen| seen.path == "/simple/lib/")
        .unwrap();
    assert!(
        page.header("accept")
            .unwrap()
            .starts_with("application/vnd.pypi.simple.v1+json")
    );
}

#[test]
fn goes_on_where_it_broke() {
    for cut in [1, 999, 65_536, 123_457, 299_999] {
        let (server, file, bytes, wheel) = served(300_000);
        server.change(&format!("/files/{file}"), |page| {
            page.first = vec![Trouble::Cut(cut), Trouble::Cut(7)];
        });
        let bench = Bench::new();
        bench
            .fetch(&file, &wheel)
            .unwrap_or_else(|error| panic!("{cut}: {}", told(&error)));
        assert!(bench.has(&wheel.sha256), "{cut}");
        let seen = requests(&server, &file);
        let ranges: Vec<_> = seen.iter().map(|seen| seen.header("range")).collect();
        assert_eq!(seen.len(), 3, "{ranges:?}");
        let from = ranges[1]
            .as_deref()
            .unwrap()
            .strip_prefix("bytes=")
            .unwrap();
        let from: usize = from.strip_suffix('-').unwrap().parse().unwrap();
        assert!(from > 0 && from <= cut.max(1), "{cut}: {ranges:?}");
        assert_eq!(seen[1].header("if-range").as_deref(), Some("\"1\""));
        assert_eq!(
            bench.told.0.lock().unwrap().0,
            bytes.len() as u64,
            "bytes twice"
        );
        bench.clean();
    }
}

#[test]
fn starts_again_where_the_server_does_not_resume() {
    let (server, file, _, wheel) = served(300_000);
    server.change(&format!("/files/{file}"), |page| {
        page.ranges = false;
        page.first = vec![Trouble::Cut(200_000)];
    });
    let bench = Bench::new();
    bench.fetch(&file, &wheel).unwrap();
    assert!(bench.has(&wheel.sha256));
    bench.clean();
}

/// Without a validator, a file that changed between two parts is noticed by its digest and fetched whole.
#[test]
fn two_halves_of_different_files_are_not_joined() {
    let (server, file, bytes, wheel) = served(300_000);
    let mut other = bytes.clone();
    other[10] ^= 1;
    server.change(&format!("/files/{file}"), |page| {
        page.etag = None;
        page.body = other;
        page.first = vec![Trouble::Cut(100_000)];
    });
    let bench = Bench::new();
    let (path, right) = (format!("/files/{file}"), bytes);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while requests(&server, &file).is_empty() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
            server.change(&path, |page| page.body = right.clone());
        });
        bench
            .fetch(&file, &wheel)
            .unwrap_or_else(|error| panic!("{}", told(&error)));
    });
    assert!(bench.has(&wheel.sha256));
}

#[test]
fn a_wrong_hash_is_refused_by_name() {
    let (server, file, mut bytes, wheel) = served(5_000);
    bytes[100] ^= 1;
    server.file(&file, &bytes);
    let bench = Bench::new();
    let error = bench.fetch(&file, &wheel).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    let text = told(&error);
    for part in [
        "lib 1.0",
        &file,
        &wheel.sha256.to_string(),
        &Digest::of(&bytes).to_string(),
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!bench.has(&wheel.sha256) && !bench.has(&Digest::of(&bytes)));
    bench.clean();
}

#[test]
fn too_long_and_too_short() {
    let (server, file, bytes, wheel) = served(50_000);
    let mut longer = bytes.clone();
    longer.extend([0; 100_000]);
    server.file(&file, &longer);
    let bench = Bench::new();
    let error = bench.fetch(&file, &wheel).unwrap_err();
    assert!(
        matches!(error, SourceError::TooLong { .. }),
        "{}",
        told(&error)
    );
    assert_eq!(error.kind(), Kind::Refused);
    server.file(&file, &bytes[..40_000]);
    let error = bench.fetch(&file, &wheel).unwrap_err();
    assert!(
        matches!(
            error,
            SourceError::BrokenOff {
                received: 40_000,
                ..
            }
        ),
        "{}",
        told(&error)
    );
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(requests(&server, &file).len() > 2, "not tried again");
    // Where no size is locked, the digest finds it out.
    let unsized_wheel = LockedWheel {
        size: None,
        ..wheel
    };
    let error = bench.fetch(&file, &unsized_wheel).unwrap_err();
    assert!(
        matches!(error, SourceError::WrongHash { size: 40_000, .. }),
        "{}",
        told(&error)
    );
    bench.clean();
}

#[test]
fn truncated_once_is_fetched_again() {
    let (server, file, bytes, wheel) = served(50_000);
    server.change(&format!("/files/{file}"), |page| {
        page.first = vec![Trouble::Instead(bytes[..10_000].to_vec())];
    });
    let bench = Bench::new();
    bench
        .fetch(&file, &wheel)
        .unwrap_or_else(|error| panic!("{}", told(&error)));
    assert!(bench.has(&wheel.sha256));
}

#[test]
fn waits_as_long_as_it_is_told() {
    let (server, file, _, wheel) = served(5_000);
    let busy = Trouble::Status(503, "Retry-After: 1\r\n");
    server.change("/simple/lib/", |page| page.first = vec![busy.clone()]);
    server.change(&format!("/files/{file}"), |page| page.first = vec![busy]);
    let bench = Bench::new();
    let start = std::time::Instant::now();
    bench.fetch(&file, &wheel).unwrap();
    assert!(start.elapsed().as_secs() >= 2);
    assert!(bench.has(&wheel.sha256));
}

#[test]
fn gone_refused_and_unreachable() {
    let (server, file, _, wheel) = served(5_000);
    let bench = Bench::new();
    server.change(&format!("/files/{file}"), |page| {
        page.authorization = Some("other".into())
    });
    let error = bench.fetch(&file, &wheel).unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorised, "{}", told(&error));
    server.remove(&format!("/files/{file}"));
    let error = bench.fetch(&file, &wheel).unwrap_err();
    assert!(
        matches!(error, SourceError::Dropped { .. }),
        "{}",
        told(&error)
    );
    assert_eq!(error.kind(), Kind::NotFound);
    server.project("lib", &[]);
    let error = bench.fetch(&file, &wheel).unwrap_err();
    assert!(
        matches!(error, SourceError::Dropped { .. }),
        "{}",
        told(&error)
    );
    assert!(told(&error).contains(&server.index()) && error.hint().unwrap().contains("--upgrade"));
    server.remove("/simple/lib/");
    assert_eq!(
        bench.fetch(&file, &wheel).unwrap_err().kind(),
        Kind::NotFound
    );
    let mut offline = Bench::new();
    offline.offline = true;
    let error = offline.fetch(&file, &wheel).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(
        told(&error).contains("lib 1.0") && told(&error).contains("--offline"),
        "{}",
        told(&error)
    );
}

#[test]
fn wheels_of_the_project_urls_and_files() {
    let bench = Bench::new();
    let (file, bytes) = wheel("churn", "1.0", &[], 700_000);
    let path = format!("dist/{file}");
    std::fs::create_dir(bench.folder.path().join("dist")).unwrap();
    let wheel = locked("churn", &bytes, WheelOrigin::Path(path.clone()));
    let error = bench.fetch(&file, &wheel).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{}", told(&error));
    std::fs::write(bench.folder.path().join(&path), b"other").unwrap();
    let error = bench.fetch(&file, &wheel).unwrap_err();
    assert_eq!(error.kind(), Kind::LockOutOfDate, "{}", told(&error));
    std::fs::write(bench.folder.path().join(&path), &bytes).unwrap();
    bench.fetch(&file, &wheel).unwrap();
    assert!(bench.has(&wheel.sha256));

    let server = Server::start();
    server.file("m.bin", b"model");
    let url = server.url("/files/m.bin");
    let sha256 = Digest::of("model");
    let got = bench
        .with(async |ctx| fetch_file("m.bin", &url, &sha256, ctx).await)
        .unwrap();
    assert_eq!(std::fs::read(got).unwrap(), b"model");
    let wrong = Digest::of("other");
    let error = bench
        .with(async |ctx| fetch_file("m.bin", &url, &wrong, ctx).await)
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    bench.clean();
}

/// Many at once, with one that fails: what was complete stays, nothing is left behind.
#[test]
fn many_at_once() {
    let server = Server::start();
    let mut wheels = Vec::new();
    for number in 0..20 {
        let name = format!("lib{number}");
        let (file, bytes) = wheel(&name, "1.0", &[], 1000 * (number + 1));
        server.project(&name, &[(file.clone(), bytes.clone())]);
        wheels.push((
            file,
            locked(&name, &bytes, WheelOrigin::Index(server.index())),
        ));
    }
    let wanted: Vec<_> = wheels
        .iter()
        .map(|(file, wheel)| (file.as_str(), wheel))
        .collect();
    let bench = Bench::new();
    server.put("/files/lib7-1.0-py3-none-any.whl", Page::default());
    let failed = bench.with(async |ctx| fetch_wheels(&wanted, ctx).await);
    assert!(failed.unwrap_err().to_string().contains("lib7 1.0"));
    bench.clean();
    let (file, bytes) = wheel("lib7", "1.0", &[], 8000);
    server.file(&file, &bytes);
    let fetched = bench
        .with(async |ctx| fetch_wheels(&wanted, ctx).await)
        .unwrap();
    assert_eq!(fetched.present + fetched.fetched, 20);
    assert!(wheels.iter().all(|(_, wheel)| bench.has(&wheel.sha256)));
    bench.clean();
}

/// The real index: what was resolved can be fetched.
#[test]
fn what_is_resolved_can_be_fetched() {
    let resolution = Case::new("six==1.16.0\nidna==3.7").resolve().unwrap();
    let wheels: Vec<_> = resolution
        .wheels
        .iter()
        .map(|(file, wheel)| (file.as_str(), wheel))
        .collect();
    let mut bench = Bench::new();
    bench.ambient = ambient();
    let fetched = bench
        .with(async |ctx| fetch_wheels(&wheels, ctx).await)
        .unwrap();
    assert_eq!(fetched.fetched, 2);
    assert!(wheels.iter().all(|(_, wheel)| bench.has(&wheel.sha256)));
    assert!(Path::new(&bench.store().artifact_path(&wheels[0].1.sha256)).is_file());
}
