//! OS layers made by dpkg, in a sandbox of unshare, overlay and chroot; mmdebstrap judges the base.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use imagewright::diagnostic::{Explain, Kind};
use imagewright::digest::Digest;
use imagewright::http::Http;
use imagewright::layer::debian::{
    Built, DebianLayerError, DebianRequest, Sandbox, SandboxError, SandboxExit, SandboxJob,
    TreeJob, build_base, build_os, emit_tree, known,
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
        snapshot: None,
        fallback: None,
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

/// Where our base differs from mmdebstrap's, and why.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "dev/",
        "devices are the runtime's affair: a layer with devices cannot be unpacked without root",
    ),
    ("run/lock", "/run is empty: runtimes mount a tmpfs there"),
    ("etc/fstab", "mmdebstrap writes one"),
    ("etc/hostname", "mmdebstrap copies the host's"),
    ("etc/resolv.conf", "mmdebstrap copies the host's"),
    (
        "etc/apt/sources.list",
        "apt's index is not part of an image's identity",
    ),
    ("etc/group-", "backup"),
    ("etc/passwd-", "backup"),
    ("etc/shadow-", "backup"),
    ("var/cache/apt/archives/lock", "lock"),
    (
        "var/cache/apt/archives/partial",
        "apt takes the folder for its own user when it runs",
    ),
    ("var/cache/debconf/config.dat-old", "backup"),
    ("var/cache/debconf/templates.dat-old", "backup"),
    (
        "var/lib/apt/extended_states",
        "apt's notes on what it installed by itself",
    ),
    ("var/lib/apt/lists/lock", "lock"),
    ("var/lib/apt/lists/partial", "made by apt when it runs"),
    (
        "var/lib/dpkg/arch",
        "mmdebstrap writes the native architecture, which dpkg knows",
    ),
    ("var/lib/dpkg/diversions-old", "backup"),
    ("var/lib/dpkg/lock", "lock"),
    ("var/lib/dpkg/lock-frontend", "lock"),
    ("var/lib/dpkg/status-old", "backup"),
    ("var/lib/dpkg/triggers/Lock", "lock"),
];

/// The base that the other tests here stand on, built into a store of its own.
fn build_minimal(shared: &Store) -> (tempfile::TempDir, Store, BaseSolution, Built) {
    let solution = base_of(shared, &["ca-certificates"]);
    let (folder, store) = fresh_store(shared, &solution.debs);
    let wanted = request(&solution.debs, solution.epoch, vec![]);
    let built = build_base(&store, &Unshare, &wanted, &Silent).unwrap();
    (folder, store, solution, built)
}

#[test]
fn the_base_is_what_mmdebstrap_makes_of_the_same_packages() {
    let shared = shared_store();
    let (_folder, store, solution, built) = build_minimal(&shared);
    let tar = unpacked(&store, &built);
    let ours = listing(&tar);
    let theirs = listing(&mmdebstrap(&solution));
    let mut unexpected = Vec::new();
    let paths: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    assert!(paths.len() > 5000);
    for path in paths {
        let (a, b) = (ours.get(path), theirs.get(path));
        let listed = DIFFERENCES
            .iter()
            .any(|(known, _)| path == known || (known.ends_with('/') && path.starts_with(known)));
        // Its third field is the day of the build there, and never newer than the archive here.
        if a != b && !listed && path != "etc/shadow" {
            unexpected.push(format!("{path}: {a:?} {b:?}"));
        }
    }
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
    let day = (solution.epoch / 86_400).to_string();
    let shadow = content(&tar, "etc/shadow");
    assert!(
        shadow.lines().count() > 15
            && shadow
                .lines()
                .all(|line| line.split(':').nth(2) == Some(&day)),
        "{shadow}"
    );
    newest_is(&tar, solution.epoch);
    // Known now: nothing is run, not even with a sandbox that cannot.
    let wanted = request(&solution.debs, solution.epoch, vec![]);
    assert_eq!(
        build_base(&store, &NoSandbox, &wanted, &Silent).unwrap(),
        built
    );
    assert_eq!(
        known(&store, &wanted.key()).unwrap(),
        Some(built.layer.clone())
    );
    // The blob is gone, and the lock tells another diff ID than the rebuild has: reported.
    fs::remove_file(store.blob_path(&built.layer.digest)).unwrap();
    let expected = Digest::of("another");
    let wanted = DebianRequest {
        expected: Some(expected),
        ..wanted
    };
    let again = build_base(&store, &Unshare, &wanted, &Silent).unwrap();
    assert_eq!(again.layer, built.layer);
    assert_eq!(again.differs_from, Some(expected));
    let left = fs::read_dir(store.scratch().path()).unwrap().count();
    assert_eq!(left, 0, "temporary files left");
}

