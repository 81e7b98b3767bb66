//! `sign` and `push --sign`: key files, what is signed, what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use imagewright::catalog::{Catalog, LayerStatement, Record, Statement, Trust};
use imagewright::digest::Digest;
use imagewright::manifest::TrustedKey;
use serde_json::Value;

use crate::lab::{self, Lab, Options, PREFIX, Server, client, login_file, wait};
use crate::sample;

const LOGIN: Options = Options {
    login: true,
    delete: true,
};
const IMAGE: &str = r#"image "one" base="small" { pip "alpha"; }"#;

struct Bench {
    server: Server,
    lab: Lab,
    catalog: Catalog,
    _index: crate::index::Server,
}

impl Bench {
    fn new() -> Self {
        let server = Server::docker_registry(LOGIN);
        let index = lab::index();
        let lab = lab::project(server.address(), &index, IMAGE);
        let login = login_file(&lab.path("login"), &[server.address()]);
        let prefix = format!("{}/{PREFIX}", server.address());
        Self {
            catalog: sample::catalog(client(&[login]), &prefix),
            server,
            lab,
            _index: index,
        }
    }

    /// A new key file, and its public key.
    fn key(&self, name: &str) -> (String, TrustedKey) {
        let path = self.lab.path(name).display().to_string();
        let ran = self.lab.run(&["sign", "--new", &path]).expect(0, &[&path]);
        let line = ran.out.lines().find(|line| line.starts_with("trust "));
        let key = line.unwrap().split('"').nth(1).unwrap();
        let key: TrustedKey = key.parse().unwrap();
        let id = format!("signed by {};", key.id());
        assert!(ran.out.contains(&id), "{}", ran.out);
        (path, key)
    }

    /// The records of the image's set as one who trusts `key` sees them, the signed one first.
    fn records(&self, key: &TrustedKey) -> Vec<Record> {
        let set = self.document("record-")["keys"]["set"].clone();
        let set: Digest = set.as_str().unwrap().parse().unwrap();
        wait(self.catalog.images(&set, &[*key])).unwrap().records
    }

