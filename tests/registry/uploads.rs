//! Uploads that do not go through at once: where they go on, how often they are tried, and when they are given up.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use imagewright::diagnostic::{Explain, Kind};
use imagewright::digest::Digest;
use imagewright::oci::Descriptor;
use imagewright::registry::{Put, Reference, Registry, RegistryError};

use crate::faults::{Cue, Fault, Weather};
use crate::lab::{self, Options, Server, wait};
use crate::proxy::{Asked, Proxy};
use crate::sample::Sample;
use crate::wares::{self, Random};
use crate::weather::client;

/// More than two chunks.
const SIZE: usize = 10 << 20;

struct Bench<'a> {
    server: &'a Server,
    proxy: Proxy,
    folder: tempfile::TempDir,
    content: Vec<u8>,
    blob: Descriptor,
}

impl<'a> Bench<'a> {
    fn new(server: &'a Server, script: Vec<Cue>) -> Self {
        let weather = Weather {
            script,
            ..Weather::default()
        };
        let proxy = Proxy::start(server.address(), weather);
        let mut random = Random(u64::from(proxy.address().len() as u32) * 77 + 5);
        let content: Vec<u8> = (0..SIZE / 8)
            .flat_map(|_| random.next().to_le_bytes())
            .collect();
        Self {
            server,
            proxy,
            folder: tempfile::tempdir().unwrap(),
            blob: Descriptor::of("application/octet-stream", &content),
            content,
        }
    }

    fn registry(&self) -> Registry {
        client(self.folder.path(), self.proxy.address())
    }

    /// A repository of its own for each proxy.
    fn repository(&self) -> Reference {
        let (_, port) = self.proxy.address().split_once(':').unwrap();
        let name = format!("{}/up/p{port}", self.proxy.address());
        name.parse().unwrap()
    }

    fn put(&self) -> (Result<Put, RegistryError>, Vec<Asked>, u64) {
        let registry = self.registry();
        let put =
            wait(registry.put_blob(&self.repository(), &self.blob, &self.content, &[], &|_| {}));
        (put, self.proxy.asked(), registry.transfers().sent)
    }

    /// The blob is in the registry, whole.
    #[track_caller]
    fn assert_there(&self) {
        let path = self.server.blob_path(&self.blob.digest);
        let found = fs::read(path).or_else(|_| {
            // olareg shows a repository once it has a manifest.
            let name = self.repository().repository;
            let below = format!("{name}/blobs/sha256/{}", self.blob.digest.hex());
            fs::read(self.server.storage().join(below))
        });
        assert_eq!(Digest::of(found.unwrap()), self.blob.digest);
    }
}

fn with(asked: &[Asked], method: &str) -> Vec<Asked> {
    let of = |asked: &&Asked| asked.method == method && asked.target.contains("/uploads/");
    asked.iter().filter(of).cloned().collect()
}

/// Where the content of each `PATCH` begins.
fn starts(asked: &[Asked]) -> Vec<u64> {
    let ranges = with(asked, "PATCH").into_iter().map(|asked| asked.range);
    ranges
        .map(|range| range.unwrap().split_once('-').unwrap().0.parse().unwrap())
        .collect()
}

#[test]
fn what_broke_off_goes_on_where_the_registry_has_it() {
    let Some(server) = Server::olareg() else {
        return;
    };
    let script = vec![
        Cue::once("PUT ", Fault::ResetRequest).at(6_000_000),
        Cue::once("PATCH ", Fault::ResetRequest).at(1_000_000),
    ];
    let bench = Bench::new(&server, script);
    let (put, asked, sent) = bench.put();
    assert_eq!(put.unwrap(), Put::Uploaded, "{asked:#?}");
    bench.assert_there();
    assert_eq!(with(&asked, "POST").len(), 1, "one session: {asked:#?}");
    assert!(
        with(&asked, "GET").len() >= 2,
        "asked where it is: {asked:#?}"
    );
    let starts = starts(&asked);
    assert!(starts[0] > 0 && starts[1] > starts[0], "{starts:?}");
    // What the network had in its buffers is lost.
    let most = SIZE as u64 * 2;
    assert!(sent < most, "{sent} bytes were sent");
}

