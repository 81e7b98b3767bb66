//! An image that nobody has built, most of whose layers somebody has.

use std::fs;

use imagewright::catalog::{Catalog, KeyTag, LayerRecord, SecretKey};
use imagewright::digest::Digest;
use serde_json::{Value, json};

use crate::index;
use crate::lab::{self, Lab, Options, PREFIX, Ran, Server, client};
use crate::{lies, sample, wares};

/// Enough noise for a layer of its own.
const LARGE: usize = 500_000;

type Ware = (String, Vec<u8>);
type Lie = Box<dyn Fn(&mut LayerRecord)>;

/// `zebra` is large and wins `apple/shared.py`, which `apple` brings too; both have `apple/same.py`.
fn wheels() -> [Ware; 3] {
    let file = |path: &str, bytes: &[u8]| (path.to_owned(), bytes.to_vec());
    let (name, large) = wares::wheel("noise", "1.0", &[], 4, LARGE);
    assert!(large.len() > 1_000_000, "{name}");
    let shared = |text: &[u8]| {
        vec![
            file("apple/shared.py", text),
            file("apple/same.py", b"# the same\n"),
        ]
    };
    let mut zebra = shared(b"# of zebra\n");
    zebra.push(file("zebra/noise.bin", &large));
    [
        wares::wheel_of(
            "apple",
            "1.0",
            "License-Expression: MIT\n",
            shared(b"# of apple\n"),
        ),
        wares::wheel_of("zebra", "1.0", "", zebra),
        wares::wheel("fresh", "1.0", &[], 3, 2_000),
    ]
}

/// Somebody who has pushed and signed `one`, and locked `two`.
struct Scene {
    server: Server,
    /// With all wheels and the download.
    index: index::Server,
    first: Lab,
    secret: SecretKey,
}

impl Scene {
    fn new() -> Self {
        let server = Server::docker_registry(Options {
            login: false,
            delete: true,
        });
        let index = index::Server::with(&wheels());
        let model = b"a model".repeat(1000);
        let page = index::Page::new("application/octet-stream", model.clone());
        index.put("/files/model.bin", page);
        let fetch = format!(
            "fetch \"http://{}/files/model.bin\" sha256=\"{}\" to=\"/opt/model.bin\"",
            index.address(),
            wares::sha256(&model)
        );
        let both = format!("pip \"apple\"; pip \"zebra\"; {fetch}");
        let images = format!(
            "image \"one\" base=\"small\" {{ {both}; }}\nimage \"two\" base=\"small\" {{ {both}; pip \"fresh\"; }}\n{RUN}"
        );
        let first = lab::project(server.address(), &index, &images);
        let file = first.path("signing.key");
        let path = file.to_str().unwrap().to_owned();
        first.run(&["sign", "--new", &path]).expect(0, &[]);
        let secret = SecretKey::parse(&fs::read_to_string(&file).unwrap(), &file).unwrap();
        let manifest = read(&first, "imagewright.kdl");
        let trust = format!("trust \"{}\"\n{manifest}", secret.public());
        first.write("imagewright.kdl", trust);
        first.run(&["lock"]).expect(0, &[]);
        first.run(&["push", "one", "--sign", &path]).expect(0, &[]);
        Self {
            server,
            index,
            first,
            secret,
        }
    }

    /// A colleague with an empty store and another index, which has `fresh` only.
    fn colleague(&self) -> (Lab, index::Server) {
        let index = index::Server::with(&wheels()[2..]);
        let lab = lab::colleague(&self.first, self.server.address());
        (lab.env("PIP_INDEX_URL", &index.index()), index)
    }

    /// A colleague with the full index, who trusts nobody.
    fn stranger(&self) -> Lab {
        let lab = lab::colleague(&self.first, self.server.address());
        let manifest = read(&lab, "imagewright.kdl");
        let (_, manifest) = manifest.split_once('\n').unwrap();
        lab.write("imagewright.kdl", manifest);
        lab.env("PIP_INDEX_URL", &self.index.index())
    }

    fn catalog(&self, prefix: &str) -> Catalog {
        sample::catalog(client(&[]), &format!("{}/{prefix}", self.server.address()))
    }

    /// The key of the layer of `one` that a comment belongs to.
    fn key(&self, comment: &str) -> Digest {
        let built = built(&self.first, &["one"]);
        let set = built["set"].as_str().unwrap().parse().unwrap();
        let record = lies::record(&self.catalog(PREFIX), &set);
        let layers = record.layers.iter();
        let mut found = layers.filter(|layer| layer.comment.starts_with(comment));
        found.next().unwrap().key.unwrap()
    }

