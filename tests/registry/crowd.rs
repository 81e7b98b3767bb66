//! Many processes, one registry: with one store, and with a store each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use imagewright::digest::Digest;
use serde_json::Value;

use crate::lab::{self, Lab, Options, PREFIX, Ran, Request, Server};

const LOGIN: Options = Options {
    login: true,
    delete: false,
};
const PATIENCE: Duration = Duration::from_secs(180);

/// Every image has something of the others, and something of its own.
const IMAGES: [(&str, &str); 8] = [
    ("one", r#"pip "alpha";"#),
    ("two", r#"pip "gamma";"#),
    ("three", r#"pip "alpha"; pip "gamma";"#),
    ("four", r#"pip "beta";"#),
    ("five", r#"pip "alpha"; env "A" "1";"#),
    ("six", r#"pip "gamma"; file "big.bin" to="/opt/";"#),
    ("seven", r#"pip "delta"; file "big.bin" to="/opt/";"#),
    ("eight", r#"pip "alpha"; file "big.bin" to="/opt/";"#),
];

fn image(number: usize) -> String {
    let (name, content) = IMAGES[number];
    format!("image \"{name}\" base=\"small\" {{ {content} }}")
}

/// A project of one image.
fn project(server: &Server, index: &crate::index::Server, number: usize) -> Lab {
    let lab = lab::project(server.address(), index, &image(number));
    lab.write("big.bin", vec![b'x'; 400_000]);
    lab
}

/// All at once; each has to succeed.
fn push(labs: &[Lab]) -> Vec<Ran> {
    let running: Vec<_> = labs
        .iter()
        .map(|lab| lab.start(&["push", "--json"]))
        .collect();
    running
        .into_iter()
        .map(|running| running.wait(PATIENCE).expect(0, &[]))
        .collect()
}

fn images(ran: &Ran) -> Vec<Value> {
    let document: Value = serde_json::from_str(&ran.out).unwrap();
    document["images"].as_array().unwrap().clone()
}

/// How often each blob was sent to each repository.
fn sent(requests: &[Request]) -> BTreeMap<(String, Digest), usize> {
    let mut sent = BTreeMap::new();
    for request in requests {
        if let Some(digest) = request.uploaded() {
            let (repository, _) = request.path.split_once("/blobs/").unwrap();
            *sent.entry((repository.to_owned(), digest)).or_default() += 1;
        }
    }
    sent
}

/// Tags of the cache by their kinds.
fn kinds(server: &Server) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for (tag, _) in server.tags(&format!("{PREFIX}/cache")) {
        let kind = tag.split('-').next().unwrap_or_default().to_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// All tags of the registry.
fn tags(server: &Server) -> BTreeMap<String, Digest> {
    [PREFIX.to_owned(), format!("{PREFIX}/cache")]
        .iter()
        .flat_map(|repository| server.tags(repository))
        .collect()
}

#[test]
fn eight_processes_push_overlapping_images_at_once() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let store = Lab::new();
    let place = store.path("store").display().to_string();
    let labs: Vec<Lab> = (0..8)
        .map(|number| project(&server, &index, number).env("IMAGEWRIGHT_STORE", &place))
        .collect();
    let (ran, requests) = server.during(|| push(&labs));
    server.assert_whole();
    let twice: Vec<_> = sent(&requests)
        .into_iter()
        .filter(|(_, count)| *count > 1)
        .collect();
    assert!(twice.is_empty(), "sent more than once: {twice:?}");
    // A layer's bytes are sent to the cache alone; other repositories mount it from there.
    let layers = server.layers();
    let mut places: BTreeMap<Digest, usize> = BTreeMap::new();
    for ((_, digest), _) in sent(&requests) {
        *places.entry(digest).or_default() += usize::from(layers.contains(&digest));
    }
    assert!(places.values().all(|count| *count <= 1), "{places:?}");

    let pushed: Vec<Value> = ran.iter().flat_map(images).collect();
    let names: BTreeSet<&str> = pushed
        .iter()
        .map(|image| image["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, IMAGES.iter().map(|image| image.0).collect());
    let tags = tags(&server);
    for image in &pushed {
        let digest = tags[image["name"].as_str().unwrap()].to_string();
        assert_eq!(image["digest"], digest, "{image:#}");
        for record in image["records"].as_array().unwrap() {
            let tag = record.as_str().unwrap().replace("sha256:", "record-");
            assert!(tags.contains_key(&tag), "{tag}");
        }
    }
    let kinds = kinds(&server);
    for kind in ["image", "set", "record"] {
        assert_eq!(kinds[kind], 8, "{kinds:?}");
    }
    // Whoever looks, with a store of its own, finds all eight.
    let stranger = project(&server, &index, 0);
    let found = stranger.run(&["find", "--json"]).expect(0, &[]);
    let found: BTreeSet<String> = images(&found)
        .iter()
        .map(|image| image["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(found.len(), 8, "{found:?}");
    // And once more: there is nothing to send, and nothing moves.
    let before = tags;
    let (_, requests) = server.during(|| push(&labs));
    assert!(sent(&requests).is_empty(), "{requests:#?}");
    assert_eq!(self::tags(&server), before);
}

/// What tags begin with that lead to a record.
const LEADING: [&str; 3] = ["image-", "set-", "name-"];

#[test]
fn eight_colleagues_push_the_same_image_at_once() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let labs: Vec<Lab> = (0..8).map(|_| project(&server, &index, 5)).collect();
    let done = AtomicBool::new(false);
    // Everything that a tag of the registry named at any time.
    let (ran, named) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut named: BTreeMap<String, BTreeSet<Digest>> = BTreeMap::new();
            while !done.load(Ordering::Relaxed) {
                for (tag, digest) in tags(&server) {
                    named.entry(tag).or_default().insert(digest);
                }
                std::thread::sleep(Duration::from_millis(3));
            }
            named
        });
        let ran = push(&labs);
        done.store(true, Ordering::Relaxed);
        (ran, watching.join().unwrap())
    });
    server.assert_whole();
    let pushed: Vec<Value> = ran.iter().flat_map(images).collect();
    let digest = &pushed[0]["digest"];
    assert!(pushed.iter().all(|image| image["digest"] == *digest));
    assert_eq!(pushed.len(), 8);
    for (tag, digests) in &named {
        // Registries have no conditional writes: of records that are written under a key at the same moment, another
        // may stand there a moment later. They tell of the same image. The last record of a name moves with the name.
        if !LEADING.iter().any(|kind| tag.starts_with(kind)) {
            assert_eq!(digests.len(), 1, "{tag} has moved: {digests:?}");
        }
    }
    let before = tags(&server);
    assert_eq!(before["six"].to_string(), *digest);
    for image in &pushed {
        for record in image["records"].as_array().unwrap() {
            let tag = record.as_str().unwrap().replace("sha256:", "record-");
            assert!(before.contains_key(&tag), "{tag}");
        }
    }
    for key in before
        .keys()
        .filter(|tag| LEADING.iter().any(|kind| tag.starts_with(kind)))
    {
        let record = std::fs::read(server.blob_path(&before[key])).unwrap();
        let record: Value = serde_json::from_slice(&record).unwrap();
        let config = record["config"]["digest"].as_str().unwrap();
        let document = std::fs::read(server.blob_path(&config.parse().unwrap())).unwrap();
        let document: Value = serde_json::from_slice(&document).unwrap();
        assert_eq!(document["digest"], *digest, "{key}");
    }
    // Whoever comes later moves nothing and sends nothing.
    let late = project(&server, &index, 5);
    let (_, requests) = server.during(|| push(&[late]));
    assert!(sent(&requests).is_empty(), "{requests:#?}");
    assert_eq!(tags(&server), before);
}
