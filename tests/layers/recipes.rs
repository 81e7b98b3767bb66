//! A recipe is a blob: streamed, read in ranges, verified; broken ones count as absent.

use std::fs;
use std::io::Read;

use imagewright::digest::Digest;
use imagewright::layer::recipe::Recipe;
use imagewright::layer::{Layer, LayerError};

use crate::support::{DEMO, Demo, Fixture, noise};
use crate::zipper::Zipped;

fn built() -> (Fixture, Layer, Digest) {
    let fixture = Fixture::new();
    let bytes = Demo::new()
        .with(Zipped::deflated("demo/large.bin", &noise(400_000, 1)))
        .with(Zipped::stored("demo/plain.bin", &noise(200_000, 2)))
        .bytes();
    let layer = fixture.build_bytes(DEMO, &bytes).unwrap();
    (fixture, layer, Digest::of(&bytes))
}

#[test]
fn ranges_are_parts_of_the_stream() {
    let (fixture, layer, _) = built();
    let blob = fixture.blob(&layer);
    let recipe = Recipe::load(&fixture.store, &layer.key).unwrap().unwrap();
    let size = blob.len();
    for from in (0..size).step_by(7919).chain([size - 1, size, 9, 10, 11]) {
        for len in [1, 5, 70_000, size] {
            let range = recipe.read_range(&fixture.store, from as u64, len).unwrap();
            assert!(range == blob[from..size.min(from + len)], "{from} {len}");
        }
    }
    assert!(
        recipe
            .read_range(&fixture.store, size as u64 + 5, 10)
            .unwrap()
            .is_empty()
    );
    let mut one_by_one = Vec::new();
    let mut reader = recipe.reader(&fixture.store).unwrap();
    let mut buffer = [0; 4999];
    loop {
        match reader.read(&mut buffer).unwrap() {
            0 => break,
            read => one_by_one.extend_from_slice(&buffer[..read]),
        }
    }
    assert!(one_by_one == blob);
}

#[test]
fn a_recipe_is_small_and_found_again() {
    let (fixture, layer, _) = built();
    let path = fixture.store.recipe_path(&layer.key);
    assert!(fs::metadata(&path).unwrap().len() < layer.size / 20);
    let again = Recipe::load(&fixture.store, &layer.key).unwrap().unwrap();
    assert_eq!(again.layer, layer);
    assert!(
        Recipe::load(&fixture.store, &Digest::of("other"))
            .unwrap()
            .is_none()
    );
}

#[test]
fn broken_recipes_are_removed_and_made_again() {
    let (fixture, layer, wheel) = built();
    let path = fixture.store.recipe_path(&layer.key);
    let good = fs::read(&path).unwrap();
    let foreign = fixture.store.recipe_path(&Digest::of("foreign"));
    fs::write(&foreign, &good).unwrap();
    assert!(
        Recipe::load(&fixture.store, &Digest::of("foreign"))
            .unwrap()
            .is_none()
    );
    assert!(!foreign.exists());
    let mut flipped = good.clone();
    let at = good.len() - 100;
    flipped[at] ^= 1;
    let breakages = [
        Vec::new(),
        good[..good.len() / 2].to_vec(),
        good[..good.len() - 1].to_vec(),
        flipped,
        [b"imagewright recipe 9\n", &good[21..]].concat(),
        [&good[..21], b"x", &good[21..]].concat(),
    ];
    for broken in breakages {
        fs::write(&path, broken).unwrap();
        assert!(Recipe::load(&fixture.store, &layer.key).unwrap().is_none());
        assert!(!path.exists());
        let pin = fixture.add_bytes(
            DEMO,
            &fs::read(fixture.store.artifact_path(&wheel)).unwrap(),
        );
        let again = fixture.build(&[pin], 1).unwrap();
        assert_eq!(again, std::slice::from_ref(&layer));
    }
    assert!(fs::read(&path).unwrap() == good);
}

#[test]
fn what_was_damaged_is_noticed_and_set_aside() {
    let (fixture, layer, _) = built();
    let recipe = Recipe::load(&fixture.store, &layer.key).unwrap().unwrap();
    let path = fixture.store.recipe_path(&layer.key);
    let mut bytes = fs::read(&path).unwrap();
    bytes[60] ^= 1;
    fs::write(&path, bytes).unwrap();
    let mut sink = Vec::new();
    let error = recipe
        .reader(&fixture.store)
        .unwrap()
        .read_to_end(&mut sink)
        .unwrap_err();
    assert!(error.to_string().contains("expected sha256:"), "{error}");
    assert!(!path.exists());

    let (fixture, layer, wheel) = built();
    let recipe = Recipe::load(&fixture.store, &layer.key).unwrap().unwrap();
    let artifact = fixture.store.artifact_path(&wheel);
    let mut bytes = fs::read(&artifact).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&artifact, bytes).unwrap();
    assert!(
        recipe
            .reader(&fixture.store)
            .unwrap()
            .read_to_end(&mut sink)
            .is_err()
    );
    assert!(!artifact.exists());
    let missing = recipe.reader(&fixture.store);
    assert!(matches!(
        missing,
        Err(LayerError::Store(_) | LayerError::MissingWheel { .. })
    ));
}

#[test]
fn a_missing_wheel_is_named() {
    let (fixture, layer, wheel) = built();
    fs::remove_file(fixture.store.artifact_path(&wheel)).unwrap();
    let recipe = Recipe::load(&fixture.store, &layer.key).unwrap().unwrap();
    let error = recipe.reader(&fixture.store).unwrap_err().to_string();
    assert!(
        error.contains(DEMO) && error.contains(&wheel.hex()),
        "{error}"
    );
}
