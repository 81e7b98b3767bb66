//! The set key: the same for everybody who pins the same artifacts, another one for everything that decides an image.

use std::collections::BTreeMap;

use imagewright::digest::Digest;
use imagewright::identity::{FileDocument, SetDocument, key};
use imagewright::lock::*;
use imagewright::manifest::*;

use crate::keys::{full, spanned};

/// A request and what a lock pins for it.
#[derive(Clone)]
struct Case {
    image: ImageRequest,
    platform: Platform,
    lock: Lock,
    locked: LockedImage,
    files: BTreeMap<String, FileDocument>,
}

const WHEEL: &str = "numpy-1.26.4-cp311-cp311-manylinux_2_17_x86_64.whl";

fn deb(package: &str) -> LockedDeb {
    LockedDeb {
        package: package.into(),
        version: "1".into(),
        architecture: "amd64".into(),
        sha256: Digest::of(package),
        size: 1,
        path: format!("pool/{package}.deb"),
        suite: "bookworm".into(),
    }
}

fn case() -> Case {
    let mut lock = Lock::default();
    for package in ["libc6", "vim"] {
        lock.debs.insert(format!("{package}_1_amd64"), deb(package));
    }
    let wheel = LockedWheel {
        name: "numpy".into(),
        version: "1.26.4".into(),
        sha256: Digest::of("numpy"),
        size: None,
        origin: WheelOrigin::DefaultIndex,
    };
    lock.wheels.insert(WHEEL.into(), wheel);
    let request = full();
    Case {
        files: request.content().files,
        image: request.image,
        platform: Platform::LinuxAmd64,
        locked: LockedImage {
            request: Digest::of("request"),
            base: LockedBase::Debian {
                suite: "bookworm".into(),
                mirror: None,
                epoch: 7,
                request: Digest::of("base"),
                debs: vec!["libc6_1_amd64".into()],
                diff_id: None,
            },
            python: LockedPython {
                path: "/usr/bin/python3.11".into(),
                minor: PythonMinor {
                    major: 3,
                    minor: 11,
                },
                full: "3.11.2".into(),
                glibc: (2, 36),
            },
            wheels: vec![WHEEL.into()],
            debs: vec!["vim_1_amd64".into()],
            os_request: None,
            os_diff_id: None,
            digest: None,
        },
        lock,
    }
}

impl Case {
    fn key(&self) -> Digest {
        let Self {
            image,
            platform,
            lock,
            locked,
            files,
        } = self;
        key(&SetDocument::new(image, *platform, lock, locked, files))
    }
}

type Change = (&'static str, fn(&mut Case));

fn wheel(case: &mut Case) -> &mut LockedWheel {
    case.lock.wheels.get_mut(WHEEL).unwrap()
}

/// What two people may write differently and still mean the same image.
const SAME: &[Change] = &[
    ("the image's name", |c| c.image.name.value = "two".into()),
    ("its tags", |c| c.image.tags = vec![spanned("x".into())]),
    ("the base's name", |c| c.image.base = "x".into()),
    ("requirements", |c| c.image.pip.clear()),
    ("OS requirements", |c| c.image.os.clear()),
    ("constraints", |c| c.image.constraints.clear()),
    ("indexes", |c| c.image.indexes.clear()),
    ("the instant", |c| c.image.exclude_newer = None),
    ("the request key", |c| c.locked.request = Digest::of("x")),
    ("where a wheel comes from", |c| {
        wheel(c).origin = WheelOrigin::Index("https://x.example.com".into());
    }),
    ("a wheel's size", |c| wheel(c).size = Some(5)),
    ("a wheel twice", |c| c.locked.wheels.push(WHEEL.into())),
    ("where a deb comes from", |c| {
        c.lock.debs.get_mut("vim_1_amd64").unwrap().path = "pool/x".into();
    }),
    ("the base's request and mirror, and what was learned", |c| {
        if let LockedBase::Debian {
            mirror,
            request,
            diff_id,
            ..
        } = &mut c.locked.base
        {
            *mirror = Some("https://deb.example.com".into());
            *request = Digest::of("x");
            *diff_id = Some(Digest::of("x"));
        }
        c.locked.os_diff_id = Some(Digest::of("x"));
        c.locked.digest = Some(Digest::of("x"));
    }),
    ("a wheel of another image", |c| {
        let mut other = wheel(c).clone();
        other.sha256 = Digest::of("other");
        c.lock
            .wheels
            .insert("other-1-py3-none-any.whl".into(), other);
    }),
    ("the URL of a download", |c| {
        c.image.fetches[0].value.url = "https://x.example.com/".into();
    }),
    ("glibc, which chose the wheels", |c| {
        c.locked.python.glibc = (2, 40)
    }),
];

const OTHER: &[Change] = &[
    ("the platform", |c| c.platform = Platform::LinuxArm64),
    ("a wheel's bytes", |c| wheel(c).sha256 = Digest::of("x")),
    ("no wheel", |c| c.locked.wheels.clear()),
    ("a deb's bytes", |c| {
        c.lock.debs.get_mut("vim_1_amd64").unwrap().sha256 = Digest::of("x");
    }),
    ("a deb of the base", |c| {
        c.lock.debs.get_mut("libc6_1_amd64").unwrap().sha256 = Digest::of("x");
    }),
    ("a deb that moves into the base", |c| {
        let moved = std::mem::take(&mut c.locked.debs);
        if let LockedBase::Debian { debs, .. } = &mut c.locked.base {
            debs.extend(moved);
        }
    }),
    ("the epoch", |c| {
        if let LockedBase::Debian { epoch, .. } = &mut c.locked.base {
            *epoch = 8;
        }
    }),
    ("the base", |c| {
        c.locked.base = LockedBase::From {
            reference: "oci:base".into(),
            digest: Digest::of("base"),
        };
    }),
    ("the interpreter's path", |c| {
        c.locked.python.path = "/x".into()
    }),
    ("its version", |c| c.locked.python.full = "3.11.9".into()),
    ("a file", |c| drop(c.files.pop_first())),
    ("a download", |c| {
        c.image.fetches[0].value.sha256 = Digest::of("x")
    }),
    ("its path", |c| c.image.fetches[0].value.to = "/x".into()),
    ("its mode", |c| c.image.fetches[0].value.mode = Some(0o600)),
    ("the environment", |c| c.image.config.env.clear()),
    ("the user", |c| {
        c.image.config.user = Some(User {
            uid: 5,
            ..User::default()
        });
    }),
    ("labels", |c| c.image.config.labels.clear()),
    ("annotations", |c| c.image.config.annotations.clear()),
    ("the command", |c| {
        c.image.config.cmd = Some(vec!["x".into()])
    }),
];

#[test]
fn who_pins_the_same_artifacts_has_the_same_set_key() {
    for (what, change) in SAME {
        let mut changed = case();
        change(&mut changed);
        assert_eq!(changed.key(), case().key(), "{what}");
    }
}

#[test]
fn everything_that_decides_the_image_changes_the_set_key() {
    let mut seen = vec![case().key()];
    for (what, change) in OTHER {
        let mut changed = case();
        change(&mut changed);
        assert!(!seen.contains(&changed.key()), "{what}");
        seen.push(changed.key());
    }
}
