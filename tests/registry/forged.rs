//! Locks that somebody has changed beside the records of images.

use base64::Engine as _;
use imagewright::digest::Digest;
use serde_json::{Value, json};

use crate::lab::{self, PREFIX, Server};
use crate::reuse::{FRAUD, assert_pins, delete, later_index, lock_text, pushed};

/// A record and its lock, changed and put beside the true one as if it were newer.
struct Forged {
    record: Value,
    lock: String,
    media_type: &'static str,
    /// Added to the size that the record tells.
    more: usize,
    without_blob: bool,
}

type Change = fn(&mut Forged);

/// What a registry is asked without our client.
struct Raw<'a> {
    client: reqwest::Client,
    server: &'a Server,
}

impl Raw<'_> {
    fn url(&self, rest: &str) -> String {
        format!("http://{}/v2/{PREFIX}/cache/{rest}", self.server.address())
    }

    async fn get(&self, rest: &str) -> Vec<u8> {
        let request = self.client.get(self.url(rest));
        let answer = request
            .header("Accept", IMAGE_MANIFEST)
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{rest}");
        answer.bytes().await.unwrap().to_vec()
    }

    async fn put_blob(&self, content: &[u8]) {
        let begun = self
            .client
            .post(self.url("blobs/uploads/"))
            .send()
            .await
            .unwrap();
        let place = begun.headers()["Location"].to_str().unwrap();
        let url = format!("{place}&digest={}", Digest::of(content));
        let done = self
            .client
            .put(url)
            .body(content.to_vec())
            .send()
            .await
            .unwrap();
        assert!(done.status().is_success());
    }

    async fn put_manifest(&self, tag: &str, manifest: &Value) {
        let url = self.url(&format!("manifests/{tag}"));
        let request = self.client.put(url).header("Content-Type", IMAGE_MANIFEST);
        let done = request.body(manifest.to_string()).send().await.unwrap();
        assert!(done.status().is_success());
    }
}

const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const BASE64: base64::engine::GeneralPurpose = base64::engine::general_purpose::STANDARD;

/// Puts the changed record into the registry, newer than the one in it.
async fn forge(server: &Server, record_tag: &str, change: Change) {
    let raw = Raw {
        client: reqwest::Client::new(),
        server,
    };
    let manifest = raw.get(&format!("manifests/{record_tag}")).await;
    let mut manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let document = BASE64
        .decode(manifest["config"]["data"].as_str().unwrap())
        .unwrap();
    let record: Value = serde_json::from_slice(&document).unwrap();
    let lock = record["lock"]["digest"].as_str().unwrap();
    let lock = raw.get(&format!("blobs/{lock}")).await;
    let mut forged = Forged {
        record,
        lock: String::from_utf8(lock).unwrap(),
        media_type: "application/vnd.imagewright.lock.v1+kdl",
        more: 0,
        without_blob: false,
    };
    let pushed = forged.record["pushed_ms"].as_i64().unwrap();
    forged.record["pushed_ms"] = (pushed + 1000).into();
    forged.record["name"] = "forged".into();
    forged.lock = forged.lock.replace("image \"fraud\"", "image \"forged\"");
    change(&mut forged);
    if !forged.without_blob {
        raw.put_blob(forged.lock.as_bytes()).await;
    }
    forged.record["lock"] = json!({
        "mediaType": forged.media_type, "digest": Digest::of(&forged.lock),
        "size": forged.lock.len() + forged.more,
    });
    let document = forged.record.to_string().into_bytes();
    raw.put_blob(&document).await;
    let digest = Digest::of(&document);
    manifest["config"]["digest"] = digest.to_string().into();
    manifest["config"]["size"] = document.len().into();
    manifest["config"]["data"] = BASE64.encode(&document).into();
    manifest["layers"] = json!([manifest["config"].clone()]);
    raw.put_manifest(&format!("record-{}", digest.hex()), &manifest)
        .await;
}

/// Replaces a piece of the lock, which must be there.
fn swap(forged: &mut Forged, old: &str, new: &str) {
    assert!(forged.lock.contains(old), "{}", forged.lock);
    forged.lock = forged.lock.replace(old, new);
}

