//! Locks made from what a registry has: pins of an image that satisfies the manifest, and versions that images have.

use std::collections::BTreeMap;

use base64::Engine as _;
use imagewright::catalog::SecretKey;
use imagewright::digest::Digest;
use serde_json::{Value, json};

use crate::index;
use crate::lab::{self, Lab, Options, PREFIX, Ran, Server};
use crate::wares;

const OPEN: Options = Options {
    login: false,
    delete: true,
};

/// The same packages as at the time of the push, and newer ones.
fn later_index() -> index::Server {
    index_of(&[
        wares::wheel("alpha", "1.0", &["beta"], 60, 2_000),
        wares::wheel("alpha", "1.1", &["beta"], 3, 100),
        wares::wheel("beta", "2.0", &[], 4, 300_000),
        wares::wheel("beta", "2.1", &[], 3, 100),
        wares::wheel("gamma", "3.0", &["beta", "delta"], 200, 1_000),
        wares::wheel("gamma", "3.1", &["beta", "delta"], 3, 100),
        wares::wheel("delta", "0.1", &[], 2, 100),
        wares::wheel("delta", "0.2", &[], 3, 100),
    ])
}

/// An index whose projects have several files.
fn index_of(wheels: &[(String, Vec<u8>)]) -> index::Server {
    let index = index::Server::with(wheels);
    let mut pages = BTreeMap::<&str, String>::new();
    for (file, bytes) in wheels {
        let page = pages.entry(file.split('-').next().unwrap()).or_default();
        let hash = wares::sha256(bytes);
        *page += &format!("<a href=\"/files/{file}#sha256={hash}\">{file}</a>\n");
    }
    for (project, page) in pages {
        let page = index::Page::new("text/html", format!("<!DOCTYPE html><html><body>{page}"));
        index.put(&format!("/simple/{project}/"), page);
    }
    index
}

const FRAUD: &str = "image \"fraud\" base=\"small\" { pip \"alpha\"; }";

/// A registry to which a colleague has pushed these images, and what that colleague has.
fn pushed(images: &str, arguments: &[&str]) -> (Server, Lab) {
    let server = Server::docker_registry(OPEN);
    let index = lab::index();
    let colleague = lab::project(server.address(), &index, images);
    colleague
        .run(&[&["push"], arguments].concat())
        .expect(0, &[]);
    (server, colleague)
}

fn lock_text(lab: &Lab) -> String {
    std::fs::read_to_string(lab.project().join("imagewright.lock")).unwrap()
}

#[track_caller]
fn assert_pins(lab: &Lab, wheels: &[&str]) {
    let text = lock_text(lab);
    let pinned: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("wheel \"")?.split("-py3").next())
        .collect();
    assert_eq!(pinned, wheels, "{text}");
}

fn contribution(ran: &Ran) -> Value {
    let document: Value = serde_json::from_str(&ran.out).unwrap();
    document["images"][0]["catalog"].clone()
}

#[test]
fn versions_of_an_image_that_satisfies_are_followed_and_stay() {
    let (server, _colleague) = pushed(FRAUD, &[]);
    let index = later_index();
    let mine = "image \"mine\" base=\"small\" { pip \"alpha\" \">=1\"; env \"A\" \"b\"; }";
    let lab = lab::project(server.address(), &index, mine);
    lab.run(&["lock"]).expect(0, &[]);
    assert_pins(&lab, &["alpha-1.1", "beta-2.1"]);
    std::fs::remove_file(lab.project().join("imagewright.lock")).unwrap();

    let words = [
        "as fraud (",
        "has everything that is asked for",
        "versions are followed",
        "not looked at: configuration",
    ];
    lab.run(&["lock", "--reuse"]).expect(0, &words);
    assert_pins(&lab, &["alpha-1.0", "beta-2.0"]);
    let text = lock_text(&lab);
    assert!(!text.contains("digest \""), "nobody vouches for it: {text}");
    // From now on the lock decides.
    lab.run(&["lock"]).expect(0, &["is up to date"]);
    lab.run(&["lock", "--reuse"]).expect(0, &["is up to date"]);
    assert_eq!(lock_text(&lab), text);

    // What the index does not list any more cannot be followed, and is told.
    std::fs::remove_file(lab.project().join("imagewright.lock")).unwrap();
    let newer = index::Server::with(&[
        wares::wheel("alpha", "1.0", &["beta"], 60, 2_000),
        wares::wheel("beta", "2.1", &[], 3, 100),
    ]);
    let lab = lab.env("PIP_INDEX_URL", &newer.index());
    lab.run(&["lock", "--reuse"])
        .expect(0, &["but pip beta 2.1, not 2.0"]);
    assert_pins(&lab, &["alpha-1.0", "beta-2.1"]);
}