    /// Puts a changed record of a layer, signed by the trusted key, over the signed one.
    fn lie(&self, key: &Digest, change: impl FnOnce(&mut LayerRecord)) {
        let catalog = self.catalog(PREFIX);
        let mut record = lies::layer(&catalog, key);
        change(&mut record);
        let record = self.secret.sign_layer(&record).unwrap();
        let tag = KeyTag::Layer(*key).signed(&self.secret.public().id());
        lies::put_layer(&catalog, &tag, &record, |_| {});
    }
}

const RUN: &str = r#"
run "check" image="two" {
    matrix { seed 1 2 3; }
    command "sh" "-c" "cd /opt/venv/lib/python3.11/site-packages && cat apple/shared.py && ls zebra fresh && head -c 7 /opt/model.bin"
    env "SEED" "{seed}"
    resources ram="64MB" cpu="500m"
    timeout "20s"
}
"#;

fn read(lab: &Lab, name: &str) -> String {
    fs::read_to_string(lab.project().join(name)).unwrap()
}

/// What `build` prints for programs of the one image.
#[track_caller]
fn built(lab: &Lab, arguments: &[&str]) -> Value {
    let ran = lab.run(&[&["build", "--json"], arguments].concat());
    document(&ran.expect(0, &[]))["images"][0].clone()
}

#[track_caller]
fn document(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.out))
}

#[test]
fn a_known_layer_is_not_fetched_built_or_pushed() {
    let scene = Scene::new();
    let (lab, index) = scene.colleague();
    let asked = scene.index.counts();
    let (ran, requests) = scene.server.during(|| {
        lab.run(&["build", "two"])
            .expect(0, &["of its layers from"])
    });
    assert_eq!(scene.index.counts(), asked, "no wheel and no download");
    assert_eq!(index.counts(), (0, 2), "the page and the file of one wheel");
    assert_eq!(scene.server.layer_bytes(&requests), (0, 0), "{requests:#?}");
    assert!(requests.len() < 30, "{requests:#?}");
    // What is told of wheels that are not here counts.
    let told =
        "`/opt/venv/lib/python3.11/site-packages/apple/shared.py` comes with different content";
    assert!(ran.err.contains(told), "{}", ran.err);

    let (again, requests) = scene.server.during(|| built(&lab, &["two"]));
    assert!(requests.is_empty(), "{requests:#?}");
    assert_eq!(again["built"], false);
    assert_eq!(again["substituted"]["whole"], false);
    // apple, zebra, the file that zebra wins, the download.
    assert_eq!(again["substituted"]["layers"].as_array().unwrap().len(), 4);

    let (pushed, requests) = scene
        .server
        .during(|| lab.run(&["push", "two", "--json"]).expect(0, &[]));
    let (down, up) = scene.server.layer_bytes(&requests);
    assert_eq!(down, 0, "{requests:#?}");
    assert!(up < 20_000, "only what is new: {up}");
    scene.server.assert_whole();
    let full = built(&scene.first, &["two"]);
    assert_eq!(full["digest"], again["digest"]);
    assert_eq!(document(&pushed)["images"][0]["digest"], full["digest"]);
    assert_same_documents(&scene, &full);

    let (ran, requests) = scene.server.during(|| lab.run(&["test"]));
    ran.expect(0, &["SUCCEEDED", "# of zebra", "noise.bin", "a model"]);
    let pulled = requests.iter().filter(|request| request.method == "GET");
    let mut pulled: Vec<_> = pulled.filter_map(lab::Request::blob).collect();
    let count = pulled.len();
    pulled.sort();
    pulled.dedup();
    assert_eq!(
        (count, pulled.len()),
        (4, 4),
        "each layer once: {requests:#?}"
    );
}

/// What is told of an image that was built in full is the same.
#[track_caller]
fn assert_same_documents(scene: &Scene, full: &Value) {
    let other = format!("{}/other", scene.server.address());
    let push = ["push", "two", "--no-substitute", "--to", &other];
    scene.first.run(&push).expect(0, &[]);
    let set = full["set"].as_str().unwrap().parse().unwrap();
    let [ours, theirs] = ["other", PREFIX].map(|prefix| {
        let catalog = scene.catalog(prefix);
        let record = lies::record(&catalog, &set);
        let keys = record.layers.iter().filter_map(|layer| layer.key);
        let layers = keys.map(|key| lies::layer(&catalog, &key));
        let layers: Vec<LayerRecord> = layers.collect();
        (record.sbom, record.layers, record.pip, layers)
    });
    assert_eq!(ours, theirs);
    let told = ours.3.iter().filter(|layer| layer.paths.is_some());
    assert_eq!(told.count(), 3, "every layer that holds a wheel");
}