#[test]
fn a_registry_that_cannot_go_on_gets_it_anew() {
    let server = Server::docker_registry(Options::default());
    let script = vec![
        Cue::once("PUT ", Fault::ResetRequest).at(6_000_000),
        Cue::once("PATCH ", Fault::ResetRequest).at(1_000_000),
        Cue::once("PATCH ", Fault::Stale),
    ];
    let bench = Bench::new(&server, script);
    let (put, asked, _) = bench.put();
    assert_eq!(put.unwrap(), Put::Uploaded, "{asked:#?}");
    bench.assert_there();
    assert!(with(&asked, "POST").len() >= 2, "{asked:#?}");
    let starts = starts(&asked);
    assert!(starts.ends_with(&[0, 4 << 20, 8 << 20]), "{starts:?}");
}

#[test]
fn a_session_that_stands_elsewhere_is_asked_where() {
    let olareg = Server::olareg();
    let distribution = Server::docker_registry(Options::default());
    for server in olareg.iter().chain([&distribution]) {
        for code in ["RANGE_INVALID", "SIZE_INVALID", "UNKNOWN"] {
            let script = vec![
                Cue::once("PUT ", Fault::Broken),
                // The registry has it, but that is not heard of.
                Cue::once("PATCH ", Fault::BrokenAfter),
                Cue::once("PATCH ", Fault::Answer(416, code, "")),
            ];
            let bench = Bench::new(server, script);
            let (put, asked, sent) = bench.put();
            assert_eq!(put.unwrap(), Put::Uploaded, "{asked:#?}");
            bench.assert_there();
            assert!(!with(&asked, "GET").is_empty(), "{asked:#?}");
            assert!(sent <= SIZE as u64 * 4, "{sent} bytes were sent");
        }
    }
}

#[test]
fn without_chunks_it_goes_in_one_request() {
    let server = Server::docker_registry(Options::default());
    for refused in [
        Fault::Answer(405, "UNSUPPORTED", ""),
        Fault::Answer(501, "", ""),
        Fault::Answer(400, "", ""),
    ] {
        let script = vec![
            Cue::once("PUT ", Fault::ResetRequest).at(3_000_000),
            Cue::always("PATCH ", refused),
        ];
        let bench = Bench::new(&server, script);
        let (put, asked, _) = bench.put();
        assert_eq!(put.unwrap(), Put::Uploaded, "{asked:#?}");
        bench.assert_there();
        let last = with(&asked, "PUT").pop().unwrap();
        assert_eq!(last.length, SIZE as u64, "{asked:#?}");
    }
    // And the other way round: too much for one request.
    let script = vec![Cue {
        least: 5_000_000,
        ..Cue::always("PUT ", Fault::Answer(413, "", ""))
    }];
    let bench = Bench::new(&server, script);
    let (put, asked, _) = bench.put();
    assert_eq!(put.unwrap(), Put::Uploaded, "{asked:#?}");
    bench.assert_there();
    assert_eq!(starts(&asked), [0, 4 << 20, 8 << 20]);
}

#[test]
fn tokens_end_between_the_chunks_and_new_ones_are_fetched() {
    let server = Server::docker_registry(Options::default());
    let bench = Bench::new(&server, Vec::new());
    bench.proxy.set(Weather {
        script: vec![Cue::once("PUT ", Fault::Broken)],
        token_uses: Some(1),
        ..Weather::default()
    });
    let (put, asked, _) = bench.put();
    assert_eq!(put.unwrap(), Put::Uploaded, "{asked:#?}");
    bench.assert_there();
    let told = bench.proxy.told();
    let ended = told.iter().filter(|told| told.fault == Fault::Expired);
    assert!(ended.count() >= 4, "{told:#?}");
    let tokens = asked
        .iter()
        .filter(|asked| asked.target.starts_with("/token?"));
    assert!(tokens.count() >= 5, "{asked:#?}");
}