#[test]
fn pins_of_a_trusted_registry_are_taken_without_an_index() {
    let (server, colleague) = pushed(FRAUD, &[]);
    let digest = colleague.build().remove(0);
    let theirs = lock_text(&colleague);
    for (mine, same) in [
        (FRAUD.replace("fraud", "mine"), true),
        (
            "image \"mine\" base=\"small\" { pip \"beta\"; env \"A\" \"b\"; }".into(),
            false,
        ),
    ] {
        let lab = lab::colleague(&colleague, server.address());
        lab.write("imagewright.kdl", lab::manifest(server.address(), &mine));
        std::fs::remove_file(lab.project().join("imagewright.lock")).unwrap();
        // Without trust somebody else must know the files, and there is nobody.
        lab.run(&["lock", "--reuse"])
            .expect(4, &["is passed over: its versions cannot be had"]);
        let ran = lab
            .run(&["lock", "--reuse", "--trust-registry", "--json"])
            .expect(0, &[]);
        let told = contribution(&ran);
        let reused = &told["reused"];
        assert_eq!(reused["name"], "fraud");
        assert_eq!(reused["digest"], digest.as_str());
        assert_eq!(
            reused["repository"],
            format!("{}/{PREFIX}", server.address())
        );
        assert_eq!(reused["believed"], "--trust-registry");
        assert_eq!(reused["differs"], json!([]));
        assert_eq!(reused["why"] == "same-request", same);
        // `beta` brings `alpha` along: that is the image.
        assert_pins(&lab, &["alpha-1.0", "beta-2.0"]);
        let text = lock_text(&lab);
        let kept = format!("digest \"{digest}\"");
        assert_eq!(
            text.contains(&kept),
            same,
            "another configuration is another image: {text}"
        );
        let wheels = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| line.starts_with("wheel"));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(wheels(&text), wheels(&theirs));
        lab.run(&["lock", "--locked"]).expect(0, &[]);
    }
}

#[test]
fn a_trusted_signature_is_enough_and_another_is_not() {
    let keys: Vec<SecretKey> = (0..2).map(|_| SecretKey::generate().unwrap()).collect();
    let server = Server::docker_registry(OPEN);
    let colleague = lab::project(server.address(), &lab::index(), FRAUD);
    let file = colleague.path("key");
    std::fs::write(&file, keys[0].to_text()).unwrap();
    colleague
        .run(&["push", "--sign", file.to_str().unwrap()])
        .expect(0, &[]);
    for (key, believed) in [(&keys[0], true), (&keys[1], false)] {
        let lab = lab::project(server.address(), &later_index(), "");
        let manifest = lab::manifest(server.address(), &FRAUD.replace("fraud", "mine"));
        lab.write(
            "imagewright.kdl",
            format!("trust \"{}\"\n{manifest}", key.public()),
        );
        let ran = lab.run(&["lock", "--reuse", "--json"]).expect(0, &[]);
        let told = contribution(&ran)["reused"]["believed"].clone();
        match believed {
            true => assert_eq!(told, format!("the key {}", key.public().id())),
            false => assert_eq!(told, Value::Null),
        }
        assert_pins(&lab, &["alpha-1.0", "beta-2.0"]);
        assert_eq!(lock_text(&lab).contains("digest \"sha256"), believed);
    }
}

#[test]
fn a_signer_vouches_for_no_lock_but_the_own_one() {
    let key = SecretKey::generate().unwrap();
    let (server, colleague) = pushed(FRAUD, &[]);
    colleague.build();
    let mine = FRAUD.replace("fraud", "mine");
    let renamed = lab::project(server.address(), &lab::index(), &mine);
    renamed
        .run(&["lock", "--reuse", "--trust-registry"])
        .expect(0, &[]);
    let reader = lab::project(server.address(), &later_index(), "");
    let manifest = lab::manifest(server.address(), &mine);
    reader.write(
        "imagewright.kdl",
        format!("trust \"{}\"\n{manifest}", key.public()),
    );
    // The second one vouches for the lock too, though the key has signed the image before.
    for (signer, name, believed) in [(&renamed, "mine", false), (&colleague, "fraud", true)] {
        let file = signer.path("key");
        std::fs::write(&file, key.to_text()).unwrap();
        let file = file.to_str().unwrap();
        for done in ["signed in", "signed before in"] {
            signer
                .run(&["sign", name, "--key", file])
                .expect(0, &[done]);
        }
        let ran = reader.run(&["lock", "--reuse", "--json"]).expect(0, &[]);
        let told = contribution(&ran)["reused"]["believed"].clone();
        assert_eq!(told.is_string(), believed, "{name}");
        assert_pins(&reader, &["alpha-1.0", "beta-2.0"]);
        std::fs::remove_file(reader.project().join("imagewright.lock")).unwrap();
    }
}

