//! Traps that need more than one answer: lists without end, token servers, uploads that lead elsewhere, layers that are
//! bombs.

use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use imagewright::catalog::{Catalog, KeyTag, Record};
use imagewright::digest::Digest;
use imagewright::oci::Descriptor;
use imagewright::registry::Reference;
use serde_json::{Value, json};

use crate::hostile::{Deed, Door, Scene, run};
use crate::impostor::{Answer, Impostor, Request};
use crate::lab::{Options, PREFIX, Ran, Server, client, login_file, wait};
use crate::project::size_of;
use crate::sample;

/// One deed with an impostor before the registry.
fn meanwhile(
    scene: &Scene,
    deed: Deed,
    arguments: &[&str],
    decide: impl Fn(&Request) -> Answer + Send + Sync + 'static,
) -> (Ran, Impostor) {
    let impostor = Impostor::before(scene.server.address(), decide);
    let lab = scene.colleague(impostor.address(), deed);
    login_file(&lab.path("home/.docker"), &[impostor.address()]);
    let ran = run(&lab, arguments);
    (ran, impostor)
}

#[test]
fn lists_token_servers_and_uploads_that_are_traps_are_refused() {
    let scene = &Scene::new();
    std::thread::scope(|scope| {
        for work in [
            lists_that_do_not_end,
            a_list_that_fills_the_memory,
            token_servers,
            uploads_that_lead_nowhere,
        ] {
            scope.spawn(move || work(scene));
        }
    });
}

fn tags(body: String, next: &str) -> Answer {
    let link = match next {
        "" => String::new(),
        next => format!("link: <{next}>; rel=\"next\"\r\n"),
    };
    Answer::json(200, &link, &body)
}

