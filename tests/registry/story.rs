//! Two colleagues and one registry: what one has pushed the other has, without building and without moving a layer.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use imagewright::digest::Digest;
use serde_json::Value;

use crate::bases;
use crate::engines::{Docker, Podman};
use crate::faults::Weather;
use crate::lab::{self, Lab, Options, PASSWORD, PREFIX, Ran, Request, Server, USER};
use crate::proxy::Proxy;
use crate::wares;

const LOGIN: Options = Options {
    login: true,
    delete: false,
};

const IMAGES: &str = r#"
image "one" base="small" { pip "alpha"; file "app.txt" to="/app/"; }
image "two" base="small" { pip "gamma"; }
run "check" image="one" {
    command "python" "-c" "import alpha, beta; print(open('/app/app.txt').read())"
    resources ram="128MB" cpu="500m"
    timeout "60s"
}
"#;

/// Prints `1.0 2.0 the app` in `one`.
const LOOK: &str = "import alpha, beta; from importlib.metadata import version; \
                    print(version('alpha'), version('beta'), open('/app/app.txt').read().strip())";
const SEEN: &str = "1.0 2.0 the app\n";

/// A registry, and a proxy before it that counts; everybody goes through that.
struct Site {
    server: Server,
    proxy: Proxy,
    login: bool,
}

impl Site {
    fn new(server: Server, login: bool) -> Self {
        let proxy = Proxy::start(server.address(), Weather::default());
        Self {
            server,
            proxy,
            login,
        }
    }

    fn address(&self) -> &str {
        self.proxy.address()
    }

    /// What `work` made the registry answer, and its result.
    fn during<T>(&self, work: impl FnOnce() -> T) -> (T, Vec<Request>) {
        let before = self.proxy.asked().len();
        let result = work();
        let asked = self.proxy.asked().split_off(before);
        let requests = asked.into_iter().map(|asked| {
            let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
            Request {
                path: path.into(),
                query: query.into(),
                status: asked.status.unwrap_or(0),
                method: asked.method,
                bytes: 0,
            }
        });
        (result, requests.collect())
    }

    /// The layers of an image by its tag.
    fn layers(&self, repository: &str, tag: &str) -> BTreeSet<Digest> {
        let manifest = fs::read(self.server.blob_path(&self.named(repository, tag))).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let layers = manifest["layers"].as_array().unwrap().iter();
        layers
            .map(|layer| layer["digest"].as_str().unwrap().parse().unwrap())
            .collect()
    }

    fn named(&self, repository: &str, tag: &str) -> Digest {
        let tags = self.server.tags(repository);
        let found = tags.iter().find(|(name, _)| name == tag);
        found.unwrap_or_else(|| panic!("no {tag} in {tags:?}")).1
    }

    /// No layer's bytes went either way.
    #[track_caller]
    fn assert_no_layer_moved(&self, requests: &[Request]) {
        let layers = self.server.layers();
        assert!(!layers.is_empty());
        assert_eq!(fetched(requests, &layers), [], "{requests:#?}");
        assert!(
            uploaded(requests).all(|blob| !layers.contains(&blob)),
            "{requests:#?}"
        );
    }
}

/// Which of these blobs were asked for with their content, ascending, as often as they were.
fn fetched(requests: &[Request], blobs: &BTreeSet<Digest>) -> Vec<Digest> {
    // One that has yet to authorise itself gets nothing.
    let gets = requests
        .iter()
        .filter(|request| request.method == "GET" && request.status < 300);
    let mut found: Vec<Digest> = gets.filter_map(Request::blob).collect();
    found.retain(|blob| blobs.contains(blob));
    found.sort();
    found
}

fn uploaded(requests: &[Request]) -> impl Iterator<Item = Digest> + '_ {
    requests.iter().filter_map(Request::uploaded)
}

/// Requests that were to change something.
fn writes(requests: &[Request]) -> Vec<String> {
    let writing = requests
        .iter()
        .filter(|request| !matches!(request.method.as_str(), "GET" | "HEAD"));
    writing
        .map(|request| format!("{} {}", request.method, request.path))
        .collect()
}

/// Puts a base image into the registry.
pub fn put_base(server: &Server, source: &str, target: &str) {
    let login = format!("{USER}:{PASSWORD}");
    let target = format!("docker://{}/{target}", server.address());
    let copy = ["copy", "--quiet", "--dest-tls-verify=false"];
    bases::run(
        "skopeo",
        copy.into_iter()
            .chain(["--dest-creds", &login, source, &target]),
    );
}

/// What a command printed with `--json`.
#[track_caller]
fn document(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.out))
}

/// Names and digests of the images that `find` lists.
#[track_caller]
fn found(lab: &Lab, filter: &[&str]) -> Vec<(String, String)> {
    let ran = lab.run(&[&["find", "--json"], filter].concat());
    let document = document(&ran.expect(0, &[]));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let images = document["images"].as_array().unwrap().iter();
    images
        .map(|image| (text(&image["name"]), text(&image["digest"])))
        .collect()
}