#[test]
fn what_does_not_satisfy_is_told_and_the_lock_is_made_without() {
    let (server, _colleague) = pushed(FRAUD, &[]);
    let wants = |lines: &str| {
        let image = format!("image \"mine\" base=\"small\" {{ {lines} }}");
        lab::project(server.address(), &later_index(), &image)
    };
    for (lines, reason) in [
        ("pip \"beta\" \">2\"", "beta>2: it has 2.0"),
        ("pip \"delta\"", "delta: it has no delta"),
        (
            "pip \"alpha[x]\"",
            "alpha[x]: it was not asked for alpha[x]",
        ),
        ("os \"jq\"", "OS package jq: it is not known to be there"),
    ] {
        let lab = wants(lines);
        let ran = lab.run(&["lock", "--reuse"]);
        if lines.starts_with("os") {
            // This base has no dpkg; the sentence is about that.
            ran.expect(2, &[]);
            continue;
        }
        ran.expect(0, &["fraud (", "comes closest:", reason]);
    }
    let lab = wants("pip \"beta\" \">2\"");
    let ran = lab.run(&["lock", "--reuse", "--json"]).expect(0, &[]);
    let told = contribution(&ran);
    assert_eq!(told["closest"]["reasons"], json!(["beta>2: it has 2.0"]));
    assert_eq!(told["reused"], Value::Null);

    // An image that is gone is not taken.
    let lab = wants("pip \"alpha\"");
    let tags = server.tags(PREFIX);
    let (_, digest) = tags.iter().find(|(tag, _)| tag == "fraud").unwrap();
    let path = format!("/v2/{PREFIX}/manifests/{digest}");
    delete(&server, &path);
    lab.run(&["lock", "--reuse"])
        .expect(0, &["is passed over: it is not in the registry any more"]);
    assert_pins(&lab, &["alpha-1.1", "beta-2.1"]);
}

fn delete(server: &Server, path: &str) {
    let url = format!("http://{}{path}", server.address());
    let answer = lab::wait(reqwest::Client::new().delete(url).send());
    assert!(answer.unwrap().status().is_success());
}

#[test]
fn without_the_registry_it_is_as_without_the_flag() {
    let (server, _colleague) = pushed(FRAUD, &[]);
    let address = server.address().to_owned();
    let lab = lab::project(&address, &later_index(), FRAUD);
    lab.run(&["lock", "--reuse", "--offline"])
        .expect(4, &["is not asked, because of --offline"]);
    drop(server);
    lab.run(&["lock", "--reuse", "--prefer-catalog"])
        .expect(0, &["made without the registry", &address]);
    assert_pins(&lab, &["alpha-1.1", "beta-2.1"]);

    for (arguments, word) in [
        (&["--reuse", "--locked"][..], "contradict"),
        (&["--prefer-catalog", "--locked"], "contradict"),
        (&["--reuse", "--upgrade"], "contradict"),
        (&["--reuse", "--upgrade", "beta"], "contradict"),
        (&["--prefer-catalog", "--upgrade"], "contradict"),
        (&["--trust-registry"], "--reuse"),
    ] {
        lab.run(&[&["lock"], arguments].concat()).expect(2, &[word]);
    }
    let manifest = lab::manifest(&address, FRAUD);
    let (_, without) = manifest.split_once('\n').unwrap();
    lab.write("imagewright.kdl", without);
    lab.run(&["lock", "--reuse"])
        .expect(2, &["names no registry"]);
}

#[test]
fn versions_that_most_images_have_are_preferred() {
    let two = "image \"one\" base=\"small\" { pip \"alpha\"; }\nimage \"two\" base=\"small\" { pip \"beta\"; }";
    let (server, _colleague) = pushed(two, &[]);
    let index = later_index();
    let newest = lab::project(
        server.address(),
        &index,
        "image \"three\" base=\"small\" { pip \"gamma\" \">3\"; }",
    );
    newest.run(&["push"]).expect(0, &[]);

    let mine = "image \"mine\" base=\"small\" { pip \"gamma\"; pip \"alpha\"; }";
    let lab = lab::project(server.address(), &index, mine);
    let words = [
        "beta 2.0, which 2 images have",
        "alpha 1.0, which one image has",
        "delta 0.2, which one image has",
    ];
    lab.run(&["lock", "--prefer-catalog"]).expect(0, &words);
    let preferred = ["alpha-1.0", "beta-2.0", "delta-0.2", "gamma-3.1"];
    assert_pins(&lab, &preferred);
    lab.run(&["lock", "--prefer-catalog"])
        .expect(0, &["is up to date"]);
    // A pin that is to move moves, whatever the images have.
    lab.run(&["lock", "--upgrade", "beta", "--prefer-catalog"])
        .expect(0, &["beta 2.0 -> 2.1"]);
    assert_pins(&lab, &["alpha-1.0", "beta-2.1", "delta-0.2", "gamma-3.1"]);
    // A pin that is there stays, and a specifier binds.
    let more = mine.replace("pip \"alpha\"", "pip \"alpha\" \"!=1.0\"");
    lab.write("imagewright.kdl", lab::manifest(server.address(), &more));
    lab.run(&["lock", "--prefer-catalog"]).expect(0, &[]);
    assert_pins(&lab, &["alpha-1.1", "beta-2.1", "delta-0.2", "gamma-3.1"]);
}

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
