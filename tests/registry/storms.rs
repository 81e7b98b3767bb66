//! Bad weather between client and registry: what is done ends right or with a clear error, nothing partial is ever
//! tagged, and with the sun it is finished.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use imagewright::ambient::Ambient;
use imagewright::diagnostic::{Explain, Kind};
use imagewright::http::Http;
use imagewright::oci::Descriptor;
use imagewright::registry::{Reference, Registry, RegistryError};
use serde_json::json;

use crate::faults::{Fault, Proxy, Weather};
use crate::lab::{Options, Server, login_file, wait};
use crate::wares::Random;

/// Runs, as many at a time as there are threads here.
const RUNS: u64 = 320;
const THREADS: u64 = 4;

/// The weather of a seed: showers of everything, one kind of trouble alone, one request that never succeeds, an outage.
fn weather(seed: u64) -> Weather {
    let mut random = Random(seed * 7_919 + 1);
    for _ in 0..4 {
        random.next();
    }
    let mut below = |limit: u64| random.next() % limit;
    let one = Fault::ALL[below(Fault::ALL.len() as u64) as usize];
    let calm = Weather {
        seed,
        permille: 50 + below(300),
        faults: Fault::ALL.to_vec(),
        token_uses: (seed.is_multiple_of(3)).then(|| 2 + below(20) as u32),
        ..Weather::default()
    };
    let first = ["PUT", "POST", "HEAD", "PATCH", "GET"][below(5) as usize];
    match seed % 8 {
        0..4 => calm,
        4 | 5 => Weather {
            permille: 300,
            faults: vec![one],
            ..calm
        },
        6 => Weather {
            permille: 1000,
            faults: vec![one],
            only: format!("{first} "),
            ..calm
        },
        _ => Weather {
            permille: 0,
            outage: Some(below(40) as u32),
            ..calm
        },
    }
}

/// A client that does not wait long before it tries again.
fn client(folder: &std::path::Path, address: &str) -> Registry {
    let ambient = Ambient {
        registry_auth: vec![login_file(folder, &[address])],
        ..Ambient::default()
    };
    let http = Http::new(&ambient, false).unwrap();
    Registry::new(http.with_pause(Duration::from_millis(5)), &ambient)
}

/// An image with layers of up to 2 MB, some of which other seeds have too.
struct Sample {
    tag: String,
    blobs: Vec<(Descriptor, Vec<u8>)>,
    manifest: String,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Sample {
    fn new(seed: u64) -> Self {
        let blob = |kind: &str, seed: u64, size: u64| {
            let mut random = Random(seed + 1);
            let bytes: Vec<u8> = (0..size / 8)
                .flat_map(|_| random.next().to_le_bytes())
                .collect();
            (Descriptor::of(kind, &bytes), bytes)
        };
        let tar = "application/vnd.oci.image.layer.v1.tar+gzip";
        let blobs = vec![
            blob(
                "application/vnd.oci.image.config.v1+json",
                seed + 5_000_000,
                800,
            ),
            blob(tar, seed + 1_000_000, 100_000 + seed * 6_000 % 1_900_000),
            blob(tar, seed / 4 + 2_000_000, 600_000),
            blob(tar, seed + 3_000_000, 40_000),
        ];
        let layers: Vec<&Descriptor> = blobs[1..].iter().map(|blob| &blob.0).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": blobs[0].0, "layers": layers});
        Self {
            tag: format!("run-{seed}"),
            blobs,
            manifest: manifest.to_string(),
        }
    }

    async fn push(&self, client: &Registry, repository: &Reference) -> Result<(), RegistryError> {
        let puts = self.blobs.iter().map(|(descriptor, bytes)| {
            client.put_blob(repository, descriptor, bytes, &[], &|_| {})
        });
        futures_util::future::try_join_all(puts).await?;
        let tagged = Reference {
            tag: Some(self.tag.clone()),
            ..repository.clone()
        };
        let bytes = self.manifest.as_bytes();
        client.put_manifest(&tagged, MANIFEST, bytes).await?;
        Ok(())
    }
}

/// Calls `run` with all seeds, on some threads; a seed in `STORM_SEED` alone.
fn seeds(run: impl Fn(u64) + Sync) {
    if let Some(seed) = std::env::var("STORM_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
    {
        return run(seed);
    }
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= RUNS {
                        return;
                    }
                    run(seed);
                }
            });
        }
    });
}

#[track_caller]
fn assert_clear(error: &(impl Explain + ?Sized), when: &str) {
    let message = error.to_string();
    let kinds = [Kind::Unavailable, Kind::Unauthorised, Kind::Refused];
    assert!(
        kinds.contains(&error.kind()),
        "{when}: {:?}: {message}",
        error.kind()
    );
    assert!(
        message.len() > 20 && message.contains("127.0.0.1:"),
        "{when}: {message}"
    );
    for bad in [crate::lab::PASSWORD, "token-", "_state", "backtrace"] {
        assert!(!message.contains(bad), "{when}: {message}");
    }
}

#[test]
fn blobs_and_manifests_get_through_or_it_is_said_why_not() {
    let server = Server::docker_registry(Options::default());
    let ended_well = AtomicU64::new(0);
    seeds(|seed| {
        let folder = tempfile::tempdir().unwrap();
        let proxy = Proxy::start(server.address(), weather(seed));
        let repository: Reference = format!("{}/storm/{seed}", proxy.address()).parse().unwrap();
        let sample = Sample::new(seed);
        let pushed = wait(sample.push(&client(folder.path(), proxy.address()), &repository));
        let when = format!("STORM_SEED={seed}, {:?}", proxy.told());
        match pushed {
            Ok(()) => {
                ended_well.fetch_add(1, Ordering::Relaxed);
                assert_eq!(server.tags(&format!("storm/{seed}")).len(), 1, "{when}");
            }
            Err(error) => assert_clear(&error, &when),
        }
        server.assert_whole_repository(&format!("storm/{seed}"), &when);
        proxy.set(Weather::default());
        wait(sample.push(&client(folder.path(), proxy.address()), &repository)).unwrap();
        server.assert_whole_repository(&format!("storm/{seed}"), &when);
    });
    let well = ended_well.into_inner();
    assert!(
        (RUNS / 3..RUNS).contains(&well),
        "{well} of {RUNS} ended well"
    );
}