    /// Some document below tags that begin so.
    fn document(&self, kind: &str) -> Value {
        let tags = self.server.tags(&format!("{PREFIX}/cache"));
        let (_, digest) = tags.iter().find(|(tag, _)| tag.starts_with(kind)).unwrap();
        let manifest = fs::read(self.server.blob_path(digest)).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let config = manifest["config"]["digest"].as_str().unwrap();
        let bytes = fs::read(self.server.blob_path(&config.parse().unwrap())).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    /// Whether a record and all its layers are believed because of `key`.
    fn is_signed(&self, key: &TrustedKey) -> bool {
        let trust = Trust {
            keys: vec![*key],
            registry: false,
        };
        let records = self.records(key);
        let believed = |record: &&Record| {
            let statement = Statement::of(record);
            trust.belief(&statement, &record.signatures).is_some()
        };
        let Some(record) = records.iter().find(believed) else {
            return false;
        };
        let keys = record.layers.iter().filter_map(|layer| layer.key);
        keys.into_iter().all(|layer| {
            let found = wait(self.catalog.layers(&layer, &[*key])).unwrap().records;
            found.iter().any(|record| {
                let statement = LayerStatement::of(layer, record);
                trust.belief(&statement, &record.signatures).is_some()
            })
        })
    }

    fn tags(&self) -> usize {
        self.server.tags(&format!("{PREFIX}/cache")).len()
    }
}

#[test]
fn a_key_file_is_private_and_never_overwritten() {
    let bench = Bench::new();
    let (path, key) = bench.key("secret");
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    let seed = text
        .trim()
        .strip_prefix("imagewright-ed25519-secret:")
        .unwrap();
    let again = bench.lab.run(&["sign", "--new", &path]);
    again.expect(2, &["exists"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    let json = bench.lab.run(&[
        "sign",
        "--json",
        "--new",
        bench.lab.path("other").to_str().unwrap(),
    ]);
    let document: Value = serde_json::from_str(&json.expect(0, &[]).out).unwrap();
    assert_ne!(document["key"], key.to_string(), "keys are random");
    let told: TrustedKey = document["key"].as_str().unwrap().parse().unwrap();
    assert_eq!(document["id"], told.id());
    let broken = bench.lab.path("broken");
    let before = bench.server.requests().len();
    for (content, word) in [
        (String::new(), "does not begin"),
        (seed.to_owned(), "does not begin"),
        (
            format!("imagewright-ed25519-secret:{}", &seed[4..]),
            "32 bytes",
        ),
        ("x".repeat(100_000), "small file"),
    ] {
        fs::write(&broken, content).unwrap();
        let ran = bench
            .lab
            .run(&["push", "--sign", broken.to_str().unwrap()])
            .expect(2, &[word, "broken", "sign --new"]);
        assert!(!ran.err.contains(&seed[5..20]), "{}", ran.err);
    }
    // The key itself in place of its file.
    for arguments in [
        &["push", "--sign", &text][..],
        &["sign", "--key", text.trim()],
    ] {
        let ran = bench.lab.run(arguments);
        let ran = ran.expect(2, &["instead of the file"]);
        assert!(!ran.err.contains(&seed[5..20]), "{}", ran.err);
    }
    bench
        .lab
        .run(&["push", "--sign", "/nowhere/key"])
        .expect(2, &["/nowhere/key"]);
    assert_eq!(
        bench.server.requests().len(),
        before,
        "it was asked nothing"
    );
    bench.lab.run(&["sign", "one"]).expect(2, &["--key"]);
    bench.lab.run(&["sign"]).expect(2, &["--new"]);
}

#[test]
fn what_is_pushed_is_signed_at_once_or_afterwards() {
    let bench = Bench::new();
    let (path, key) = bench.key("a");
    let (other_path, other) = bench.key("b");
    bench
        .lab
        .run(&["push", "--sign", &path])
        .expect(0, &["signed by", &key.to_string()]);
    assert!(bench.is_signed(&key) && !bench.is_signed(&other));
    let tags = bench.tags();
    let private = bench.lab.run(&["push", "--sign", &path]).expect(0, &[]);
    assert!(!private.err.contains("chmod"), "{}", private.err);
    assert_eq!(bench.tags(), tags, "signed once");
    // A secret that others can read is one no longer.
    for mode in [0o640, 0o604] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        for arguments in [["push", "--sign", &path], ["sign", "--key", &path]] {
            let ran = bench.lab.run(&arguments).expect(0, &["warning: "]);
            let advice = format!("run `chmod 600 {path}`");
            assert_eq!(ran.err.matches(&advice).count(), 1, "{}", ran.err);
        }
    }
    let ran = bench.lab.run(&["sign", "one", "--key", &other_path]);
    ran.expect(0, &["one", "signed"]);
    assert!(bench.is_signed(&key) && bench.is_signed(&other));
    let tags = bench.tags();
    let ran = bench.lab.run(&["sign", "one", "--key", &other_path]);
    ran.expect(0, &["signed before"]);
    assert_eq!(bench.tags(), tags);
    // By the variable, on a push that has nothing else to do.
    let (third_path, third) = bench.key("c");
    let lab = bench.lab.run(&["push", "--dry-run", "--sign", &third_path]);
    lab.expect(0, &[]);
    assert_eq!(bench.tags(), tags);
    bench
        .lab
        .run(&["push", "--sign", &third_path])
        .expect(0, &[]);
    assert!(bench.is_signed(&third));
    bench.server.assert_whole();
    for secret in [path, other_path, third_path] {
        let text = fs::read_to_string(secret).unwrap();
        let seed = text.trim().rsplit(':').next().unwrap();
        assert_nowhere(&bench, seed);
    }
}

/// Neither the registry nor the store nor the project holds it.
#[track_caller]
fn assert_nowhere(bench: &Bench, secret: &str) {
    for folder in [
        bench.server.storage(),
        bench.lab.store(),
        bench.lab.project(),
    ] {
        let files = walkdir::WalkDir::new(folder).into_iter().flatten();
        for entry in files.filter(|entry| entry.file_type().is_file()) {
            let bytes = fs::read(entry.path()).unwrap_or_default();
            let found = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "{}", entry.path().display());
        }
    }
}

#[test]
fn a_signature_of_something_else_is_not_believed() {
    let bench = Bench::new();
    let (path, key) = bench.key("a");
    bench.lab.run(&["push", "--sign", &path]).expect(0, &[]);
    let trust = Trust {
        keys: vec![key],
        registry: false,
    };
    let records = bench.records(&key);
    let signed = records
        .iter()
        .find(|record| !record.signatures.is_empty())
        .unwrap();
    let believed = |record: &Record| {
        let statement = Statement::of(record);
        trust.belief(&statement, &record.signatures).is_some()
    };
    assert!(believed(signed));
    for change in [
        |record: &mut Record| record.digest = Digest::of("another"),
        |record: &mut Record| record.keys.set = Digest::of("another"),
        |record: &mut Record| record.keys.image = Digest::of("another"),
        |record: &mut Record| record.signatures[0].signature.replace_range(..4, "AAAA"),
        |record: &mut Record| record.signatures[0].key = "ed25519:AAAA".into(),
        |record: &mut Record| record.signatures.clear(),
    ] {
        let mut tampered = signed.clone();
        change(&mut tampered);
        assert!(!believed(&tampered), "{tampered:?}");
    }
}

#[test]
fn nobody_signs_what_is_not_known_here() {
    let bench = Bench::new();
    let (path, key) = bench.key("a");
    let sign = ["sign", "one", "--key", &path];
    bench.lab.run(&sign).expect(8, &["not in the lock"]);
    bench.lab.run(&["lock"]).expect(0, &[]);
    bench.lab.run(&sign).expect(8, &["no record", "push"]);
    bench.lab.run(&["push"]).expect(0, &[]);
    // The store is gone, but the lock has the digest.
    fs::remove_dir_all(bench.lab.path("store")).unwrap();
    bench.lab.run(&sign).expect(0, &[]);
    assert!(bench.is_signed(&key));
    // Neither.
    let (path, key) = bench.key("b");
    let sign = ["sign", "one", "--key", &path];
    fs::remove_dir_all(bench.lab.path("store")).unwrap();
    let lock = bench.lab.project().join("imagewright.lock");
    let text = fs::read_to_string(&lock).unwrap();
    let digest = bench.records(&key)[0].digest.to_string();
    let without: String = text
        .lines()
        .filter(|line| !line.contains(&digest))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_ne!(without, text, "the lock has the digest");
    fs::write(&lock, &without).unwrap();
    bench
        .lab
        .run(&sign)
        .expect(7, &["vouches", "--trust-registry", &digest]);
    assert!(!bench.is_signed(&key));
    bench
        .lab
        .run(&["push", "--trust-registry", "--sign", &path])
        .expect(7, &["only what the registry says"]);
    assert!(!bench.is_signed(&key));
    fs::write(&lock, &without).unwrap();
    let ran = bench.lab.run(&[&sign[..], &["--trust-registry"]].concat());
    ran.expect(0, &[]);
    assert!(bench.is_signed(&key));
    // The lock says another digest than the registry.
    let (path, key) = bench.key("c");
    let other = text.replace(&digest, &Digest::of("another").to_string());
    fs::write(&lock, other).unwrap();
    let sign = ["sign", "one", "--trust-registry", "--key", &path];
    bench.lab.run(&sign).expect(7, &[&digest, "two builds"]);
    assert!(!bench.is_signed(&key));
}
