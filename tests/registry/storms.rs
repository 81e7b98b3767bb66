//! Bad weather between client and registry: what is done ends right or with a clear error, nothing partial is ever
//! tagged, and with the sun it is finished.

use std::path::Path;

use imagewright::catalog::publish::Pushed;
use imagewright::catalog::{Catalog, CatalogError, Index, KeyTag};
use imagewright::digest::Digest;
use imagewright::oci::Descriptor;
use imagewright::progress::Silent;
use imagewright::registry::{Reference, RegistryError};
use imagewright::store::Store;

use crate::faults::Weather;
use crate::lab::{self, wait};
use crate::sample::{self, Sample};
use crate::weather::{Run, Storm, client};

const PUSHES: u64 = 192;
/// Of each kind of reading.
const READS: u64 = 64;
/// Layers that one run looks up.
const LOOKS: usize = 12;
/// How often one run pulls an image.
const PULLS: usize = 3;
/// Records of the catalog that is synced.
const RECORDS: u64 = 24;

impl Run<'_> {
    fn repository(&self) -> String {
        format!("storm/{}", self.seed)
    }

    fn catalog(&self) -> Catalog {
        let address = self.proxy.address();
        let registry = client(self.folder.path(), address);
        sample::catalog(registry, &format!("{address}/{}", self.repository()))
    }

    /// Without anything between.
    fn direct(&self) -> Catalog {
        let prefix = format!("{}/{}", self.server.address(), self.repository());
        sample::catalog(lab::client(&[]), &prefix)
    }

    /// All names stand for the sample, and its record is there under all its tags.
    #[track_caller]
    fn assert_published(&self, sample: &Sample, pushed: &Pushed) {
        let tags = self.server.tags(&self.repository());
        let cache = self.server.tags(&format!("{}/cache", self.repository()));
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
    Storm::new().blow(PUSHES, (16, true), |storm, seed| {
        let run = storm.run(seed);
        let sample = Sample::new(seed);
        if let Some(pushed) = run.ended(wait(sample.publish(&run.catalog()))) {
            run.assert_published(&sample, &pushed);
        }
        let below = format!("{}/", run.repository());
        run.assert_whole(&run.repository());
        run.proxy.set(Weather::default());
        let pushed = wait(sample.publish(&run.catalog())).unwrap();
        run.assert_published(&sample, &pushed);
        run.assert_whole(&below);
        let found = wait(run.direct().images(&sample.record.keys.set, &[])).unwrap();
        assert_eq!(found.records.len(), 1, "{}", run.when());
        assert_eq!(
            found.records[0].digest,
            sample.image.digest(),
            "{}",
            run.when()
        );
    });
}

#[test]
fn what_is_looked_up_is_right_or_it_is_said_why_not() {
    Storm::new().blow(READS, (1, false), |storm, seed| {
        let run = storm.run_of_single_requests(seed);
        let sample = Sample::new(seed);
        wait(sample.publish(&run.direct())).unwrap();
        let keys = &sample.record.keys;
        let looked_up = wait(async {
            let catalog = run.catalog();
            let images = catalog.images(&keys.set, &[]).await?;
            let mut layers = Vec::new();
            for layer in sample.image.layers[1..].iter().cycle().take(LOOKS) {
                layers.push((layer, catalog.layers(&layer.key, &[]).await?));
            }
            Ok::<_, CatalogError>((images, layers))
        });
        let looked_up = looked_up.and_then(|(images, mut layers)| {
            let refused = layers.iter_mut().flat_map(|(_, found)| found.refused.pop());
            match refused.chain(images.refused).next() {
                Some(error) => Err(error),
                None => Ok((images.records, layers)),
            }
        });
        let Some((images, layers)) = run.ended(looked_up) else {
            return;
        };
        let when = run.when();
        assert_eq!(images.len(), 1, "{when}");
        assert_eq!(images[0].digest, sample.image.digest(), "{when}");
        for (layer, found) in layers {
            assert_eq!(found.records.len(), 1, "{when}");
            assert_eq!(found.records[0].layer.digest, layer.digest, "{when}");
        }
    });
}

#[test]
fn what_is_pulled_is_right_or_it_is_said_why_not() {
    Storm::new().blow(READS, (1, false), |storm, seed| {
        let run = storm.run_of_single_requests(seed);
        let sample = Sample::new(seed);
        wait(sample.publish(&run.direct())).unwrap();
        let stores: Vec<Store> = (0..PULLS)
            .map(|number| run.folder.path().join(number.to_string()))
            .map(|folder| Store::open(&folder).unwrap())
            .collect();
        let pulled = wait(async {
            let catalog = run.catalog();
            let registry = catalog.registry();
            let repository = Reference {
                digest: Some(sample.image.digest()),
                ..catalog.place().image("sample")
            };
            for store in &stores {
                let manifest = registry.manifest(&repository).await?;
                assert_eq!(manifest, sample.image.manifest.as_bytes());
                for layer in &sample.image.layers {
                    let blob = Descriptor::new(&layer.media_type, layer.digest, layer.size);
                    registry.blob(&repository, &blob, store, &Silent).await?;
                    assert!(store.blob(&layer.digest).is_some());
                }
            }
            Ok::<_, RegistryError>(())
        });
        run.ended(pulled);
        // What is in the stores is what its name says, however it ended.
        for (store, layer) in stores
            .iter()
            .flat_map(|store| sample.image.layers.iter().map(move |layer| (store, layer)))
        {
            if let Some(path) = store.blob(&layer.digest) {
                let found = Digest::of(std::fs::read(path).unwrap());
                assert_eq!(found, layer.digest, "{}", run.when());
            }
        }
    });
}

#[test]
fn a_sync_brings_every_record_at_the_latest_when_the_weather_is_good() {
    let storm = Storm::new();
    let catalog = |address: &str, folder: &Path| {
        sample::catalog(client(folder, address), &format!("{address}/storm"))
    };
    for server in storm.servers() {
        let direct = tempfile::tempdir().unwrap();
        let direct = catalog(server.address(), direct.path());
        for seed in 1..=RECORDS {
            wait(Sample::new(seed).publish(&direct)).unwrap();
        }
    }
    storm.blow(READS, (1, false), move |storm, seed| {
        let run = storm.run(seed);
        let store = Store::open(&run.folder.path().join("store")).unwrap();
        let catalog = catalog(run.proxy.address(), run.folder.path());
        let index = Index::open(&store).unwrap();
        match wait(catalog.sync(&index, &Silent)) {
            // What did not come across as it is is told, and asked for again.
            Ok(synced) if !synced.refused.is_empty() => {
                run.count(Some(synced.refused[0].1.clone()))
            }
            Ok(synced) => {
                let unanswered = synced.unanswered.map_or(Ok(()), Err);
                run.ended(unanswered);
            }
            Err(error) => {
                run.ended(Err::<(), _>(error));
            }
        }
        run.proxy.set(Weather::default());
        wait(catalog.sync(&index, &Silent)).unwrap();
        let seen = index.seen(&catalog.source()).unwrap().len() as u64;
        let refused = index.refused(&catalog.source()).unwrap();
        assert_eq!((seen, refused), (RECORDS, Vec::new()), "{}", run.when());
    });
}