#[test]
fn nobody_is_believed_without_trust_and_nothing_that_is_wrong() {
    let scene = Scene::new();
    let stranger = scene.stranger();
    let image = built(&stranger, &["two"]);
    assert_eq!(image["substituted"], Value::Null);
    let right = image["digest"].clone();

    let (apple, zebra) = (scene.key("apple"), scene.key("zebra"));
    let catalog = scene.catalog(PREFIX);
    let foreign = lies::blob(
        &catalog,
        LayerRecord::PATHS_MEDIA_TYPE,
        b"{\"v\":1,\"wheels\":[]}",
    );
    let broken = lies::blob(&catalog, LayerRecord::PATHS_MEDIA_TYPE, b"[[[[");
    let lies: [(&str, Lie); 6] = [
        (
            "paths of other wheels",
            Box::new(move |record| record.paths = Some(foreign.clone())),
        ),
        (
            "paths that are no JSON",
            Box::new(move |record| record.paths = Some(broken.clone())),
        ),
        (
            "paths that are not there",
            Box::new(|record| record.paths.as_mut().unwrap().digest = Digest::of("gone")),
        ),
        (
            "paths beyond all measure",
            Box::new(|record| record.paths.as_mut().unwrap().size = 1 << 40),
        ),
        ("no paths", Box::new(|record| record.paths = None)),
        (
            "another media type",
            Box::new(|record| record.layer.media_type = "application/x-shell".into()),
        ),
    ];
    for (what, change) in lies {
        scene.lie(&zebra, change);
        let lab = lab::colleague(&scene.first, scene.server.address())
            .env("PIP_INDEX_URL", &scene.index.index());
        let image = built(&lab, &["two"]);
        assert_eq!(image["digest"], right, "{what}");
        let layers = image["substituted"]["layers"].as_array().unwrap();
        assert!((2..4).contains(&layers.len()), "{what}: {layers:?}");
    }

    // A trusted key that lies well is found only by whoever makes the layer.
    let other = lies::layer(&catalog, &apple);
    scene.lie(&zebra, |record| {
        record.layer.digest = other.layer.digest;
        record.layer.diff_id = other.layer.diff_id;
        record.layer.size = other.layer.size;
        record.layer.unpacked = other.layer.unpacked;
    });
    let lab = lab::colleague(&scene.first, scene.server.address())
        .env("PIP_INDEX_URL", &scene.index.index());
    let verify = ["build", "two", "--verify-substitutes"];
    let public = scene.secret.public().to_string();
    lab.run(&verify).expect(
        7,
        &[
            "zebra 1.0",
            &public,
            &other.layer.digest.to_string(),
            "not made from these inputs",
        ],
    );
    // So does one that stands there unsigned, though nobody believes it.
    let tag = KeyTag::Layer(apple).tag();
    let wrong = json!(Digest::of("wrong"));
    lies::put_layer(&catalog, &tag, &other, |layer| {
        layer["layer"]["digest"] = wrong.clone();
    });
    let image = built(&scene.stranger(), &["two"]);
    assert_eq!(image["digest"], right, "a poisoned tag is not believed");
    stranger.run(&verify).expect(7, &["apple 1.0: "]);
}

#[test]
fn what_a_lie_names_is_pulled_by_its_digest_or_refused() {
    let scene = Scene::new();
    let zebra = scene.key("zebra");
    // The registry has the blob of the signed record, but not with its bytes.
    let digest = lies::layer(&scene.catalog(PREFIX), &zebra).layer.digest;
    let path = scene.server.blob_path(&digest);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let lab = lab::colleague(&scene.first, scene.server.address())
        .env("PIP_INDEX_URL", &scene.index.index());
    let known = built(&lab, &["two"]);
    assert_eq!(known["substituted"]["layers"].as_array().unwrap().len(), 4);
    lab.run(&["test"]).expect(
        0,
        &["SUCCEEDED", &digest.to_string(), "building two without it"],
    );
    let own = built(&lab, &["two"]);
    assert_eq!(own["digest"], known["digest"]);
    assert_eq!(own["substituted"], Value::Null, "made here by now");
    assert!(!lab.store().join("blobs").join(digest.hex()).exists());
}