#[test]
fn what_a_server_says_of_waiting_is_heard_and_has_an_end() {
    let server = Server::docker_registry(Options::default());
    let busy = |after| {
        vec![Cue::once(
            "PUT ",
            Fault::Answer(429, "TOOMANYREQUESTS", after),
        )]
    };
    for after in [
        "Retry-After: 1\r\n",
        "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:49:38 GMT\r\n",
    ] {
        let bench = Bench::new(&server, busy(after));
        let begun = Instant::now();
        let (put, ..) = bench.put();
        assert_eq!(put.unwrap(), Put::Uploaded);
        assert!(begun.elapsed() >= Duration::from_secs(1), "{after}");
        bench.assert_there();
    }
    // An hour is not waited for.
    let bench = Bench::new(&server, busy("Retry-After: 3600\r\n"));
    let (put, asked, _) = bench.put();
    let error = put.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("fewer requests"), "{error}");
    assert!(error.hint().unwrap().contains("wait"), "{error}");
    assert_eq!(with(&asked, "PUT").len(), 1);
    // A server that is never there is not asked for ever.
    for (method, fault) in [
        ("POST", Fault::Away),
        ("PUT", Fault::Broken),
        ("PATCH", Fault::Away),
        ("PATCH", Fault::Misplaced),
        ("PATCH", Fault::Stale),
    ] {
        let script = vec![
            Cue::always(
                match method {
                    "POST" => "POST ",
                    "PUT" => "PUT ",
                    _ => "PATCH ",
                },
                fault,
            ),
            Cue::always("PUT ", Fault::Broken),
        ];
        let bench = Bench::new(&server, script);
        let (put, asked, _) = bench.put();
        let error = put.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        let address = bench.proxy.address();
        assert!(error.to_string().contains(address), "{error}");
        let tries = with(&asked, method).len();
        assert!((2..=24).contains(&tries), "{tries} times {method}: {error}");
    }
}

#[test]
fn parts_that_are_not_seen_for_a_moment_do_not_end_a_push() {
    let server = Server::docker_registry(Options::default());
    for (seed, status, code) in [
        (1, 404, "MANIFEST_BLOB_UNKNOWN"),
        (2, 400, "MANIFEST_INVALID"),
        (3, 400, "DIGEST_INVALID"),
    ] {
        let sample = Sample::new(seed);
        let cue = Cue {
            least: 1,
            times: 2,
            ..Cue::once(
                "PUT /v2/moment/cache/manifests/",
                Fault::Answer(status, code, ""),
            )
        };
        let bench = Bench::new(&server, vec![cue]);
        let prefix = format!("{}/moment", bench.proxy.address());
        let catalog = crate::sample::catalog(bench.registry(), &prefix);
        wait(sample.publish(&catalog)).unwrap();
        assert_eq!(bench.proxy.told().len(), 2);
        server.assert_whole();
    }
}

/// The wheels that a store has.
fn wheels(store: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(store.join("artifacts")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_wheel_that_goes_while_its_layer_is_sent_is_told_and_nothing_is_tagged() {
    let server = Server::docker_registry(Options {
        login: true,
        delete: false,
    });
    let index = lab::index();
    // More than is read ahead.
    index.add(&wares::wheel("epsilon", "1.0", &[], 4, 1_500_000));
    let proxy = Proxy::start(server.address(), Weather::default());
    let lab = lab::project(
        proxy.address(),
        &index,
        r#"image "one" base="small" { pip "epsilon"; }"#,
    );
    let slow = Weather {
        slowness: Duration::from_millis(25),
        // Once the wheel has gone, what is sent breaks off: it has to be read again.
        script: vec![Cue {
            least: 2_000_000,
            ..Cue::once("PUT ", Fault::ResetRequest).at(1_000_000)
        }],
        ..Weather::default()
    };
    for cut in [false, true] {
        lab.build();
        proxy.set(slow.clone());
        let mut running = lab.start(&["push"]);
        let on_its_way = |asked: &Asked| asked.is_sending() && asked.length > 2_000_000;
        assert!(running.until(|| proxy.asked().iter().any(on_its_way)));
        for wheel in wheels(&lab.store()) {
            match cut {
                true => fs::OpenOptions::new()
                    .write(true)
                    .open(wheel)
                    .unwrap()
                    .set_len(60_000)
                    .unwrap(),
                false => fs::remove_file(wheel).unwrap(),
            }
        }
        let ran = running.wait(Duration::from_secs(60));
        let said = ran.expect(4, &["cannot read", "build the image again"]);
        assert!(said.err.contains("blob sha256:"), "{}", said.err);
        assert!(server.tags(lab::PREFIX).is_empty());
        server.assert_whole();
        // As it says.
        fs::remove_dir_all(lab.store()).unwrap();
    }
    proxy.set(Weather::default());
    lab.run(&["push"]).expect(0, &[]);
    server.assert_whole();
    let tags = server.tags(lab::PREFIX);
    assert!(tags.iter().any(|(tag, _)| tag == "one"), "{tags:?}");
}
