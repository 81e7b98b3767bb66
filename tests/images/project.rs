//! Project files: what is taken, what is refused, and that the same project gives the same bytes.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use imagewright::diagnostic::Explain;
use imagewright::digest::Digest;
use imagewright::identity::FileDocument;
use imagewright::layer::Layer;
use imagewright::layer::files::{self, FilesError, ScanError, ScanReason};
use imagewright::manifest::{FetchSpec, FileSpec};
use imagewright::store::Store;

use super::support::*;

/// What GNU tar lists of a layer: mode, owner, path.
fn listing(store: &Store, layer: &Layer) -> Vec<String> {
    let path = store.blob_path(&layer.digest);
    let args = [
        "--numeric-owner",
        "--full-time",
        "--utc",
        "--quoting-style=literal",
        "-tvzf",
    ];
    let text = run(
        "tar",
        args.map(OsStr::new).into_iter().chain([path.as_os_str()]),
    );
    text.lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(words[3..5], ["1980-01-01", "00:00:00"], "{line}");
            format!("{} {} {}", words[0], words[1], words[5..].join(" "))
        })
        .collect()
}

#[test]
fn project_files_keep_names_modes_and_links() {
    let (test, project) = (store(), sample_project());
    let specs = [
        spec("src", "/opt/app/"),
        spec("LICENSE", "/tmp/LICENSE"),
        spec("LICENSE", "/root/"),
    ];
    let scanned = files::scan(project.path(), &specs, &[]).unwrap();
    let layer = files::project(&test.store, &scanned).unwrap().unwrap();
    assert_eq!(
        listing(&test.store, &layer),
        [
            "drwxr-xr-x 0/0 opt/",
            "drwxr-xr-x 0/0 opt/app/",
            "drwxr-xr-x 0/0 opt/app/src/",
            "-rw-r--r-- 0/0 opt/app/src/main.py",
            "drwxr-xr-x 0/0 opt/app/src/sub/",
            "drwxr-xr-x 0/0 opt/app/src/sub/empty/",
            "lrwxrwxrwx 0/0 opt/app/src/sub/link.py -> ../main.py",
            "-rwxr-xr-x 0/0 opt/app/src/sub/tool.sh",
            "-rw-r--r-- 0/0 opt/app/src/sub/ünïcode name.txt",
            "drwx------ 0/0 root/",
            "-rw-r--r-- 0/0 root/LICENSE",
            "drwxrwxrwt 0/0 tmp/",
            "-rw-r--r-- 0/0 tmp/LICENSE",
        ]
    );
    assert_eq!(
        layer.comment,
        "files /opt/app/src, /root/LICENSE, /tmp/LICENSE"
    );
    let before = fs::metadata(test.store.blob_path(&layer.digest))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(
        files::project(&test.store, &scanned).unwrap().unwrap(),
        layer
    );
    let after = fs::metadata(test.store.blob_path(&layer.digest))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(before, after, "a known layer is not made again");
    fs::remove_file(test.store.blob_path(&layer.digest)).unwrap();
    assert_eq!(
        files::project(&test.store, &scanned).unwrap().unwrap(),
        layer
    );
    assert!(
        test.store.blob(&layer.digest).is_some(),
        "a lost blob is made again"
    );
}

#[test]
fn trailing_slashes_modes_and_open_folders() {
    let project = sample_project();
    let keys = |specs: &[FileSpec]| -> Vec<String> {
        files::scan(project.path(), specs, &[])
            .unwrap()
            .entries
            .into_keys()
            .collect()
    };
    assert!(keys(&[spec("src/", "/app/")]).contains(&"/app/main.py".into()));
    assert!(keys(&[spec("src", "/app")]).contains(&"/app/main.py".into()));
    assert!(keys(&[spec("./src//sub/", "/a/")]).contains(&"/a/tool.sh".into()));
    assert!(keys(&[spec(".", "/p/")]).contains(&"/p/src/main.py".into()));
    assert_eq!(keys(&[spec("LICENSE", "/a/b")]), ["/a/b"]);
    assert_eq!(keys(&[spec("LICENSE", "/a/b/")]), ["/a/b/LICENSE"]);
    assert!(keys(&[]).is_empty());

    let moded = FileSpec {
        mode: Some(0o600),
        ..spec("LICENSE", "/work/x/L")
    };
    let found = files::scan(project.path(), &[moded], &["/work", "/home/app"]).unwrap();
    assert!(matches!(
        found.entries["/work/x/L"],
        FileDocument::File { mode: 0o600, .. }
    ));
    assert_eq!(found.entries["/work"], FileDocument::Folder { mode: 0o777 });
    assert!(!found.entries.contains_key("/home/app"));
}

fn scan_error(project: &Path, specs: &[FileSpec]) -> ScanError {
    let error = files::scan(project, specs, &[]).unwrap_err();
    assert!(error.hint().is_some(), "{error}");
    error
}

