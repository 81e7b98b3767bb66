//! Bad weather between client and registry: what is done ends right or with a clear error, nothing partial is ever
//! tagged, and with the sun it is finished.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use imagewright::ambient::Ambient;
use imagewright::catalog::publish::Pushed;
use imagewright::catalog::{Catalog, CatalogError, KeyTag};
use imagewright::diagnostic::{Explain, Kind};
use imagewright::digest::Digest;
use imagewright::http::Http;
use imagewright::oci::Descriptor;
use imagewright::progress::Silent;
use imagewright::registry::{Reference, Registry, RegistryError};
use imagewright::store::Store;

use crate::faults::{Fault, Proxy, Weather};
use crate::lab::{self, Options, Server, login_file, wait};
use crate::sample::{self, Sample};
use crate::wares::Random;

/// Runs of pushes; as many at a time as there are threads.
const PUSHES: u64 = 320;
/// Of each kind of reading.
const READS: u64 = 80;
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

/// Calls `run` with all seeds, on some threads; a seed in `STORM_SEED` alone.
fn seeds(runs: u64, run: impl Fn(u64) + Sync) {
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
                    if seed >= runs {
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

/// What the runs of a test have in common.
struct Storm {
    server: Server,
    ended_well: AtomicU64,
}

/// One run: bad weather between a client and the registry.
struct Run<'a> {
    storm: &'a Storm,
    proxy: Proxy,
    folder: tempfile::TempDir,
    seed: u64,
    repository: String,
}

impl Storm {
    fn new() -> Self {
        Self {
            server: Server::docker_registry(Options::default()),
            ended_well: AtomicU64::new(0),
        }
    }

    fn run(&self, seed: u64) -> Run<'_> {
        Run {
            storm: self,
            proxy: Proxy::start(self.server.address(), weather(seed)),
            folder: tempfile::tempdir().unwrap(),
            seed,
            repository: format!("storm/{seed}"),
        }
    }

    /// Without good ends the runs would have shown nothing, and without bad ones neither.
    fn finish(self, runs: u64) {
        let well = self.ended_well.into_inner();
        eprintln!("{well} of {runs} runs ended well");
        assert!(
            (runs / 3..runs).contains(&well),
            "{well} of {runs} ended well"
        );
    }
}

impl Run<'_> {
    fn catalog(&self) -> Catalog {
        let address = self.proxy.address();
        let registry = client(self.folder.path(), address);
        sample::catalog(registry, &format!("{address}/{}", self.repository))
    }

    /// Without anything between.
    fn direct(&self) -> Catalog {
        let server = &self.storm.server;
        let prefix = format!("{}/{}", server.address(), self.repository);
        sample::catalog(lab::client(&[]), &prefix)
    }

    fn when(&self) -> String {
        format!("STORM_SEED={}, {:#?}", self.seed, self.proxy.told())
    }

    /// Counts a good end; a bad one must be explained.
    #[track_caller]
    fn ended<T, E: Explain>(&self, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => {
                self.storm.ended_well.fetch_add(1, Ordering::Relaxed);
                Some(value)
            }
            Err(error) => {
                assert_clear(&error, &self.when());
                None
            }
        }
    }

    #[track_caller]
    fn assert_whole(&self) {
        for repository in [
            self.repository.clone(),
            format!("{}/cache", self.repository),
        ] {
            self.storm
                .server
                .assert_whole_repository(&repository, &self.when());
        }
    }

    /// All names stand for the sample, and its record is there under all its tags.
    #[track_caller]
    fn assert_published(&self, sample: &Sample, pushed: &Pushed) {
        let tags = self.storm.server.tags(&self.repository);
        let cache = self
            .storm
            .server
            .tags(&format!("{}/cache", self.repository));
        let when = self.when();
        for name in ["sample", "sample-stable"] {
            let tag = tags.iter().find(|(tag, _)| tag == name);
            assert_eq!(
                tag.map(|tag| tag.1),
                Some(sample.image.digest()),
                "{name} {when}"
            );
        }
        let keys = &sample.record.keys;
        let records = pushed.records.iter().map(|record| KeyTag::Record(*record));
        let layers = sample.image.layers[1..]
            .iter()
            .map(|layer| KeyTag::Layer(layer.key));
        for tag in [KeyTag::Image(keys.image), KeyTag::Set(keys.set)]
            .into_iter()
            .chain(records)
            .chain(layers)
        {
            assert!(
                cache.iter().any(|(found, _)| *found == tag.tag()),
                "{} {when}",
                tag.tag()
            );
        }
    }
}

