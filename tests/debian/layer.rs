//! OS layers made by dpkg, in a sandbox of unshare, overlay and chroot; mmdebstrap judges the base.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use imagewright::diagnostic::{Explain, Kind};
use imagewright::digest::Digest;
use imagewright::http::Http;
use imagewright::layer::debian::{
    Built, DebianLayerError, DebianRequest, Sandbox, SandboxError, SandboxExit, SandboxJob,
    build_base, build_os, known,
};
use imagewright::lock::LockedDeb;
use imagewright::progress::Silent;
use imagewright::resolve::debian::{
    AboveRequest, BaseRequest, BaseSolution, Installed, resolve_above, resolve_base,
};
use imagewright::source::debian::{DebSource, fetch_debs};
use imagewright::store::Store;

use crate::support::{SUITE, cache, debian, host_ambient, os, run, runtime, shared_store, suite};

/// A second, independent runtime: as root, with the tools of the host.
struct Unshare;

const SETUP: &str = r#"
set -e
root=$1; options=$2; shift 2
mount --make-rprivate /
mount -t overlay overlay -o "$options" "$root"
mkdir -p "$root/proc" "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 dev "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
exec chroot "$root" "$@"
"#;

impl Sandbox for Unshare {
    fn run(
        &self,
        job: &SandboxJob,
        output: &(dyn Fn(&[u8]) + Sync),
    ) -> Result<SandboxExit, SandboxError> {
        let beside = |name: &str| {
            let path = job.upper.with_file_name(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let (root, work) = (beside("merged"), beside("work"));
        let lower: Vec<String> = job
            .lower
            .iter()
            .rev()
            .map(|path| path.display().to_string())
            .collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},volatile",
            lower.join(":"),
            job.upper.display(),
            work.display()
        );
        let mut child = Command::new("unshare")
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--net",
                "--uts",
                "--ipc",
            ])
            .args(["sh", "-c", SETUP, "sh"])
            .arg(&root)
            .arg(options)
            .args(&job.argv)
            .env_clear()
            .envs(&job.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pump = |mut from: Box<dyn Read + Send>| {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                output(&buffer[..count]);
            }
        };
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| pump(Box::new(out)));
            scope.spawn(|| pump(Box::new(err)));
        });
        let status = child.wait().unwrap();
        let code = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ok(SandboxExit { code })
    }
}

fn fetch(store: &Store, debs: &[LockedDeb]) {
    let ambient = host_ambient();
    let http = Http::new(&ambient, false).unwrap();
    let source = DebSource {
        http: &http,
        ambient: &ambient,
        store,
        progress: &Silent,
        mirror: None,
    };
    let debs: Vec<&LockedDeb> = debs.iter().collect();
    runtime().block_on(fetch_debs(source, &debs)).unwrap();
}

fn base_of(store: &Store, lines: &[&str]) -> BaseSolution {
    let request = BaseRequest {
        suite: &suite(),
        os: &os(lines),
        python: None,
    };
    let solution = resolve_base(&debian(store), &request, &BTreeMap::new()).unwrap();
    fetch(store, &solution.debs);
    solution
}

fn request<'a>(debs: &'a [LockedDeb], epoch: i64, parents: Vec<Digest>) -> DebianRequest<'a> {
    DebianRequest {
        architecture: "amd64",
        debs: debs.iter().collect(),
        epoch,
        parents,
        comment: "test".into(),
        expected: None,
    }
}

/// A store that has the shared store's artifacts, and nothing else.
fn fresh_store(shared: &Store, debs: &[LockedDeb]) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir_in(cache("work")).unwrap();
    let store = Store::open(folder.path()).unwrap();
    for deb in debs {
        let from = shared.artifact(&deb.sha256).unwrap();
        fs::hard_link(from, store.artifact_path(&deb.sha256)).unwrap();
    }
    (folder, store)
}

fn unpacked(store: &Store, built: &Built) -> Vec<u8> {
    let blob = fs::File::open(store.blob(&built.layer.digest).unwrap()).unwrap();
    let mut tar = Vec::new();
    flate2::read::MultiGzDecoder::new(blob)
        .read_to_end(&mut tar)
        .unwrap();
    assert_eq!(Digest::of(&tar), built.layer.diff_id);
    tar
}

/// Path → what can be said of it in one line.
fn listing(tar: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(tar);
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = path
            .trim_start_matches("./")
            .trim_end_matches('/')
            .to_owned();
        if path.is_empty() {
            continue;
        }
        let header = entry.header().clone();
        let link = entry
            .link_name_bytes()
            .map(|link| String::from_utf8_lossy(&link).into_owned());
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let line = format!(
            "{:?} {:o} {}:{} {} {}",
            header.entry_type(),
            header.mode().unwrap(),
            header.uid().unwrap(),
            header.gid().unwrap(),
            link.unwrap_or_default().trim_start_matches("./"),
            Digest::of(&content).short(),
        );
        let again = found.insert(path.clone(), line);
        assert_eq!(again, None, "{path} twice");
    }
    found
}

/// Left alone, mmdebstrap's first step takes the first alternative of `usrmerge | usr-is-merged`.
const PIN: &str = "Package: usrmerge\\nPin: release *\\nPin-Priority: -1\\n";
const FILE: &str = "/etc/apt/preferences.d/merged";

fn mmdebstrap(solution: &BaseSolution) -> Vec<u8> {
    let names: Vec<String> = solution
        .debs
        .iter()
        .map(|deb| format!("{}={}", deb.package, deb.version))
        .collect();
    let include = names.join(",");
    let key = Digest::of(&include).short();
    let target = cache("mmdebstrap").join(format!("{key}.tar"));
    if !target.exists() {
        let partial = target.with_extension("partial.tar");
        let mut command = Command::new("mmdebstrap");
        command
            .args(["--mode=root", "--variant=essential", "--quiet"])
            .arg("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr")
            .arg(format!(
                "--setup-hook=mkdir -p $1/etc/apt/preferences.d; printf '{PIN}' > $1{FILE}"
            ))
            .arg(format!("--customize-hook=rm $1{FILE}"))
            .arg(format!("--include={include}"))
            .args([SUITE, partial.to_str().unwrap()])
            .env_remove("SOURCE_DATE_EPOCH");
        for (name, mirrors) in host_ambient().debian_mirrors {
            if name == SUITE || name.starts_with(&format!("{SUITE}-")) {
                command.arg(format!("deb {} {name} main", mirrors[0]));
            }
        }
        run(&mut command);
        fs::rename(partial, &target).unwrap();
    }
    fs::read(target).unwrap()
}

#[test]
fn the_base_is_what_mmdebstrap_makes_of_the_same_packages() {
    let shared = shared_store();
    let solution = base_of(&shared, &["ca-certificates"]);
    let (_folder, store) = fresh_store(&shared, &solution.debs);
    let begin = Instant::now();
    let built = build_base(
        &store,
        &Unshare,
        &request(&solution.debs, solution.epoch, vec![]),
        &Silent,
    )
    .unwrap();
    println!(
        "built {} debs in {:?}: {:?}",
        solution.debs.len(),
        begin.elapsed(),
        built.layer
    );
    let ours = listing(&unpacked(&store, &built));
    let theirs = listing(&mmdebstrap(&solution));
    let mut differences = Vec::new();
    let paths: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for path in paths {
        let (a, b) = (ours.get(path), theirs.get(path));
        if a != b {
            differences.push(format!("{path}: {a:?} {b:?}"));
        }
    }
    assert!(
        differences.is_empty(),
        "{}\n{}",
        differences.len(),
        differences.join("\n")
    );
}