#[test]
fn what_cannot_be_copied_is_refused_by_name() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "s").unwrap();
    let fresh = |change: &dyn Fn(&Path)| {
        let project = sample_project();
        change(&project.path().join("src"));
        let error = scan_error(
            project.path(),
            &[spec("LICENSE", "/L"), spec("src/", "/app")],
        );
        assert_eq!(error.index, 1);
        error.to_string()
    };
    let secret = outside.path().join("secret");
    for target in [
        secret.as_path(),
        Path::new("../../../../etc/passwd"),
        Path::new("sub/../../../x"),
    ] {
        let text = fresh(&|src| symlink(target, src.join("leak")).unwrap());
        assert!(
            text.contains("src/leak") && text.contains("leads out"),
            "{text}"
        );
    }
    let text = fresh(&|src| {
        UnixListener::bind(src.join("socket")).unwrap();
    });
    assert!(text.contains("`src/socket` is a socket"), "{text}");
    let text = fresh(&|src| {
        run("mkfifo", [src.join("pipe")]);
    });
    assert!(text.contains("`src/pipe` is a named pipe"), "{text}");
    let text = fresh(&|src| fs::write(src.join(OsStr::from_bytes(b"bad\xff")), "").unwrap());
    assert!(text.contains("UTF-8"), "{text}");
    let text = fresh(&|src| fs::write(src.join(".wh.main.py"), "").unwrap());
    assert!(text.contains(".wh."), "{text}");

    let project = sample_project();
    let reason = |from: &str, to: &str| scan_error(project.path(), &[spec(from, to)]).reason;
    assert!(matches!(
        reason("missing", "/a"),
        ScanReason::Missing { .. }
    ));
    assert!(matches!(
        reason("LICENSE/", "/a"),
        ScanReason::NotAFolder { .. }
    ));
    assert!(matches!(
        reason("src/sub/debug.log", "/a"),
        ScanReason::Ignored { .. }
    ));
    for from in ["../x", "/etc/passwd", "src/../../x"] {
        assert!(
            matches!(reason(from, "/a"), ScanReason::Escapes { .. }),
            "{from}"
        );
    }
    symlink(outside.path(), project.path().join("out")).unwrap();
    assert!(matches!(
        reason("out/secret", "/a"),
        ScanReason::Escapes { .. }
    ));
    for to in ["/bin/x", "/proc/x", "/a/../b", "relative"] {
        assert!(
            matches!(reason("LICENSE", to), ScanReason::Target { .. }),
            "{to}"
        );
    }
    fs::write(project.path().join(".dockerignore"), "ok\n[bad\n").unwrap();
    assert!(matches!(
        reason("LICENSE", "/a"),
        ScanReason::IgnoreFile { line: 2 }
    ));
}

#[test]
fn exceptions_bring_files_back() {
    let project = sample_project();
    fs::write(
        project.path().join(".dockerignore"),
        "src\n!src/sub/tool.sh\n",
    )
    .unwrap();
    let found = files::scan(project.path(), &[spec("src/", "/app")], &[]).unwrap();
    let paths: Vec<&String> = found.entries.keys().collect();
    assert_eq!(paths, ["/app", "/app/sub/tool.sh"]);
}

#[test]
fn a_file_that_changes_or_stands_in_the_way_is_an_error() {
    let (test, project) = (store(), sample_project());
    let scanned = files::scan(project.path(), &[spec("src/", "/app")], &[]).unwrap();
    fs::write(project.path().join("src/main.py"), "print('MAIN')\n").unwrap();
    let error = files::project(&test.store, &scanned).unwrap_err();
    assert!(matches!(error, FilesError::Changed { .. }), "{error}");
    let specs = [spec("LICENSE", "/app"), spec("LICENSE", "/app/x")];
    let scanned = files::scan(project.path(), &specs, &[]).unwrap();
    let error = files::project(&test.store, &scanned).unwrap_err();
    assert!(matches!(error, FilesError::Conflict { .. }), "{error}");
}

#[test]
fn downloads_come_from_the_store_only() {
    let test = store();
    let sha256 = Digest::of("model");
    let url = "https://models.example.com/a/m%20x.bin?token=1".to_owned();
    let spec = FetchSpec {
        url,
        sha256,
        to: "/opt/models/".into(),
        mode: None,
    };
    assert!(matches!(
        files::fetch(&test.store, &spec),
        Err(FilesError::Missing { .. })
    ));
    fs::write(test.store.artifact_path(&sha256), "mod").unwrap();
    assert!(matches!(
        files::fetch(&test.store, &spec),
        Err(FilesError::Changed { .. })
    ));
    fs::write(test.store.artifact_path(&sha256), "model").unwrap();
    let layer = files::fetch(&test.store, &spec).unwrap();
    assert_eq!(
        listing(&test.store, &layer).last().unwrap(),
        "-rw-r--r-- 0/0 opt/models/m x.bin"
    );
    let bad = FetchSpec {
        to: "/lib/x".into(),
        ..spec
    };
    assert!(matches!(
        files::fetch(&test.store, &bad),
        Err(FilesError::Target { .. })
    ));
}

/// Prints the digest of the sample image; run by the test below in other surroundings.
#[test]
#[ignore = "a helper of the test below"]
fn print_digest() {
    let (test, project) = (store(), sample_project());
    let image = sample_image(&test.store, project.path());
    let mut out = std::io::stdout();
    writeln!(out, "digest {} key {}", image.digest(), image.key).unwrap();
}

#[test]
fn surroundings_do_not_shape_bytes() {
    let this = std::env::current_exe().unwrap();
    let run_in = |umask: &str, zone: &str, folder: &str| -> String {
        let script = format!(
            "umask {umask}; cd {folder}; exec \"$0\" --exact project::print_digest --ignored --nocapture"
        );
        let output = command("sh")
            .args(["-c", &script])
            .arg(&this)
            .env("TZ", zone)
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text
            .lines()
            .find_map(|line| line.find("digest ").map(|at| line[at..].to_owned()));
        line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
    };
    python_base();
    let first = run_in("022", "UTC", "/");
    assert_eq!(run_in("077", "Asia/Kolkata", "/tmp"), first);
}
