//! Properties over many requests and documents.

use std::collections::BTreeMap;

use imagewright::digest::Digest;
use imagewright::identity::*;
use imagewright::manifest::{ImageRequest, Root};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::canonical;
use crate::keys::{Case, full};

/// Puts a list into an order that `seed` decides and repeats some of it.
fn stir<T: Clone>(list: &mut Vec<T>, seed: &mut u64) {
    let mut next = |below: usize| {
        *seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((*seed >> 33) as usize) % below.max(1)
    };
    if let Some(again) = list.get(next(list.len())).cloned() {
        list.push(again);
    }
    for at in (1..list.len()).rev() {
        list.swap(at, next(at + 1));
    }
}

/// Stirs every list whose order and repetitions mean nothing.
fn stirred(case: &Case, mut seed: u64) -> Case {
    let mut case = case.clone();
    let ImageRequest {
        root,
        os,
        pip,
        constraints,
        overrides,
        files,
        fetches,
        ..
    } = &mut case.image;
    stir(os, &mut seed);
    stir(pip, &mut seed);
    stir(constraints, &mut seed);
    stir(overrides, &mut seed);
    stir(files, &mut seed);
    stir(fetches, &mut seed);
    for requirement in pip {
        stir(&mut requirement.value.hashes, &mut seed);
    }
    if let Root::Debian(debian) = root {
        stir(&mut debian.components, &mut seed);
        stir(&mut debian.os, &mut seed);
    }
    case
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{0,3}",
        any::<String>(),
        "[\\x00-\\x1f\"\\\\/\u{7f}\u{fb33}\u{1f600}]{0,4}"
    ]
}

fn map() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(text(), text(), 0..4)
}

fn config() -> impl Strategy<Value = ConfigDocument> {
    let list = || prop::option::of(prop::collection::vec(text(), 1..3));
    (
        map(),
        any::<u32>(),
        prop::option::of(text()),
        list(),
        list(),
        map(),
        map(),
    )
        .prop_map(
            |(env, uid, workdir, entrypoint, cmd, labels, annotations)| ConfigDocument {
                env,
                user: UserDocument {
                    uid,
                    ..UserDocument::default()
                },
                workdir,
                entrypoint,
                cmd,
                labels,
                annotations,
            },
        )
}

fn request() -> impl Strategy<Value = RequestDocument> {
    let os = || {
        let one = (text(), prop::option::of(text()));
        prop::collection::btree_set(
            one.prop_map(|(name, version)| OsDocument { name, version }),
            0..4,
        )
    };
    let pip = || {
        let hashes = prop::collection::btree_set(text(), 0..3);
        let wheel =
            prop::option::of(
                (text(), text()).prop_map(|(file, content)| WheelFileDocument {
                    file,
                    sha256: Digest::of(content),
                }),
            );
        let one = (text(), prop::option::of(text()), wheel, hashes);
        let one = one.prop_map(|(requirement, index, wheel, hashes)| PipDocument {
            requirement,
            index,
            wheel,
            hashes,
        });
        prop::collection::btree_set(one, 0..4)
    };
    (
        os(),
        pip(),
        pip(),
        pip(),
        prop::collection::vec(text(), 0..3),
        prop::option::of(text()),
        config(),
    )
        .prop_map(
            |(os, pip, constraints, overrides, indexes, default_index, config)| RequestDocument {
                os,
                pip,
                constraints,
                overrides,
                indexes,
                default_index,
                config,
                ..crate::documents::plain_request()
            },
        )
}

fn settings() -> ProptestConfig {
    ProptestConfig {
        cases: 128,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(settings())]

    #[test]
    fn order_and_repetition_change_no_key(seed: u64) {
        let case = full();
        let stirred = stirred(&case, seed);
        prop_assert_eq!(case.request(), stirred.request());
        prop_assert_eq!(case.keys(), stirred.keys());
    }

    #[test]
    fn any_document_reads_back_and_every_encoder_agrees(document in request()) {
        let stored = canonical_json(&document);
        let value = serde_json::from_slice(&stored).unwrap();
        let judged = canonical::text(&value);
        prop_assert_eq!(judged.as_bytes(), stored.as_slice());
        prop_assert_eq!(canonical::key(&judged), key(&document).to_string());
        prop_assert_eq!(read::<RequestDocument>(&stored, 1).unwrap(), document);
    }

    #[test]
    fn two_documents_are_equal_exactly_if_their_encodings_are_and_nothing_is_to_explain(
        one in request(), other in request(),
    ) {
        let same = one == other;
        prop_assert_eq!(canonical_json(&one) == canonical_json(&other), same);
        prop_assert_eq!(explain(&one, &other).is_empty(), same);
        prop_assert!(explain(&one, &one.clone()).is_empty());
    }

    #[test]
    fn the_order_of_wheels_and_debs_changes_no_key(names in prop::collection::vec(text(), 1..6), seed: u64) {
        let wheels = |names: &[String]| {
            let wheels = names.iter().map(|name| WheelDocument { name: name.clone(), sha256: Digest::of(name) });
            let debs = names.iter().map(Digest::of);
            (
                key(&LayerDocument::wheels(crate::documents::python(), wheels)),
                key(&LayerDocument::debian("amd64", debs, 0, vec![])),
            )
        };
        let mut mixed = names.clone();
        stir(&mut mixed, &mut { seed });
        prop_assert_eq!(wheels(&names), wheels(&mixed));
    }
}
