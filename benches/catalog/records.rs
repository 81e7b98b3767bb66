//! Records as a team's images would have them, made up from a number.

use imagewright::catalog::{BaseRecord, PackageRecord, Record, RecordLayer, RequestRecord};
use imagewright::digest::Digest;

use crate::plain;

/// OS packages of a record.
const OS: u64 = 120;
/// Python packages that are in most images, besides the ones of their own.
const COMMON: u64 = 24;
/// Python packages of which an image has some.
const RARE: u64 = 600;
/// Layers of a record.
const LAYERS: u64 = 14;

/// A small generator of numbers that look random: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

fn digest(kind: &str, number: u64) -> Digest {
    plain::digest(kind, &number.to_string())
}

fn package(name: String, version: String, requested: bool) -> PackageRecord {
    PackageRecord {
        name,
        version,
        requested,
        layer: Some(1),
    }
}

/// Record number `number`: `numpy` is in every one, `even` and `odd` in every other one and together in one of 2000.
pub fn record(number: u64) -> Record {
    let random = &mut Random(number);
    let name = format!("model-{}-v{}", number % 997, number % 16);
    let base = random.below(24);
    Record {
        name: name.clone(),
        repository: "team/ml".into(),
        tags: vec![name],
        python: format!("3.{}.{}", 11 + base % 3, random.below(4)),
        base: BaseRecord {
            name: ["minimal", "tabular", "nlp", "images"][base as usize % 4].into(),
            root: "debian bookworm".into(),
            digest: None,
            request: Some(digest("base", base)),
        },
        requested: RequestRecord {
            pip: vec!["numpy".into(), "even>=1".into()],
            ..RequestRecord::default()
        },
        pip: pip(number, random),
        os: (0..OS)
            .map(|at| {
                let name = format!("lib-of-the-system-{at}");
                let upstream = (at * 7 + base) % 40;
                package(
                    name,
                    format!("2:{}.{upstream}.1-{at}+deb12u{}", at % 9, base % 5),
                    at < 9,
                )
            })
            .collect(),
        layers: (0..LAYERS)
            .map(|at| {
                let layer = if at < 6 { at } else { random.below(5000) };
                RecordLayer {
                    key: Some(digest("layer key", layer)),
                    media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
                    digest: digest("layer", layer),
                    size: 1_000_000 + layer,
                    diff_id: digest("diff", layer),
                    unpacked: 3_000_000 + layer,
                    comment: format!("wheel number {layer}"),
                }
            })
            .collect(),
        git: Some(format!("{:040x}", random.next())),
        pushed_ms: 1_700_000_000_000 + (number * 1000) as i64,
        supersedes: (number > 3988).then(|| digest("image", number - 3988)),
        sbom: Some(digest("sbom", number)),
        ..plain::record(&number.to_string())
    }
}

fn pip(number: u64, random: &mut Random) -> Vec<PackageRecord> {
    let version = |random: &mut Random, versions: u64| {
        let at = random.below(versions);
        format!("{}.{}.{}", 1 + at / 20, at / 4 % 5, at % 4)
    };
    let mut packages = vec![package("numpy".into(), version(random, 40), true)];
    for (name, there) in [
        (
            "even",
            number.is_multiple_of(2) || number.is_multiple_of(1999),
        ),
        ("odd", !number.is_multiple_of(2)),
    ] {
        if there {
            packages.push(package(name.into(), version(random, 8), true));
        }
    }
    packages
        .extend((0..COMMON).map(|at| package(format!("common-{at}"), version(random, 12), false)));
    let first = random.below(RARE);
    packages.extend((0..13).map(|at| {
        let name = format!("rare-{}", (first + at * 37) % RARE);
        package(name, version(random, 30), false)
    }));
    packages
}