#[test]
fn a_push_ends_right_or_says_why_not_and_nothing_partial_is_tagged() {
    let storm = Storm::new();
    seeds(PUSHES, |seed| {
        let run = storm.run(seed);
        let sample = Sample::new(seed);
        if let Some(pushed) = run.ended(wait(sample.publish(&run.catalog()))) {
            run.assert_published(&sample, &pushed);
        }
        run.assert_whole();
        run.proxy.set(Weather::default());
        let pushed = wait(sample.publish(&run.catalog())).unwrap();
        run.assert_published(&sample, &pushed);
        run.assert_whole();
        let found = wait(run.direct().images(&sample.record.keys.set, &[])).unwrap();
        assert_eq!(found.records.len(), 1, "{}", run.when());
        assert_eq!(found.records[0].digest, sample.image.digest(), "{}", run.when());
    });
    storm.finish(PUSHES);
}

#[test]
fn what_is_looked_up_is_right_or_it_is_said_why_not() {
    let storm = Storm::new();
    seeds(READS, |seed| {
        let run = storm.run(seed);
        let sample = Sample::new(seed);
        wait(sample.publish(&run.direct())).unwrap();
        let keys = &sample.record.keys;
        let layer = &sample.image.layers[1];
        let looked_up = wait(async {
            let catalog = run.catalog();
            let images = catalog.images(&keys.set, &[]).await?;
            let layers = catalog.layers(&layer.key, &[]).await?;
            Ok::<_, CatalogError>((images, layers))
        });
        if let Some((images, layers)) = run.ended(looked_up) {
            assert_eq!(images.records.len(), 1, "{}", run.when());
            assert_eq!(images.records[0].digest, sample.image.digest(), "{}", run.when());
            assert_eq!(layers.records.len(), 1, "{}", run.when());
            assert_eq!(layers.records[0].layer.digest, layer.digest, "{}", run.when());
        }
    });
    storm.finish(READS);
}

#[test]
fn what_is_pulled_is_right_or_it_is_said_why_not() {
    let storm = Storm::new();
    seeds(READS, |seed| {
        let run = storm.run(seed);
        let sample = Sample::new(seed);
        wait(sample.publish(&run.direct())).unwrap();
        let store = Store::open(&run.folder.path().join("store")).unwrap();
        let catalog = run.catalog();
        let repository = Reference {
            digest: Some(sample.image.digest()),
            ..catalog.place().image("sample")
        };
        let pulled = wait(async {
            let manifest = catalog.registry().manifest(&repository).await?;
            for layer in &sample.image.layers {
                let blob = Descriptor::new(&layer.media_type, layer.digest, layer.size);
                let registry = catalog.registry();
                registry.blob(&repository, &blob, &store, &Silent).await?;
            }
            Ok::<_, RegistryError>(manifest)
        });
        if let Some(manifest) = run.ended(pulled) {
            assert_eq!(manifest, sample.image.manifest.as_bytes());
        }
        // What is in the store is what its name says, however it ended.
        for layer in &sample.image.layers {
            if let Some(path) = store.blob(&layer.digest) {
                let found = Digest::of(std::fs::read(path).unwrap());
                assert_eq!(found, layer.digest, "{}", run.when());
            }
        }
    });
    storm.finish(READS);
}
