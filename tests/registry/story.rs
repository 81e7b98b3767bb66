//! Two colleagues and one registry: what one has pushed the other has, without building and without moving a layer.

use std::collections::BTreeSet;
use std::path::Path;

use imagewright::digest::Digest;
use serde_json::Value;

use crate::bases;
use crate::engines::{Docker, Podman};
use crate::lab::{self, Lab, Options, PASSWORD, PREFIX, Ran, Request, Server, USER};
use crate::wares;

const LOGIN: Options = Options {
    login: true,
    delete: false,
};

/// Puts the busybox base into the registry; its reference.
pub fn base(server: &Server) -> String {
    let reference = format!("{}/base/busybox:v1", server.address());
    let source = format!("oci:{}:busybox", wares::base().display());
    let login = format!("{USER}:{PASSWORD}");
    let target = format!("docker://{reference}");
    let copy = ["copy", "--quiet", "--dest-tls-verify=false"];
    bases::run(
        "skopeo",
        copy.into_iter()
            .chain(["--dest-creds", &login, &source, &target]),
    );
    reference
}

/// A project whose base lies in the registry.
fn project(server: &Server, index: &crate::index::Server, registry: &str, images: &str) -> Lab {
    let lab = lab::project(server.address(), index, "");
    let base = base(server);
    lab.write(
        "imagewright.kdl",
        format!("registry {registry}\nbase \"small\" {{ from \"{base}\"; }}\n{images}\n"),
    );
    lab
}

const IMAGES: &str = r#"
image "one" base="small" { pip "alpha"; file "app.txt" to="/app/"; }
image "two" base="small" { pip "gamma"; }
run "check" image="one" {
    command "sh" "-c" "cat /app/app.txt && ls /opt/venv/lib/python3.11/site-packages/alpha > /results/seen"
    resources ram="64MB" cpu="500m"
    timeout "20s"
}
"#;

/// What a command printed with `--json`.
#[track_caller]
fn document(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.out))
}

/// The names of the images that `find` lists.
#[track_caller]
fn found(lab: &Lab, filter: &[&str]) -> Vec<String> {
    let ran = lab.run(&[&["find", "--json"], filter].concat());
    let document = document(&ran.expect(0, &[]));
    let images = document["images"].as_array().unwrap().iter();
    images
        .map(|image| image["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_a_colleague_has_pushed_is_built_without_a_layer_and_tested_and_found() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let here = format!("\"{}/{PREFIX}\"", server.address());
    let first = project(&server, &index, &here, IMAGES);
    first.write("app.txt", "the app\n");
    let built = first.build();
    first.run(&["push"]).expect(0, &["one", "two"]);
    server.assert_whole();
    let (_, again) = server.during(|| first.run(&["push"]).expect(0, &[]));
    assert_eq!(server.layer_bytes(&again), (0, 0));
    assert_eq!(writes(&again), Vec::<String>::new(), "nothing has changed");

    let second = lab::colleague(&first, server.address());
    let (digests, requests) = server.during(|| second.build());
    assert_eq!(digests, built);
    assert_eq!(server.layer_bytes(&requests), (0, 0), "{requests:#?}");
    assert_eq!(writes(&requests), Vec::<String>::new());
    let layers = server.layers();
    assert!(!layers.is_empty());

    let (ran, requests) = server.during(|| second.run(&["test"]));
    ran.expect(0, &["SUCCEEDED"]);
    assert!(
        server.layer_bytes(&requests).0 > 0,
        "the layers come when they are needed"
    );
    assert_eq!(found(&second, &["--pip", "beta>=2"]), ["one", "two"]);
    assert_eq!(found(&second, &["--pip", "Alpha"]), ["one"]);
    assert_eq!(found(&second, &["--pip", "beta<2"]), Vec::<String>::new());

    // Another name for what is there.
    let manifest = std::fs::read_to_string(second.project().join("imagewright.kdl")).unwrap();
    second.write(
        "imagewright.kdl",
        manifest
            .replace("image \"one\"", "image \"renamed\"")
            .replace("image=\"one\"", "image=\"renamed\""),
    );
    let (ran, requests) = server.during(|| second.run(&["push", "renamed"]));
    ran.expect(0, &["renamed"]);
    assert_eq!(server.layer_bytes(&requests), (0, 0), "{requests:#?}");
    let tags = server.tags(PREFIX);
    let named = |name: &str| tags.iter().find(|(tag, _)| tag == name).map(|tag| tag.1);
    assert_eq!(named("renamed"), named("one"));
    server.assert_whole();
    assert_eq!(found(&second, &["--pip", "alpha"]).len(), 2);

    // Without the registry it goes on, and says so; a push cannot.
    let address = server.address().to_owned();
    drop(server);
    second.run(&["build", "--json"]).expect(0, &[&address]);
    second.run(&["push"]).expect(4, &[&address]);
    for lab in [&first, &second] {
        assert_no_password(&lab.path(""));
    }
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

/// The password is nowhere but where the user put it.
#[track_caller]
fn assert_no_password(folder: &Path) {
    let basic = wares::basic(USER, PASSWORD);
    let secrets = [PASSWORD, basic.trim_start_matches("Basic ")];
    let files = walkdir::WalkDir::new(folder).into_iter().flatten();
    for entry in files.filter(|entry| entry.file_type().is_file()) {
        if entry.path().ends_with(".docker/config.json") {
            continue;
        }
        let bytes = std::fs::read(entry.path()).unwrap();
        for secret in secrets {
            let holds = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!holds, "{} holds the password", entry.path().display());
        }
    }
}

#[test]
fn podman_and_docker_run_what_was_pushed() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let here = format!("\"{}/{PREFIX}\"", server.address());
    let lab = project(&server, &index, &here, IMAGES);
    lab.write("app.txt", "the app\n");
    lab.run(&["push"]).expect(0, &[]);
    let image = format!("{}/{PREFIX}:one", server.address());
    let run = [
        "run",
        "--rm",
        "--network=none",
        &image,
        "cat",
        "/app/app.txt",
    ];

    let podman = Podman::new();
    let login = format!("{USER}:{PASSWORD}");
    podman.run(&[
        "pull",
        "--quiet",
        "--tls-verify=false",
        "--creds",
        &login,
        &image,
    ]);
    assert_eq!(podman.run(&run), "the app\n");

    let docker = Docker::start();
    docker.run(&[
        "login",
        "--username",
        USER,
        "--password",
        PASSWORD,
        server.address(),
    ]);
    docker.run(&["pull", "--quiet", &image]);
    assert_eq!(docker.run(&run), "the app\n");
}

#[test]
fn images_with_repositories_of_their_own_share_layers_by_mounting() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let here = format!("\"{}/{PREFIX}\" layout=\"per-image\"", server.address());
    let lab = project(&server, &index, &here, IMAGES);
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
    let uploaded: Vec<Digest> = requests.iter().filter_map(Request::uploaded).collect();
    let distinct: BTreeSet<Digest> = uploaded.iter().copied().collect();
    assert_eq!(
        uploaded.len(),
        distinct.len(),
        "nothing is sent twice: {requests:#?}"
    );
    let mounted: BTreeSet<Digest> = requests.iter().filter_map(Request::mounted).collect();
    let shared = mounted.intersection(&server.layers()).count();
    assert!(shared > 0, "{requests:#?}");
}
