//! Our output in the hands of the programs that will read it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use imagewright::digest::Digest;
use imagewright::image::{
    DockerArchive, Engine, EngineKind, Image, OciArchive, StoreSource, export_layout, load,
    write_file,
};
use imagewright::manifest::Platform;
use imagewright::progress::Silent;
use imagewright::store::Store;
use ocipkg::image::Image as _;

use super::support::*;

fn export(store: &Store, dir: &Path, name: &str, images: &[Image]) -> Digest {
    export_layout(dir, name, images, &StoreSource::new(store), &Silent).unwrap()
}

fn docker_archive(store: &Store, path: &Path, name: &str, image: &Image) -> Digest {
    let source = StoreSource::new(store);
    write_file(path, |out| {
        DockerArchive { name, image }.write(out, &source, &Silent)
    })
    .unwrap()
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// What every engine must print for the sample image, as the default user and as one that nobody declared.
const PROBE: &str = "import os, sys; \
    open(os.path.expanduser('~/t'), 'w').write('x'); open('/work/t', 'w').write('x'); open('/tmp/t', 'w').write('x'); \
    print(sys.prefix, sys.version_info[:2], os.getuid(), os.getcwd(), os.environ['B'], os.readlink('/app/sub/link.py'))";

fn expected(uid: u32) -> String {
    format!("/opt/venv (3, 11) {uid} /work x y ../main.py\n")
}

#[test]
fn skopeo_umoci_and_ocipkg_read_a_layout() {
    let (test, project, out) = (store(), sample_project(), tempfile::tempdir().unwrap());
    let image = sample_image(&test.store, project.path());
    let dir = out.path().join("layout");
    let digest = export(&test.store, &dir, "sample:v1", std::slice::from_ref(&image));
    assert_eq!(digest, image.digest());
    let first_index = fs::read(dir.join("index.json")).unwrap();
    assert_eq!(
        export(&test.store, &dir, "sample:v1", std::slice::from_ref(&image)),
        digest
    );
    assert_eq!(
        fs::read(dir.join("index.json")).unwrap(),
        first_index,
        "writing twice changes nothing"
    );

    let mut other = image.clone();
    other.platform = Platform::LinuxArm64;
    other.config = other.config.replace("\"amd64\"", "\"arm64\"");
    let swapped = image.config_digest().to_string();
    other.manifest = other
        .manifest
        .replace(&swapped, &other.config_digest().to_string());
    let both = [image.clone(), other.clone()];
    let index = export(&test.store, &dir, "both", &both);
    assert_ne!(index, digest);

    let reference = format!("oci:{}:sample:v1", dir.display());
    let inspected: serde_json::Value =
        serde_json::from_str(&run("skopeo", ["inspect", &reference])).unwrap();
    assert_eq!(inspected["Digest"], digest.to_string());
    assert_eq!(inspected["Layers"].as_array().unwrap().len(), 4);
    assert_eq!(inspected["Labels"]["from"], "base");
    for (platform, wanted) in [("amd64", &image), ("arm64", &other)] {
        let reference = format!("oci:{}:both", dir.display());
        let args = [
            "--override-arch",
            platform,
            "inspect",
            "--config",
            &reference,
        ];
        let config: serde_json::Value = serde_json::from_str(&run("skopeo", args)).unwrap();
        assert_eq!(config["architecture"], platform);
        let ours: serde_json::Value = serde_json::from_str(&wanted.config).unwrap();
        assert_eq!(config["config"]["Env"], ours["config"]["Env"]);
    }
    let copy = out.path().join("copy");
    run(
        "skopeo",
        ["copy", &reference, &format!("oci:{}:x", copy.display())],
    );

    let bundle = out.path().join("bundle");
    run(
        "umoci",
        [
            "unpack",
            "--image",
            &format!("{}:sample:v1", dir.display()),
            &text(&bundle),
        ],
    );
    let root = bundle.join("rootfs");
    let meta = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
    assert_eq!(meta("home/app").permissions().mode() & 0o7777, 0o775);
    assert_eq!(
        (
            meta("home/app").uid(),
            meta("work").uid(),
            meta("work").gid()
        ),
        (1000, 1000, 0)
    );
    assert_eq!(meta("tmp").permissions().mode() & 0o7777, 0o1777);
    assert!(
        fs::read_to_string(root.join("etc/passwd"))
            .unwrap()
            .ends_with("app:x:1000:1000:app:/home/app:/bin/sh\n")
    );
    assert_eq!(
        fs::read_link(root.join("opt/venv/bin/python")).unwrap(),
        Path::new("/usr/bin/python3.11")
    );
    assert!(
        root.join("opt/venv/lib64/python3.11/site-packages")
            .is_dir()
    );

    let archive = out.path().join("sample.oci.tar");
    let source = StoreSource::new(&test.store);
    let one = [image.clone()];
    let written = OciArchive {
        name: "sample",
        images: &one,
    };
    assert_eq!(
        write_file(&archive, |o| written.write(o, &source, &Silent)).unwrap(),
        digest
    );
    let again = out.path().join("again.tar");
    write_file(&again, |o| written.write(o, &source, &Silent)).unwrap();
    assert!(fs::read(&archive).unwrap() == fs::read(&again).unwrap());
    let inspected = run(
        "skopeo",
        [
            "inspect",
            &format!("oci-archive:{}:sample", archive.display()),
        ],
    );
    assert!(inspected.contains(&digest.to_string()));
    let mut read = ocipkg::image::OciArchive::new(&archive).unwrap();
    let manifest = read.get_manifest().unwrap();
    assert_eq!(manifest.layers().len(), 4);
    let last = manifest.layers()[3].digest().clone();
    assert_eq!(
        Digest::of(read.get_blob(&last).unwrap()),
        image.layers[3].digest
    );
}

/// Options that keep Podman's state in `dir`. runc first: crun refuses machines with both versions of cgroups.
fn podman(dir: &Path) -> Vec<String> {
    let runtime = run("sh", ["-c", "command -v runc || command -v crun"]);
    let at = |name: &str| text(&dir.join(name));
    let mut options = vec!["--root".into(), at("root"), "--runroot".into(), at("run")];
    options.extend(["--runtime".into(), runtime.trim().into()]);
    options.extend(["--cgroup-manager", "cgroupfs", "--events-backend", "none"].map(String::from));
    options
}

/// Podman's storage stays mounted on itself when its commands have ended.
struct PodmanState(tempfile::TempDir);

impl Drop for PodmanState {
    fn drop(&mut self) {
        let _ = command("umount")
            .arg(self.0.path().join("root/overlay"))
            .output();
    }
}

#[test]
fn podman_loads_and_runs() {
    let (test, project) = (store(), sample_project());
    let state = PodmanState(tempfile::tempdir().unwrap());
    let out = &state.0;
    let image = sample_image(&test.store, project.path());
    let options = podman(out.path());
    let with = |more: &[&str]| -> Vec<String> {
        options
            .iter()
            .cloned()
            .chain(more.iter().map(|word| (*word).to_owned()))
            .collect()
    };
    let engine = Engine {
        options: options.iter().map(Into::into).collect(),
        ..Engine::new(EngineKind::Podman)
    };
    let source = StoreSource::new(&test.store);
    let id = load(&engine, "localhost/sample:v1", &image, &source, &Silent).unwrap();
    assert!(run("podman", with(&["images", "-q", "--no-trunc"])).contains(&id.to_string()));
    for (user, uid) in [("", 1000), ("54321:0", 54321)] {
        let mut args = vec![
            "run",
            "--rm",
            "--network=none",
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1024:1024",
        ];
        if !user.is_empty() {
            args.extend(["--user", user]);
        }
        args.extend(["localhost/sample:v1", "python", "-c", PROBE]);
        assert_eq!(run("podman", with(&args)), expected(uid));
    }
    run("podman", with(&["rmi", "-a", "-f"]));
    let archive = out.path().join("docker.tar");
    docker_archive(&test.store, &archive, "localhost/sample", &image);
    run("podman", with(&["load", "-i", &text(&archive)]));
    assert!(run("podman", with(&["images"])).contains("latest"));
    run("podman", with(&["rmi", "-a", "-f"]));
    let broken = Engine {
        program: "/no/such/engine".into(),
        ..Engine::new(EngineKind::Docker)
    };
    assert!(load(&broken, "x", &image, &source, &Silent).is_err());
}

/// A Docker daemon of our own; ended by its process id.
struct Daemon {
    child: Child,
    dir: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| text(&dir.path().join(name));
        let log = fs::File::create(dir.path().join("log")).unwrap();
        fs::write(at("config.json"), "{}").unwrap();
        let child = command("dockerd")
            .args([
                "--data-root",
                &at("data"),
                "--exec-root",
                &at("exec"),
                "--pidfile",
                &at("pid"),
            ])
            .args([
                "-H",
                &format!("unix://{}", at("sock")),
                "--bridge=none",
                "--iptables=false",
            ])
            .args(["--config-file", &at("config.json")])
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let daemon = Self { child, dir };
        let end = Instant::now() + Duration::from_secs(60);
        while !daemon
            .docker()
            .args(["version"])
            .output()
            .unwrap()
            .status
            .success()
        {
            let log = fs::read_to_string(daemon.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "dockerd does not start: {log}");
            std::thread::sleep(Duration::from_millis(200));
        }
        daemon
    }

    fn socket(&self) -> String {
        format!("unix://{}", self.dir.path().join("sock").display())
    }

    fn docker(&self) -> Command {
        let mut docker = command("docker");
        docker
            .args(["-H", &self.socket()])
            .env("HOME", self.dir.path());
        docker
    }

    fn run(&self, args: &[&str]) -> String {
        let output = self.docker().args(args).output().unwrap();
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = run("kill", [self.child.id().to_string()]);
        let _ = self.child.wait();
    }
}