fn content(tar: &[u8], path: &str) -> String {
    let mut archive = tar::Archive::new(tar);
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut entry = entries
        .find(|entry| *entry.path_bytes() == *path.as_bytes())
        .unwrap();
    let mut text = String::new();
    entry.read_to_string(&mut text).unwrap();
    text
}

fn newest_is(tar: &[u8], epoch: i64) {
    let mut archive = tar::Archive::new(tar);
    let times = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().header().mtime().unwrap());
    let times: BTreeSet<u64> = times.collect();
    assert_eq!(times.last(), Some(&(epoch as u64)));
    assert!(times.len() > 10, "older times stay");
}

/// A machine without namespaces.
struct NoSandbox;

impl Sandbox for NoSandbox {
    fn run(&self, _: &SandboxJob, _: &(dyn Fn(&[u8]) + Sync)) -> Result<SandboxExit, SandboxError> {
        Err(SandboxError {
            message: "no user namespaces".into(),
            hint: Some("use a registry".into()),
            kind: Kind::Unavailable,
        })
    }
}

/// Packages with every kind of secret, cache and clock that maintainer scripts are known to leave.
const OWN: [&str; 7] = [
    "vim",
    "ssl-cert",
    "fontconfig",
    "fonts-dejavu-core",
    "openssh-server",
    "dbus",
    "default-jre-headless",
];

#[test]
fn an_os_layer_holds_no_secret_and_does_not_show_the_clock() {
    let shared = shared_store();
    let (folder, store, base, built) = build_minimal(&shared);
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let blob = store.blob(&built.layer.digest).unwrap();
    run(Command::new("tar")
        .args(["--numeric-owner", "-xzpf"])
        .arg(blob)
        .arg("-C")
        .arg(&tree));
    let wanted = AboveRequest {
        installed: Installed::Debs(&base.debs),
        os: &os(&OWN),
    };
    let debs = resolve_above(&debian(&shared), &wanted, &BTreeMap::new()).unwrap();
    assert!(
        debs.iter()
            .all(|deb| base.debs.iter().all(|other| other.package != deb.package))
    );
    fetch(&shared, &debs);
    let wanted = request(&debs, base.epoch, vec![built.layer.diff_id]);
    let lower = [tree.clone()];
    let mut tars = Vec::new();
    for wait in [true, false] {
        let (_folder, store) = fresh_store(&shared, &debs);
        let begin = Instant::now();
        let built = build_os(&store, &Unshare, &wanted, &lower, &Silent).unwrap();
        tars.push(unpacked(&store, &built));
        if wait {
            std::thread::sleep(Duration::from_secs(66).saturating_sub(begin.elapsed()));
        }
    }
    let [first, second] = [listing(&tars[0]), listing(&tars[1])];
    let differing: Vec<_> = first
        .iter()
        .filter(|(path, line)| second.get(*path) != Some(line))
        .map(|(path, line)| format!("{path}: {line} {:?}", second.get(path)))
        .collect();
    assert!(differing.is_empty(), "{differing:#?}");
    assert_eq!(Digest::of(&tars[0]), Digest::of(&tars[1]));
    newest_is(&tars[0], base.epoch);
    for path in [
        "usr/bin/vim.basic",
        "etc/alternatives/vi",
        "etc/ssl/certs/java/cacerts",
        "var/lib/dpkg/status",
    ] {
        assert!(first.contains_key(path), "{path}");
    }
    assert!(
        first
            .keys()
            .any(|path| path.starts_with("var/cache/fontconfig/"))
    );
    // The certificates' dates were rewritten, and Java still accepts the store's checksum.
    let own = folder.path().join("own");
    fs::create_dir_all(own.join("upper")).unwrap();
    fs::write(own.join("tar"), &tars[0]).unwrap();
    run(Command::new("tar")
        .args(["--numeric-owner", "-xpf"])
        .arg(own.join("tar"))
        .arg("-C")
        .arg(own.join("upper")));
    let keytool = "keytool -list -storepass changeit -keystore /etc/ssl/certs/java/cacerts";
    let job = SandboxJob {
        lower: vec![tree],
        upper: own.join("upper"),
        argv: keytool.split(' ').map(Into::into).collect(),
        env: BTreeMap::from([("PATH".into(), "/usr/sbin:/usr/bin".into())]),
    };
    let listed = Mutex::new(Vec::new());
    let ended = Unshare.run(&job, &|bytes| {
        listed.lock().unwrap().extend_from_slice(bytes)
    });
    let listed = String::from_utf8(listed.into_inner().unwrap()).unwrap();
    assert_eq!(ended.unwrap().code, 0, "{listed}");
    assert!(listed.matches("trustedCertEntry").count() > 100, "{listed}");
    for (path, line) in &first {
        let by_package = path.starts_with("usr/") || path.starts_with("var/lib/dpkg/info/");
        if path.contains("snakeoil") || line.contains("snakeoil") {
            assert!(by_package, "{path} {line}");
        }
        assert!(
            !path.contains("ssh_host_") && !path.contains("imagewright"),
            "{path}"
        );
        assert!(
            !path.ends_with("machine-id") || line.ends_with(&Digest::of("").short()) || by_package,
            "{path}"
        );
        assert!(
            !path.ends_with("policy-rc.d") && !path.contains(".wh."),
            "{path}"
        );
    }
}