#[test]
fn a_forged_lock_is_passed_over_and_the_next_image_taken() {
    let (server, _colleague) = pushed(FRAUD, &[]);
    let index = later_index();
    let cache = format!("{PREFIX}/cache");
    let tags = server.tags(&cache);
    let mut tags = tags.iter().filter(|(tag, _)| tag.starts_with("record-"));
    let record = tags.next().unwrap().0.clone();
    let cases: [(&str, Change); 12] = [
        ("not the text that imagewright writes", |forged| {
            swap(forged, "\nimage ", "\n/* */ image ");
        }),
        ("not the text that imagewright writes", |forged| {
            forged.lock.push_str(&"a {\n".repeat(100_000));
        }),
        ("its media type is another", |forged| {
            forged.media_type = "text/plain"
        }),
        ("more than", |forged| forged.more = 8 << 20),
        ("blob", |forged| forged.more = 1),
        ("blob", |forged| {
            swap(forged, "emitter=1", "emitter=2");
            forged.without_blob = true;
        }),
        ("lock of other", |forged| {
            swap(forged, "image \"forged\"", "image \"other\"")
        }),
        (
            "its Python packages and the record's are not the same",
            |forged| {
                swap(forged, "beta-2.0", "beta-2.1");
            },
        ),
        ("its Python and the record's are not the same", |forged| {
            let python = forged.record["python"].as_str().unwrap().to_owned();
            swap(forged, &format!("full=\"{python}\""), "full=\"3.99.9\"");
        }),
        ("its request and the record's are not the same", |forged| {
            let request = forged.record["keys"]["request"]
                .as_str()
                .unwrap()
                .to_owned();
            swap(forged, &request, &Digest::of("other").to_string());
        }),
        (
            "from https://files.example.com/x, which the manifest does not name",
            |forged| {
                let at = forged.lock.find("\nwheel \"beta").unwrap() + 1;
                let end = at + forged.lock[at..].find('\n').unwrap();
                forged
                    .lock
                    .insert_str(end, " url=\"https://files.example.com/x\"");
            },
        ),
        ("which the manifest does not declare for it", |forged| {
            let at = forged.lock.find("\nwheel \"beta").unwrap() + 1;
            let end = at + forged.lock[at..].find('\n').unwrap();
            forged
                .lock
                .insert_str(end, " index=\"https://packages.example.com/simple\"");
        }),
    ];
    for (word, change) in cases {
        let before = server.tags(&cache);
        lab::wait(forge(&server, &record, change));
        let lab = lab::project(server.address(), &index, &FRAUD.replace("fraud", "mine"));
        for trust in [&[][..], &["--trust-registry"]] {
            let arguments = [&["lock", "--reuse"], trust].concat();
            lab.run(&arguments).expect(
                0,
                &["the image forged (", "is passed over", word, "as fraud ("],
            );
            assert_pins(&lab, &["alpha-1.0", "beta-2.0"]);
            std::fs::remove_file(lab.project().join("imagewright.lock")).unwrap();
        }
        for (tag, digest) in server.tags(&cache) {
            if !before.iter().any(|(known, _)| *known == tag) {
                delete(&server, &format!("/v2/{cache}/manifests/{digest}"));
            }
        }
    }
}

#[test]
fn a_forged_hash_is_no_file() {
    let (server, _colleague) = pushed(FRAUD, &[]);
    let tags = server.tags(&format!("{PREFIX}/cache"));
    let mut tags = tags.iter().filter(|(tag, _)| tag.starts_with("record-"));
    let change: Change = |forged| {
        let (name, hash) = (
            "wheel \"beta-2.0-py3-none-any.whl\" sha256=\"",
            "a".repeat(64),
        );
        let at = forged.lock.find(name).unwrap() + name.len();
        forged.lock.replace_range(at..at + 64, &hash);
    };
    lab::wait(forge(&server, &tags.next().unwrap().0, change));
    let lab = lab::project(
        server.address(),
        &later_index(),
        &FRAUD.replace("fraud", "mine"),
    );
    // Whoever is not trusted says versions only; the index says which files they are.
    lab.run(&["lock", "--reuse"]).expect(0, &["as forged ("]);
    let text = lock_text(&lab);
    assert!(!text.contains(&"a".repeat(64)), "{text}");
    lab.run(&["build"]).expect(0, &[]);
    // Whoever trusts the registry gets what it says, and no file that has this hash.
    std::fs::remove_file(lab.project().join("imagewright.lock")).unwrap();
    lab.run(&["lock", "--reuse", "--trust-registry"])
        .expect(0, &["as forged ("]);
    assert!(lock_text(&lab).contains(&"a".repeat(64)));
    let fresh = lab::project(
        server.address(),
        &later_index(),
        &FRAUD.replace("fraud", "mine"),
    );
    fresh.write("imagewright.lock", lock_text(&lab));
    let ran = fresh.run(&["build", "--locked", "--no-substitute"]);
    assert_ne!(ran.code, Some(0), "{ran:?}");
}