#[test]
fn docker_loads_and_runs() {
    let (test, project) = (store(), sample_project());
    let image = sample_image(&test.store, project.path());
    let daemon = Daemon::start();
    let engine = Engine {
        options: vec!["-H".into(), daemon.socket().into()],
        ..Engine::new(EngineKind::Docker)
    };
    let source = StoreSource::new(&test.store);
    let id = load(&engine, "sample:v1", &image, &source, &Silent).unwrap();
    let shown = daemon.run(&[
        "image",
        "inspect",
        "-f",
        "{{.Id}} {{.Config.User}}",
        "sample:v1",
    ]);
    assert_eq!(shown.trim(), format!("{id} 1000:1000"));
    for (user, uid) in [("1000:1000", 1000), ("54321", 54321)] {
        let args = [
            "run",
            "--rm",
            "--network=none",
            "--user",
            user,
            "sample:v1",
            "python",
            "-c",
            PROBE,
        ];
        assert_eq!(daemon.run(&args), expected(uid));
    }
    assert!(
        daemon
            .run(&["history", "--no-trunc", "sample:v1"])
            .contains("user app (1000:1000)")
    );

    let mut damaged = image.clone();
    damaged.layers.last_mut().unwrap().digest = Digest::of("other");
    assert!(load(&engine, "bad:v1", &damaged, &source, &Silent).is_err());
    assert!(
        !daemon.run(&["images"]).contains("bad"),
        "a broken stream leaves no image"
    );
    let nobody = Engine {
        options: vec!["-H".into(), "unix:///no/such.sock".into()],
        ..engine
    };
    let error = load(&nobody, "x", &image, &source, &Silent).unwrap_err();
    assert!(error.to_string().contains("no/such.sock"), "{error}");
}