#[test]
fn what_a_colleague_has_pushed_is_there_for_everybody() {
    let servers = std::iter::once((Server::docker_registry(LOGIN), true));
    let servers = servers.chain(Server::olareg().map(|server| (server, false)));
    let (docker, podman) = (Docker::start(), Podman::new());
    for (server, login) in servers {
        let site = Site::new(server, login);
        let index = lab::index();
        let first = push(&site, &index);
        engines(&site, &docker, &podman);
        let second = substitute(&site, &first);
        rename(&site, &second);
        need(&site, &second);
        let address = site.address().to_owned();
        drop(site);
        // Without the registry it goes on, and says so; a push cannot.
        second.run(&["build", "--json"]).expect(0, &[]);
        second.run(&["push"]).expect(4, &[&address]);
        for lab in [&first, &second] {
            assert_no_password(&lab.path(""));
        }
    }
}

/// The first one builds and pushes: the base's layers are mounted, everything else is sent once, and then nothing.
fn push(site: &Site, index: &crate::index::Server) -> Lab {
    let source = format!("oci:{}:python", bases::python_base().display());
    put_base(&site.server, &source, "base/python:v1");
    let lab = lab::project(site.address(), index, "");
    let base = format!(
        "base \"small\" {{ from \"{}/base/python:v1\"; }}",
        site.address()
    );
    let registry = format!("registry \"{}/{PREFIX}\"", site.address());
    lab.write("imagewright.kdl", format!("{registry}\n{base}\n{IMAGES}"));
    lab.write("app.txt", "the app\n");
    let (ran, requests) = site.during(|| lab.run(&["push", "--json"]));
    let pushed = document(&ran.expect(0, &[]));
    for image in pushed["images"].as_array().unwrap() {
        let tag = site.named(PREFIX, image["name"].as_str().unwrap());
        assert_eq!(image["digest"], tag.to_string());
    }
    site.server.assert_whole();

    let mounted: BTreeSet<Digest> = requests.iter().filter_map(Request::mounted).collect();
    let base = site.layers("base/python", "v1");
    assert!(base.is_subset(&mounted), "{requests:#?}");
    assert!(mounted.is_subset(&site.server.layers()), "{requests:#?}");
    let sent: Vec<Digest> = uploaded(&requests).collect();
    let once: BTreeSet<Digest> = sent.iter().copied().collect();
    assert_eq!(sent.len(), once.len(), "nothing is sent twice");
    assert!(once.is_disjoint(&base));
    let (_, again) = site.during(|| lab.run(&["push"]).expect(0, &[]));
    assert_eq!(writes(&again), Vec::<String>::new(), "nothing has changed");
    lab
}

/// Both engines pull this very image, and what was put into it works.
fn engines(site: &Site, docker: &Docker, podman: &Podman) {
    let image = format!("{}/{PREFIX}:one", site.address());
    let digest = site.named(PREFIX, "one").to_string();
    let login = format!("{USER}:{PASSWORD}");
    let mut pull = vec!["pull", "--quiet", "--tls-verify=false"];
    if site.login {
        pull.extend(["--creds", &login]);
        let credentials = ["--username", USER, "--password", PASSWORD];
        docker.run(&[&["login"], &credentials[..], &[site.address()]].concat());
    }
    pull.push(&image);
    podman.run(&pull);
    let told = podman.run(&["image", "inspect", "--format", "{{.Digest}}", &image]);
    assert_eq!(told.trim(), digest);
    assert_eq!(podman.python(&image, None, LOOK), SEEN);

    docker.run(&["pull", "--quiet", &image]);
    let format = "{{join .RepoDigests \" \"}}";
    let told = docker.run(&["image", "inspect", "--format", format, &image]);
    let pinned = format!("{}/{PREFIX}@{digest}", site.address());
    assert_eq!(told.trim(), pinned);
    assert_eq!(docker.python(&image, None, LOOK), SEEN);
    docker.run(&["image", "rm", "--force", &image]);
    podman.run(&["image", "rm", "--force", &image]);
}

/// The second one, with an empty store and no package index, has the images without a byte of their layers, and finds
/// them by what is in them.
fn substitute(site: &Site, first: &Lab) -> Lab {
    let lab = lab::colleague(first, site.address());
    let (digests, requests) = site.during(|| lab.build());
    let tags = ["one", "two"].map(|name| site.named(PREFIX, name).to_string());
    assert_eq!(digests, tags);
    site.assert_no_layer_moved(&requests);
    assert_eq!(writes(&requests), Vec::<String>::new());

    let [one, two] = tags.map(Some);
    for (filter, expected) in [
        ("beta>=2", [one.clone(), two]),
        ("Alpha", [one, None]),
        ("beta<2", [None, None]),
    ] {
        let names = ["one", "two"].into_iter().zip(expected);
        let expected: Vec<(String, String)> = names
            .filter_map(|(name, digest)| Some((name.to_owned(), digest?)))
            .collect();
        let (images, requests) = site.during(|| found(&lab, &["--pip", filter]));
        assert_eq!(images, expected, "{filter}");
        site.assert_no_layer_moved(&requests);
    }
    lab
}