fn lists_that_do_not_end(scene: &Scene) {
    let elsewhere = Impostor::alone(|_| Answer::Reset);
    let other = format!("http://{}/v2/x/tags/list", elsewhere.address());
    let list = |next: String| move |_: usize| tags(r#"{"tags":["a"]}"#.into(), &next);
    let counted = |page: usize| {
        tags(
            format!(r#"{{"tags":["t{page}"]}}"#),
            &format!("?page={page}"),
        )
    };
    let empty = |page: usize| tags(r#"{"tags":[]}"#.into(), &format!("?page={page}"));
    type Pages = Box<dyn Fn(usize) -> Answer + Send + Sync>;
    let cases: Vec<(&str, Pages)> = vec![
        ("in a circle", Box::new(list("?n=1000".into()))),
        ("another host", Box::new(list(other))),
        ("not HTTP", Box::new(list("file:///etc/passwd".into()))),
        ("not a URL", Box::new(list("http://[".into()))),
        ("next to nothing", Box::new(counted)),
        ("are empty", Box::new(empty)),
    ];
    for (word, pages) in cases {
        let asked = AtomicUsize::new(0);
        let (ran, impostor) =
            meanwhile(
                scene,
                Deed::Find,
                &["find"],
                move |request| match Door::Tags.concerns(request) {
                    true => pages(asked.fetch_add(1, Ordering::Relaxed)),
                    false => Answer::Honest,
                },
            );
        ran.expect(7, &[word, impostor.address()]);
        assert!(impostor.seen().len() < 200, "{word}");
    }
    assert!(elsewhere.seen().is_empty());
}

fn a_list_that_fills_the_memory(scene: &Scene) {
    let body = format!("{{\"tags\":[{}\"a\"]}}", "\"a\",".repeat(40_000_000));
    let answer = Answer::json(200, "", &body);
    drop(body);
    let (ran, impostor) = meanwhile(
        scene,
        Deed::Find,
        &["find"],
        move |request| match Door::Tags.concerns(request) {
            true => answer.clone(),
            false => Answer::Honest,
        },
    );
    ran.expect(7, &["list of at most", impostor.address()]);
}

fn token_servers(scene: &Scene) {
    let elsewhere = Impostor::alone(|_| Answer::json(200, "", r#"{"token":"fine"}"#));
    let answers: Vec<(&str, i32, Answer)> = vec![
        (
            "not a token document",
            7,
            Answer::json(200, "", &"[".repeat(100_000)),
        ),
        (
            "not a token document",
            7,
            Answer::json(200, "", r#"{"token":7}"#),
        ),
        (
            "not a token document",
            7,
            Answer::new(200, "", b"{\"token\":\"\xff\"}"),
        ),
        (
            "holds none",
            7,
            Answer::json(200, "", r#"{"access_token":""}"#),
        ),
        (
            "characters",
            7,
            Answer::json(200, "", r#"{"token":"a\r\nX-Evil: yes"}"#),
        ),
        (
            "too long",
            7,
            Answer::json(200, "", &json!({"token": "t".repeat(100_000)}).to_string()),
        ),
        (
            "larger than",
            7,
            Answer::json(200, "", &" ".repeat(2 << 20)),
        ),
        (
            "refuses",
            6,
            Answer::json(401, "www-authenticate: Bearer realm=\"/token\"\r\n", "{}"),
        ),
        (
            "refuses",
            6,
            Answer::json(200, "", r#"{"token":"of-no-use"}"#),
        ),
        ("too often", 7, Answer::new(307, "location: /token\r\n", "")),
        (
            "not HTTP",
            7,
            Answer::new(307, "location: file:///etc/passwd\r\n", ""),
        ),
    ];
    for (word, code, answer) in answers {
        let (ran, impostor) = meanwhile(scene, Deed::Find, &["find"], move |request| match request
            .target
            .starts_with("/token")
        {
            true => answer.clone(),
            false => challenge(
                request,
                &format!("http://{}/token", request.header("host").unwrap()),
            ),
        });
        ran.expect(code, &[word, impostor.address()]);
        assert!(impostor.seen().len() < 20, "{word}");
    }
    let realms = [
        ("file:///etc/passwd", "not one of HTTP"),
        ("ftp://127.0.0.1/x", "not one of HTTP"),
        ("//token", "not a URL"),
        ("", "not a URL"),
    ];
    for (realm, word) in realms {
        for (deed, arguments, code) in [
            (Deed::Find, ["find"], 7),
            (Deed::Push, ["push"], 7),
            (Deed::Build, ["build"], 0),
        ] {
            let (ran, impostor) = meanwhile(scene, deed, &arguments, move |request| {
                challenge(request, realm)
            });
            ran.expect(code, &[word, impostor.address()]);
        }
    }
    // A redirect of the token server takes the login nowhere.
    let target = format!("location: http://{}/token\r\n", elsewhere.address());
    meanwhile(scene, Deed::Find, &["find"], move |request| {
        match request.target.starts_with("/token") {
            true => Answer::new(307, &target, ""),
            false => challenge(
                request,
                &format!("http://{}/token", request.header("host").unwrap()),
            ),
        }
    });
    let seen = elsewhere.seen();
    assert!(!seen.is_empty());
    assert!(
        seen.iter()
            .all(|request| request.header("authorization").is_none()),
        "{seen:?}"
    );
}

fn challenge(_: &Request, realm: &str) -> Answer {
    let header = format!("www-authenticate: Bearer realm=\"{realm}\",service=\"x\"\r\n");
    Answer::json(401, &header, "{}")
}

fn uploads_that_lead_nowhere(scene: &Scene) {
    let cases = [
        ("makes no sense", "file:///etc/passwd".to_owned()),
        ("makes no sense", "http://[".to_owned()),
        ("makes no sense", "ftp://127.0.0.1/x".to_owned()),
        ("", "/v2/".to_owned()),
        ("", "x".repeat(8000)),
    ];
    for (word, location) in cases {
        let header = format!(
            "location: {location}\r\nrange: 99-1\r\noci-chunk-min-length: 99999999999999999999\r\n"
        );
        let (ran, impostor) = meanwhile(scene, Deed::Push, &["push"], move |request| {
            match request.method == "POST" {
                true => Answer::new(202, &header, ""),
                false => Answer::Honest,
            }
        });
        assert!(matches!(ran.code, Some(4 | 7 | 8)), "{location}: {ran:?}");
        let code = ran.code.unwrap();
        ran.expect(code, &[word, impostor.address()]);
    }
    // An upload that never gets on.
    let (ran, impostor) = meanwhile(scene, Deed::Push, &["push"], |request| {
        let same = format!("location: {}\r\nrange: 0-0\r\n", request.target);
        match Door::Send.concerns(request) {
            true if request.method == "GET" => Answer::new(204, &same, ""),
            true => Answer::new(500, &same, ""),
            false => Answer::Honest,
        }
    });
    ran.expect(4, &[impostor.address()]);
}

#[test]
fn lists_of_referrers_without_measure_are_refused() {
    let padding = "x".repeat(3 << 20);
    let entry = json!({"mediaType": "a", "digest": Digest::of("x"), "size": 1, "annotations": {"a": padding}});
    let page = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    let asked = AtomicUsize::new(0);
    let impostor = Impostor::alone(move |request| {
        let number = asked.fetch_add(1, Ordering::Relaxed);
        match request.target.contains("/referrers/") {
            true => tags(page.clone(), &format!("?page={number}")),
            false => Answer::new(404, "", ""),
        }
    });
    let reference: Reference = format!("{}/a/b", impostor.address()).parse().unwrap();
    let error = wait(client(&[]).referrers(&reference, &Digest::of("y"))).unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
    assert!(impostor.seen().len() < 30);
}

/// A gzip file of many members, each of 16 MiB of zeros.
fn bomb(members: usize) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&vec![0; 16 << 20]).unwrap();
    gzip.finish().unwrap().repeat(members)
}

/// A tar of one file of so many bytes, without its content.
fn tar_of(size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path("bomb").unwrap();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_cksum();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(header.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn a_layer_that_is_a_bomb_goes_off_nowhere() {
    let scene = &Scene::new();
    let server = Server::docker_registry(Options::default());
    let honest = scene.colleague(server.address(), Deed::Test);
    honest.run(&["push"]).expect(0, &[]);
    let here = format!("{}/{PREFIX}", server.address());
    let catalog = sample::catalog(client(&[]), &here);
    let built = honest.run(&["build", "--json"]).expect(0, &[]).out;
    let built: Value = serde_json::from_str(&built).unwrap();
    let set: Digest = built["images"][0]["set"].as_str().unwrap().parse().unwrap();
    let record = wait(catalog.images(&set, &[])).unwrap().records.remove(0);
    let tag = Reference {
        tag: Some(KeyTag::Set(set).tag()),
        ..catalog.place().cache()
    };

    // Two gigabytes in two megabytes.
    let length = 2 << 30;
    let blob = [tar_of(length), bomb(128)].concat();
    for (unpacked, code, word) in [
        (10_000, 7, "more than its 10000 bytes"),
        (u64::MAX, 0, "a size that cannot be"),
        (length * 8, 0, "a size that cannot be"),
    ] {
        let forged = wait(forge(&catalog, &record, &blob, unpacked));
        wait(put_record(&catalog, &tag, &forged));
        let lab = scene.colleague(server.address(), Deed::Test);
        let lock = fs::read_to_string(lab.project().join("imagewright.lock")).unwrap();
        let lines = lock.lines();
        let unsure: Vec<&str> = lines
            .filter(|line| !line.trim().starts_with("digest "))
            .collect();
        lab.write("imagewright.lock", unsure.join("\n") + "\n");
        run(&lab, &["test", "--trust-registry", "--locked"]).expect(code, &[word]);
        let left = size_of(&lab.store());
        assert!(left < 100 << 20, "{left} bytes are left");
        let own = ["test", "--no-substitute", "--rerun", "--locked"];
        run(&lab, &own).expect(0, &["SUCCEEDED"]);
    }
}

/// The record's image with another last layer.
async fn forge(catalog: &Catalog, record: &Record, blob: &[u8], unpacked: u64) -> Record {
    let image = Reference {
        digest: Some(record.digest),
        ..catalog.place().image(&record.name)
    };
    let registry = catalog.registry();
    let manifest = registry.manifest(&image).await.unwrap();
    let mut manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let config = registry
        .small_blob(&image, &record.config, 1 << 20)
        .await
        .unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    let layer = record.layers.len() - 1;
    let kind = record.layers[layer].media_type.clone();
    let bomb = Descriptor::of(kind, blob);
    let mut forged = record.clone();
    let changed = &mut forged.layers[layer];
    (changed.digest, changed.size, changed.unpacked) = (bomb.digest, bomb.size, unpacked);
    changed.diff_id = Digest::of(format!("bomb {unpacked}"));
    config["rootfs"]["diff_ids"][layer] = json!(changed.diff_id);
    let config = config.to_string();
    let config_at = Descriptor::of(manifest["config"]["mediaType"].as_str().unwrap(), &config);
    manifest["config"] = json!(config_at);
    manifest["layers"][layer] = json!(bomb);
    let manifest = manifest.to_string();
    (forged.config, forged.digest) = (config_at.digest, Digest::of(&manifest));
    let image = Reference {
        digest: None,
        ..image
    };
    for (at, content) in [(&bomb, blob.to_vec()), (&config_at, config.into_bytes())] {
        registry
            .put_blob(&image, at, &content, &[], &|_| {})
            .await
            .unwrap();
    }
    let kind = "application/vnd.oci.image.manifest.v1+json";
    registry
        .put_manifest(&image, kind, manifest.as_bytes())
        .await
        .unwrap();
    forged
}

/// Puts a record under a tag, as it is.
async fn put_record(catalog: &Catalog, tag: &Reference, record: &Record) {
    let document = serde_json::to_vec(record).unwrap();
    let mut config = Descriptor::of(Record::MEDIA_TYPE, &document);
    let registry = catalog.registry();
    registry
        .put_blob(tag, &config, &document, &[], &|_| {})
        .await
        .unwrap();
    config.data = Some(STANDARD.encode(&document));
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "artifactType": Record::ARTIFACT_TYPE, "config": config, "layers": []});
    registry
        .put_manifest(tag, kind, manifest.to_string().as_bytes())
        .await
        .unwrap();
}
