//! The quickstart's larger image in the hands of the programs that will read it.

use std::fs;
use std::path::Path;

use crate::bases::run;
use crate::engines::{Docker, Podman};
use crate::examples::quickstart;

const IMAGE: &str = "diagnosis-boosted";

/// The model's imports, who imports them, and whether home can be written.
const PROBE: &str = "import os, pathlib, sklearn, pandas, lightgbm; \
    home = pathlib.Path.home(); (home / 'probe').write_text('x'); \
    print(sklearn.__version__, pandas.__version__, lightgbm.__version__, os.getuid(), home, os.environ['OMP_NUM_THREADS'])";

fn expected(uid: u32) -> String {
    format!("1.5.2 2.2.3 4.5.0 {uid} /home/app 2\n")
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Exports into a folder of its own.
fn exported(flag: &str, name: &str) -> (tempfile::TempDir, String) {
    let (context, _) = quickstart();
    let folder = tempfile::tempdir().unwrap();
    let path = text(&folder.path().join(name));
    context.ok(&[
        "export",
        IMAGE,
        flag,
        &path,
        "--name",
        "localhost/boosted:v1",
    ]);
    (folder, path)
}

#[test]
fn skopeo_and_umoci_read_the_layout() {
    let (folder, layout) = exported("--oci", "layout");
    let reference = format!("oci:{layout}:localhost/boosted:v1");
    let inspected: serde_json::Value =
        serde_json::from_str(&run("skopeo", ["inspect", &reference])).unwrap();
    let (context, _) = quickstart();
    assert_eq!(inspected["Digest"], context.digest(IMAGE));
    assert_eq!(
        (&inspected["Architecture"], &inspected["Os"]),
        (&"amd64".into(), &"linux".into())
    );
    let config: serde_json::Value =
        serde_json::from_str(&run("skopeo", ["inspect", "--config", &reference])).unwrap();
    let config = &config["config"];
    assert!(
        config["Entrypoint"].is_null() && config["Cmd"].is_null(),
        "{config}"
    );
    assert_eq!(config["User"], "1000:1000");
    let env: Vec<&str> = config["Env"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|line| line.as_str())
        .collect();
    assert!(
        env.iter()
            .any(|line| line.starts_with("PATH=/opt/venv/bin:")),
        "{env:?}"
    );
    assert!(
        env.contains(&"VIRTUAL_ENV=/opt/venv") && env.contains(&"HOME=/home/app"),
        "{env:?}"
    );

    let bundle = folder.path().join("bundle");
    run(
        "umoci",
        [
            "unpack",
            "--image",
            &format!("{layout}:localhost/boosted:v1"),
            &text(&bundle),
        ],
    );
    let root = bundle.join("rootfs");
    let site = root.join("opt/venv/lib/python3.11/site-packages");
    for name in ["sklearn", "pandas", "lightgbm", "numpy", "scipy"] {
        assert!(site.join(name).join("__init__.py").is_file(), "{name}");
    }
    assert!(
        fs::read_to_string(root.join("etc/passwd"))
            .unwrap()
            .contains("app:x:1000:1000:")
    );
    assert!(
        root.join("etc/ld.so.cache").is_file(),
        "maintainer scripts have run"
    );
}

#[test]
fn podman_runs_the_oci_archive_as_any_user() {
    let (folder, archive) = exported("--oci-archive", "image.tar");
    let podman = Podman::new();
    podman.run(&["load", "--input", &archive]);
    drop(folder);
    assert_eq!(
        podman.python("localhost/boosted:v1", None, PROBE),
        expected(1000)
    );
    assert_eq!(
        podman.python("localhost/boosted:v1", Some("54321:0"), PROBE),
        expected(54321)
    );
}

#[test]
fn docker_runs_the_docker_archive_as_any_user() {
    let (folder, archive) = exported("--docker-archive", "image.tar");
    let docker = Docker::start();
    docker.run(&["load", "--input", &archive]);
    drop(folder);
    assert_eq!(
        docker.python("localhost/boosted:v1", None, PROBE),
        expected(1000)
    );
    assert_eq!(
        docker.python("localhost/boosted:v1", Some("54321:0"), PROBE),
        expected(54321)
    );
    let history = docker.run(&["history", "--no-trunc", "localhost/boosted:v1"]);
    assert!(
        history.contains("lightgbm 4.5.0") && history.contains("Debian bookworm"),
        "{history}"
    );
}

#[test]
fn the_embedded_runtime_agrees() {
    let (context, _) = quickstart();
    assert_eq!(
        context.ok(&["exec", IMAGE, "--", "python", "-c", PROBE]),
        expected(1000)
    );
    let ran = context.run(&["exec", IMAGE, "--", "python", "-c", "raise SystemExit(37)"]);
    assert_eq!(ran.code, Some(37));
}