/// zstd layers of a base reach Docker engines that do not know zstd.
#[test]
fn zstd_base_layers_become_plain_in_docker_archives() {
    let (test, out) = (store(), tempfile::tempdir().unwrap());
    let layout = Layout::new(&out.path().join("base"));
    let tar = tar(&[Item::File("etc/hello", &b"hello ".repeat(5000))]);
    let blob = zstd::encode_all(tar.as_slice(), 3).unwrap();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&tar)]},
    });
    let layer = serde_json::json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd",
        "digest": layout.blob(&blob), "size": blob.len(),
    });
    layout.add_parts("z", config.to_string().as_bytes(), &[layer]);
    let base = layout.inspect(&test.store, "z").unwrap();
    let parts = imagewright::image::Parts {
        platform: AMD64,
        base: Some(&base),
        layers: Vec::new(),
        config: &Default::default(),
    };
    let image = imagewright::image::assemble(parts).unwrap();
    let archive: PathBuf = out.path().join("z.tar");
    docker_archive(&test.store, &archive, "z", &image);
    let copied = out.path().join("dir");
    run(
        "skopeo",
        [
            "copy",
            &format!("docker-archive:{}", archive.display()),
            &format!("oci:{}:z", copied.display()),
        ],
    );
    run(
        "umoci",
        [
            "unpack",
            "--image",
            &format!("{}:z", copied.display()),
            &text(&out.path().join("bundle")),
        ],
    );
    let hello = fs::read(out.path().join("bundle/rootfs/etc/hello")).unwrap();
    assert_eq!(hello, b"hello ".repeat(5000));
}
