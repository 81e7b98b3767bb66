//! Images given to engines.

use crate::engines::{Docker, Podman};
use crate::support::{RELEASES, TestContext, index, manifest};

#[test]
fn load_gives_an_image_to_either_engine() {
    let server = index(&RELEASES);
    let manifest = manifest(&server, "image \"small\" base=\"own\" { pip \"alpha\"; }\n");
    let mut context = TestContext::on_python(&manifest);
    let code = "import alpha, os; print(alpha.version, os.getuid())";

    let docker = Docker::start();
    context.variables = vec![("DOCKER_HOST".into(), docker.host())];
    let loaded = context.json(&["load", "small", "--into", "docker"]);
    assert_eq!(loaded["name"], "small");
    let ids = docker.run(&["images", "--no-trunc", "--quiet", "small:latest"]);
    assert_eq!(ids.trim(), loaded["id"].as_str().unwrap());
    assert_eq!(docker.python("small", None, code), "2.0 1000\n");
    let told = context.ok(&[
        "load",
        "small",
        "--into",
        "docker",
        "--name",
        "team/other:v2",
    ]);
    assert!(told.starts_with("loaded team/other:v2 (sha256:"), "{told}");
    assert_eq!(
        docker.python("team/other:v2", Some("4321"), code),
        "2.0 4321\n"
    );
    drop(docker);
    let told = context.fails(4, &["load", "small", "--into", "docker"]);
    assert!(told.contains("docker") && told.contains("sock"), "{told}");

    let podman = Podman::new();
    context.variables = podman.variables();
    let loaded = context.json(&[
        "load",
        "small",
        "--into",
        "podman",
        "--name",
        "localhost/small",
    ]);
    let ids = podman.run(&["images", "--no-trunc", "--quiet"]);
    assert_eq!(ids.trim(), loaded["id"].as_str().unwrap());
    assert_eq!(podman.python("localhost/small", None, code), "2.0 1000\n");

    let told = context.fails(2, &["load", "small", "--platform", "windows"]);
    assert!(
        told.contains("windows") && told.contains("linux/amd64"),
        "{told}"
    );
    context.fails(8, &["load", "small", "--platform", "linux/arm64"]);
    context.fails(8, &["load", "smal"]);
}