/// Another name for what is there moves no layer, and needs neither a package index nor the layers.
fn rename(site: &Site, lab: &Lab) {
    let manifest = fs::read_to_string(lab.project().join("imagewright.kdl")).unwrap();
    lab.write(
        "imagewright.kdl",
        manifest
            .replace("image \"one\"", "image \"renamed\"")
            .replace("image=\"one\"", "image=\"renamed\""),
    );
    let (ran, requests) = site.during(|| lab.run(&["push", "renamed"]));
    ran.expect(0, &["renamed"]);
    site.assert_no_layer_moved(&requests);
    assert_eq!(site.named(PREFIX, "renamed"), site.named(PREFIX, "one"));
    site.server.assert_whole();
    assert_eq!(found(lab, &["--pip", "alpha"]).len(), 2);
}

/// What is executed or exported comes then, every layer once, and no other one.
fn need(site: &Site, lab: &Lab) {
    let all = site.server.layers();
    let one = site.layers(PREFIX, "renamed");
    let exec = ["exec", "renamed", "--", "python", "-c", LOOK];
    let (ran, requests) = site.during(|| lab.run(&exec));
    assert_eq!(ran.expect(0, &[]).out, SEEN);
    assert_eq!(fetched(&requests, &all), Vec::from_iter(one.clone()));

    let (ran, requests) = site.during(|| lab.run(&["test"]));
    ran.expect(0, &["SUCCEEDED", "the app"]);
    assert_eq!(fetched(&requests, &all), [], "all of them are here");

    let two = site.layers(PREFIX, "two");
    let more: Vec<Digest> = two.difference(&one).copied().collect();
    assert!(!more.is_empty() && more.len() < two.len());
    let (ran, requests) = site.during(|| lab.run(&["export", "two", "--oci", "layout"]));
    ran.expect(0, &["wrote"]);
    assert_eq!(fetched(&requests, &all), more);
    let layout = format!("oci:{}", lab.path("layout").display());
    let manifest = bases::run("skopeo", ["inspect", "--raw", &layout]);
    assert_eq!(Digest::of(manifest), site.named(PREFIX, "two"));
    let copy = format!("oci:{}", lab.path("copy").display());
    // Reads every blob, and compares it with its digest.
    bases::run("skopeo", ["copy", "--quiet", &layout, &copy]);
}

/// The password is nowhere but where the user put it.
#[track_caller]
fn assert_no_password(folder: &Path) {
    let basic = wares::basic(USER, PASSWORD);
    let secrets = ["-e", PASSWORD, "-e", basic.trim_start_matches("Basic ")];
    let mut grep = bases::command("grep");
    grep.args(["-r", "-l", "-F", "-a"])
        .args(secrets)
        .arg(folder);
    let holding = String::from_utf8(grep.output().unwrap().stdout).unwrap();
    let holding: Vec<&str> = holding.lines().collect();
    let [own] = holding.as_slice() else {
        panic!("{holding:?}");
    };
    assert!(own.ends_with("home/.docker/config.json"), "{own}");
}

#[test]
fn images_with_repositories_of_their_own_share_layers_by_mounting() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let source = format!("oci:{}:busybox", wares::base().display());
    put_base(&server, &source, "base/busybox:v1");
    let lab = lab::project(server.address(), &index, "");
    let manifest = lab::manifest(server.address(), IMAGES);
    let own = format!("{PREFIX}\" layout=\"per-image\"");
    let base = format!("from \"{}/base/busybox:v1\"", server.address());
    lab.write(
        "imagewright.kdl",
        manifest.replacen(&format!("{PREFIX}\""), &own, 1).replacen(
            "from \"oci:../base:busybox\"",
            &base,
            1,
        ),
    );
    lab.write("app.txt", "the app\n");
    let (ran, requests) = server.during(|| lab.run(&["push"]));
    ran.expect(0, &[]);
    server.assert_whole();
    let repositories = server.repositories();
    for name in ["one", "two", "cache"] {
        assert!(
            repositories.contains(&format!("{PREFIX}/{name}")),
            "{repositories:?}"
        );
    }
    let sent: Vec<Digest> = uploaded(&requests).collect();
    let distinct: BTreeSet<Digest> = sent.iter().copied().collect();
    assert_eq!(sent.len(), distinct.len(), "nothing is sent twice");
    let mounted: BTreeSet<Digest> = requests.iter().filter_map(Request::mounted).collect();
    let shared = mounted.intersection(&server.layers()).count();
    assert!(shared > 0, "{requests:#?}");
}
