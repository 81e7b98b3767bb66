//! OS packages above a Debian image that somebody else made; apt is asked what it would install.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use imagewright::digest::Digest;
use imagewright::layer::pack::Packer;
use serde_json::json;

use crate::command::run;
use crate::support::{Project, cache, locked};

const SUITE: &str = "bookworm";
const CREATED: &str = "2026-01-02T03:04:05Z";
const CREATED_SECONDS: &str = "1767323045";
const WANTED: [&str; 5] = ["vim", "ssl-cert", "fontconfig", "dbus", "tini"];

/// A root file system that mmdebstrap made, kept between test runs.
fn root() -> PathBuf {
    let target = cache().join("above-v1.tar");
    if !target.exists() {
        let partial = cache().join("above-v1.partial.tar");
        run(Command::new("mmdebstrap")
            .args(["--quiet", "--variant=essential", "--include=python3", SUITE])
            .arg(&partial));
        fs::rename(partial, &target).unwrap();
    }
    target
}

/// A layout with one image of this tar.
fn layout(folder: &Path, tar: &[u8]) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        json!({ "digest": digest, "size": bytes.len() })
    };
    let typed = |mut descriptor: serde_json::Value, kind: &str| {
        descriptor["mediaType"] = format!("application/vnd.oci.image.{kind}").into();
        descriptor
    };
    let mut packer = Packer::new(Vec::new());
    packer.write_all(tar).unwrap();
    let (blob, packed) = packer.finish().unwrap();
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": CREATED, "config": {},
        "rootfs": { "type": "layers", "diff_ids": [packed.diff_id] },
    });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": typed(put(config.to_string().as_bytes()), "config.v1+json"),
        "layers": [typed(put(&blob), "layer.v1.tar+gzip")],
    });
    let manifest = typed(put(manifest.to_string().as_bytes()), "manifest.v1+json");
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    fs::write(
        folder.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
}

fn file_of(tar: &Path, path: &str) -> String {
    run(Command::new("tar").arg("-xOf").arg(tar).arg(path))
}

/// `package version` of everything that dpkg calls installed.
fn installed(status: &str) -> BTreeMap<String, String> {
    let field = |stanza: &str, name: &str| {
        let line = stanza.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().to_owned())
    };
    status
        .split("\n\n")
        .filter(|stanza| stanza.contains("\nStatus: install ok installed\n"))
        .filter_map(|stanza| Some((field(stanza, "Package:")?, field(stanza, "Version:")?)))
        .collect()
}

/// What apt would install above this dpkg status, by a current index of the host's sources.
fn apt(status: &str) -> BTreeMap<String, String> {
    let folder = cache().join("apt-above");
    for name in ["lists/partial", "archives/partial"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    fs::write(folder.join("status"), status).unwrap();
    let at = |option: &str, name: &str| format!("{option}={}", folder.join(name).display());
    let options = [
        at("Dir::State::status", "status"),
        at("Dir::State::lists", "lists"),
        at("Dir::Cache", ""),
        "APT::Install-Recommends=false".into(),
        "APT::Sandbox::User=root".into(),
        "Debug::NoLocking=true".into(),
    ];
    let get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("LC_ALL", "C").env_remove("APT_CONFIG");
        for option in &options {
            command.args(["-o", option]);
        }
        run(command.args(arguments))
    };
    get(&["update"]);
    let mut arguments = vec!["-s", "install"];
    arguments.extend(WANTED);
    get(&arguments)
        .lines()
        .filter_map(|line| line.strip_prefix("Inst "))
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let version = words.iter().find_map(|word| word.strip_prefix('('));
            (words[0].to_owned(), version.unwrap().to_owned())
        })
        .collect()
}

#[test]
fn packages_above_a_foreign_debian_are_those_that_apt_installs() {
    let tar = root();
    let image = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    layout(image.path(), &fs::read(&tar).unwrap());
    let mut manifest = format!(
        "base \"foreign\" {{\n    from \"oci:{}\"\n    python \"3.11\"\n}}\nimage \"above\" base=\"foreign\" {{\n    pip \"attrs\"\n",
        image.path().display()
    );
    for package in WANTED {
        manifest += &format!("    os \"{package}\"\n");
    }
    let project = Project::build("bases-above", &(manifest + "}\n"));

    let status = file_of(&tar, "./var/lib/dpkg/status");
    let mut expected = installed(&status);
    let before = expected.len();
    let added = apt(&status);
    expected.extend(added.clone());
    assert!(
        expected.len() > before + 10 && before > 90,
        "{before} {added:?}"
    );
    let found = project.exec(
        "above",
        &[
            "dpkg-query",
            "--show",
            "--showformat=${Package} ${Version} ${db:Status-Status}\\n",
        ],
    );
    let wanted: BTreeSet<String> = expected
        .iter()
        .map(|(name, version)| format!("{name} {version} installed"))
        .collect();
    let found: BTreeSet<String> = found.lines().map(Into::into).collect();
    assert_eq!(found, wanted);

    let script = "dpkg --audit; id -un; getent passwd messagebus | cut -d: -f6; vi --version | head -c 3; \
        echo; fc-list | grep -c DejaVu; tini --version | cut -d' ' -f1; ls /etc/ssl/private 2>&1 | grep -c snakeoil; \
        stat -c %Y /etc/ld.so.cache; python -c 'import attrs' && \
        stat -c %Y /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf";
    let said = project.exec("above", &["sh", "-c", script]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines[..7],
        [
            "app",
            "/nonexistent",
            "VIM",
            lines[3],
            "tini",
            "0",
            CREATED_SECONDS
        ],
        "{said}"
    );
    assert!(lines[3].parse::<u32>().unwrap() > 0, "{said}");
    let font: u32 = lines[7].parse().unwrap();
    assert!(
        (1_000_000_000..1_700_000_000).contains(&font),
        "older times stay: {said}"
    );
    let lock = project.lock();
    let debs = &locked(&lock, "above").debs;
    let names: BTreeSet<&str> = debs
        .iter()
        .map(|id| lock.debs[id].package.as_str())
        .collect();
    assert_eq!(names, added.keys().map(String::as_str).collect());
}