#[test]
fn a_script_that_fails_and_a_missing_sandbox_are_told() {
    let shared = shared_store();
    let (_folder, store) = fresh_store(&shared, &[]);
    let tree = tempfile::tempdir().unwrap();
    let control = "Package: bad\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.com>\n\
        Essential: yes\nDescription: bad\n";
    fs::create_dir(tree.path().join("DEBIAN")).unwrap();
    fs::write(tree.path().join("DEBIAN/control"), control).unwrap();
    let file = tree.path().with_extension("deb");
    run(Command::new("dpkg-deb")
        .args(["--root-owner-group", "--build"])
        .arg(tree.path())
        .arg(&file));
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let mut deb = LockedDeb {
        package: "bad".into(),
        version: "1".into(),
        architecture: "all".into(),
        sha256: Digest::of(&bytes),
        size: bytes.len() as u64,
        path: "pool/bad.deb".into(),
        suite: SUITE.into(),
    };
    let fail = |deb: &LockedDeb, sandbox: &dyn Sandbox| {
        let debs = [deb.clone()];
        build_base(
            &store,
            sandbox,
            &request(&debs, 1_000_000_000, vec![]),
            &Silent,
        )
        .unwrap_err()
    };
    let error = fail(&deb, &Unshare);
    assert_eq!(
        (error.kind(), error.to_string().contains("bad 1")),
        (Kind::NotFound, true),
        "{error}"
    );
    fs::write(store.artifact_path(&deb.sha256), &bytes).unwrap();
    let error = fail(&deb, &NoSandbox);
    assert_eq!(error.to_string(), "no user namespaces");
    assert_eq!(error.hint().as_deref(), Some("use a registry"));
    // No shell in this base: the container starts and its command does not.
    let error = fail(&deb, &Unshare);
    assert!(matches!(error, DebianLayerError::Failed { .. }), "{error}");
    assert!(error.to_string().contains("/bin/sh"), "{error}");
    fs::write(store.artifact_path(&Digest::of("no deb")), "no deb").unwrap();
    deb.sha256 = Digest::of("no deb");
    let error = fail(&deb, &Unshare);
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("bad 1"), "{error}");
    assert_eq!(fs::read_dir(store.scratch().path()).unwrap().count(), 0);
}

#[test]
fn removed_and_replaced_things_become_whiteouts() {
    let folder = tempfile::tempdir_in(cache("work")).unwrap();
    let tree = folder.path().join("base");
    for path in ["kept", "gone", "replaced/old", "removed/child"] {
        fs::create_dir_all(tree.join(path).parent().unwrap()).unwrap();
        fs::write(tree.join(path), path).unwrap();
    }
    let upper = folder.path().join("upper");
    fs::create_dir(&upper).unwrap();
    fs::write(upper.join("busy"), "").unwrap();
    for name in ["work", "merged"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let change = "rm ./gone; rm -r ./replaced ./removed; mkdir ./replaced ./fresh; echo new > ./replaced/new; \
        ln ./kept ./second; mkfifo ./pipe; ln -s kept ./link; chmod 4711 ./busy";
    let script = format!(
        "mount -t overlay overlay -o lowerdir={},upperdir={},workdir={} {merged} && cd {merged} && {}",
        tree.display(),
        upper.display(),
        folder.path().join("work").display(),
        change,
        merged = folder.path().join("merged").display(),
    );
    run(Command::new("unshare").args(["--mount", "sh", "-ec", &script]));
    let mut tar = Vec::new();
    let job = TreeJob {
        root: upper,
        lower: vec![tree],
        epoch: 1_000_000_000,
    };
    emit_tree(&job, &mut tar).unwrap();
    let found = listing(&tar);
    let paths: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            ".wh.gone",
            ".wh.removed",
            "busy",
            "fresh",
            "kept",
            "link",
            "pipe",
            "replaced",
            "replaced/.wh..wh..opq",
            "replaced/new",
            "second",
        ]
    );
    assert!(
        found["busy"].starts_with("Regular 4711 0:0"),
        "{}",
        found["busy"]
    );
    assert!(
        found["second"].starts_with("Link 644 0:0 kept"),
        "{}",
        found["second"]
    );
    assert!(found["pipe"].starts_with("Fifo"), "{}", found["pipe"]);
    assert!(
        found["link"].starts_with("Symlink 777 0:0 kept"),
        "{}",
        found["link"]
    );
}
