//! Pins equal those of `uv pip compile`; old pins stay until they are told to move.

use std::collections::BTreeSet;

use imagewright::diagnostic::{Explain, Kind};
use imagewright::digest::Digest;
use imagewright::lock::WheelOrigin;
use imagewright::manifest::Platform;
use imagewright::resolve::python::{ProjectWheel, Upgrade};

use crate::support::{Case, Server, python, told, uv_pins, wheel, wheel_tagged};

/// Resolves `lines` both ways; constraints and overrides go to uv in files of their own.
fn same_as_uv(lines: &str, platform: Platform) {
    let mut case = Case::new(lines);
    case.platform = platform;
    let ours = case.pins();
    let folder = tempfile::tempdir().unwrap();
    let part = |keyword: &str| {
        let path = folder.path().join(keyword);
        let of = lines.lines().filter_map(|line| line.strip_prefix(keyword));
        let text: Vec<_> = of.map(str::trim).collect();
        std::fs::write(&path, text.join("\n")).unwrap();
        path.display().to_string()
    };
    let (constraints, overrides) = (part("constraint "), part("override "));
    let requirements: Vec<_> = lines
        .lines()
        .filter(|line| !line.starts_with("constraint ") && !line.starts_with("override "))
        .collect();
    let more = ["--constraint", &constraints, "--override", &overrides];
    let theirs = uv_pins(&requirements.join("\n"), platform.machine(), &more);
    assert_eq!(ours, theirs, "{lines}");
    assert!(!ours.is_empty());
}

macro_rules! like_uv {
    ($($name:ident: $lines:literal $(, $platform:ident)?;)+) => {
        $(#[test]
        fn $name() {
            #[allow(unused_mut, unused_assignments)]
            let mut platform = Platform::LinuxAmd64;
            $(platform = Platform::$platform;)?
            same_as_uv($lines, platform);
        })+
    };
}

like_uv! {
    tabular: "pandas==2.2.3\nscikit-learn==1.5.2\nxgboost==2.1.2";
    tabular_arm: "pandas==2.2.3\nscikit-learn==1.5.2\nlightgbm", LinuxArm64;
    extras: "fastapi[standard]>=0.110,<0.116\nuvicorn[standard]";
    markers: "tomli; python_version<'3.11'\nnumpy<2; python_version>='3.11'\npywin32; sys_platform=='win32'";
    constraints: "pandas\nscikit-learn\nconstraint numpy<2\nconstraint scipy<1.13";
    overrides: "apache-airflow-client==2.10.0\noverride urllib3==2.2.3\noverride python-dateutil==2.8.2";
    web: "flask>=2,<3\nrequests[socks]\nsqlalchemy~=2.0.0";
    notebooks: "jupyterlab<5\nmatplotlib>=3.8";
    prerelease: "httpx>=1.0.dev1\nrich";
    backtracking: "boto3<1.35\nurllib3<2\nbotocore>=1.34,<1.36";
    natural_language: "transformers==4.44.2\ntokenizers\nsentencepiece";
    names: "Ruamel.YAML\nzope.interface\nPyYAML";
}

#[test]
fn the_wheel_fits_glibc_and_python() {
    let mut case = Case::new("numpy==1.26.4\nmarkupsafe==2.1.5");
    let newest = case.resolve().unwrap();
    assert!(
        newest
            .wheels
            .iter()
            .all(|(file, _)| file.contains("cp311-cp311-manylinux_2_17_x86_64"))
    );
    assert!(
        newest
            .wheels
            .iter()
            .all(|(_, wheel)| wheel.origin == WheelOrigin::DefaultIndex)
    );
    case.platform = Platform::LinuxArm64;
    let arm = case.resolve().unwrap();
    assert!(
        arm.wheels
            .iter()
            .all(|(file, _)| file.ends_with("aarch64.whl"))
    );
    let mut old = Case::new("xgboost");
    let new_glibc = old.resolve().unwrap();
    old.python.glibc = (2, 17);
    let old_glibc = old.resolve().unwrap();
    assert_ne!(new_glibc.pins(), old_glibc.pins());
    assert!(
        old_glibc
            .wheels
            .iter()
            .all(|(file, _)| !file.contains("manylinux_2_28")),
        "{old_glibc:?}"
    );
    old.python = python("3.12.1");
    let other = old.resolve().unwrap();
    let numpy = other
        .wheels
        .iter()
        .find(|(_, wheel)| wheel.name == "numpy")
        .unwrap();
    assert!(numpy.0.contains("cp312"), "{numpy:?}");
}

/// An explicit index serves what names it and nothing else; a plain extra index comes before the default.
#[test]
fn an_extra_index_like_uv() {
    let server = Server::start();
    let local = wheel("six", "99.0", &["attrs==23.1.0"], 10);
    server.project("six", std::slice::from_ref(&local));
    server.project("attrs", &[wheel("attrs", "99.0", &[], 10)]);
    let index = server.index();

    let explicit = Case::new(&format!(
        "index team {index} explicit\nsix @index=team\npython-dateutil==2.9.0.post0"
    ));
    let ours = explicit
        .resolve()
        .unwrap_or_else(|error| panic!("{}", told(&error)));
    let pins: Vec<_> = ours
        .pins()
        .into_iter()
        .map(|(name, version)| format!("{name}=={version}"))
        .collect();
    let project = format!(
        "[project]\nname = \"p\"\nversion = \"0\"\ndependencies = [\"six\", \"python-dateutil==2.9.0.post0\"]\n\
         [[tool.uv.index]]\nname = \"team\"\nurl = \"{index}\"\nexplicit = true\n\
         [tool.uv.sources]\nsix = {{ index = \"team\" }}\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let pyproject = folder.path().join("pyproject.toml");
    std::fs::write(&pyproject, project).unwrap();
    let path = pyproject.display().to_string();
    assert_eq!(pins, uv_pins("", "x86_64", &[&path]));
    let origin = |name: &str| {
        let mut wheels = ours.wheels.iter();
        wheels
            .find(|(_, wheel)| wheel.name == name)
            .map(|(_, wheel)| wheel.clone())
            .unwrap()
    };
    assert_eq!(origin("six").origin, WheelOrigin::Index(index.clone()));
    assert_eq!(origin("six").sha256, Digest::of(&local.1));
    assert_eq!(origin("attrs").origin, WheelOrigin::DefaultIndex);
    assert_eq!(origin("attrs").version, "23.1.0");

    let first = Server::start();
    first.project("six", &[wheel("six", "99.0", &[], 10)]);
    first.project("attrs", &[wheel("attrs", "0.1", &[], 10)]);
    let lines = "attrs\npython-dateutil==2.9.0.post0";
    let ours = Case::new(&format!("index team {}\n{lines}", first.index())).pins();
    assert_eq!(ours, uv_pins(lines, "x86_64", &["--index", &first.index()]));
    assert_eq!(
        ours,
        ["attrs==0.1", "python-dateutil==2.9.0.post0", "six==99.0"]
    );
}

#[test]
fn a_default_index_replaces_the_default() {
    let server = Server::start();
    server.project("six", &[wheel("six", "1.0", &[], 10)]);
    let case = Case::new(&format!("index own {} default\nsix", server.index()));
    let resolution = case.resolve().unwrap();
    assert_eq!(
        resolution.wheels[0].1.origin,
        WheelOrigin::Index(server.index())
    );
    let missing = Case::new(&format!("index own {} default\nattrs", server.index()));
    let error = missing.resolve().unwrap_err();
    assert!(
        told(&error).contains("no index has a package named `attrs`"),
        "{}",
        told(&error)
    );
}

/// The same lock comes out behind a mirror, which the lock does not name.
#[test]
fn a_mirror_stays_out_of_the_lock() {
    let server = Server::start();
    server.project("six", &[wheel("six", "1.0", &[], 10)]);
    let mut case = Case::new("six");
    case.ambient.python_index = Some(server.index());
    let resolution = case.resolve().unwrap();
    assert_eq!(resolution.wheels[0].1.origin, WheelOrigin::DefaultIndex);
    assert_eq!(resolution.wheels[0].1.version, "1.0");
    assert!(!format!("{resolution:?}").contains("127.0.0.1"));
}

#[test]
fn pins_stay_until_told_to_move() {
    let server = Server::start();
    let all = |name: &str, versions: &[&str], requires: &[&str]| {
        let wheels: Vec<_> = versions
            .iter()
            .map(|version| wheel(name, version, requires, 10))
            .collect();
        server.project(name, &wheels);
    };
    all("app", &["1.0"], &["lib", "util"]);
    all("lib", &["1.0", "2.0"], &[]);
    all("util", &["1.0", "2.0"], &[]);
    let mut case = Case::new(&format!("index own {} default\napp", server.index()));
    assert_eq!(case.pins(), ["app==1.0", "lib==2.0", "util==2.0"]);
    case.pins = [("lib", "1.0"), ("util", "1.0")]
        .map(|(a, b)| (a.into(), b.into()))
        .to_vec();
    assert_eq!(case.pins(), ["app==1.0", "lib==1.0", "util==1.0"]);
    case.upgrade = Upgrade::Names(BTreeSet::from(["util".into()]));
    assert_eq!(case.pins(), ["app==1.0", "lib==1.0", "util==2.0"]);
    case.upgrade = Upgrade::All;
    assert_eq!(case.pins(), ["app==1.0", "lib==2.0", "util==2.0"]);
    let mut narrower = Case::new(&format!(
        "index own {} default\napp\nconstraint lib>1",
        server.index()
    ));
    narrower.pins = case.pins.clone();
    assert_eq!(narrower.pins(), ["app==1.0", "lib==2.0", "util==1.0"]);
}

/// The second platform follows the first where it can.
#[test]
fn platforms_agree_where_they_can() {
    let server = Server::start();
    let tagged = |version: &str, machine: &str| {
        wheel_tagged(
            "lib",
            version,
            &format!("cp311-cp311-manylinux_2_17_{machine}"),
            &[],
            10,
        )
    };
    let files = [
        tagged("1.0", "x86_64"),
        tagged("1.0", "aarch64"),
        tagged("2.0", "aarch64"),
    ];
    server.project("lib", &files);
    let mut case = Case::new(&format!("index own {} default\nlib", server.index()));
    let first = case.resolve().unwrap();
    assert_eq!(first.warnings.len(), 1, "{:?}", first.warnings);
    case.platform = Platform::LinuxArm64;
    assert_eq!(case.pins(), ["lib==2.0"]);
    case.pins = first.pins();
    assert_eq!(case.pins(), ["lib==1.0"]);
}

#[test]
fn a_wheel_of_the_project_and_one_by_url() {
    let server = Server::start();
    let (by_url, url_bytes) = wheel("remote", "3.0", &[], 10);
    server.file(&by_url, &url_bytes);
    let (by_path, path_bytes) = wheel("churn", "1.0", &["lib"], 10);
    server.project("lib", &[wheel("lib", "1.0", &[], 10)]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(&by_path);
    std::fs::write(&path, &path_bytes).unwrap();
    let relative = format!("dist/{by_path}");
    let url = server.url(&format!("/files/{by_url}"));
    let mut case = Case::new(&format!(
        "index own {} default\nchurn @wheel={relative}\nremote @ {url}",
        server.index()
    ));
    let sha256 = Digest::of(&path_bytes);
    let size = path_bytes.len() as u64;
    case.project
        .insert(relative.clone(), ProjectWheel { path, sha256, size });
    let resolution = case
        .resolve()
        .unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(case.pins(), ["churn==1.0", "lib==1.0", "remote==3.0"]);
    let [churn, _, remote] = resolution.wheels.as_slice() else {
        panic!("{resolution:?}");
    };
    assert_eq!(churn.1.origin, WheelOrigin::Path(relative));
    assert_eq!((churn.1.sha256, churn.1.size), (sha256, Some(size)));
    assert_eq!(remote.1.origin, WheelOrigin::Url(url));
    assert_eq!(remote.1.sha256, Digest::of(&url_bytes));
    let wanted = &resolution.wanted_by["lib"];
    assert_eq!(wanted, &BTreeSet::from(["churn".to_owned()]));
}

/// Hashes of a requirements file choose, and bind.
#[test]
fn hashes_bind() {
    let server = Server::start();
    let good = wheel("lib", "1.0", &[], 10);
    server.project("lib", std::slice::from_ref(&good));
    let own = format!("index own {} default\n", server.index());
    let hash = Digest::of(&good.1);
    assert_eq!(
        Case::new(&format!("{own}lib==1.0 @hash={hash}")).pins(),
        ["lib==1.0"]
    );
    let other = Digest::of("other");
    for line in [
        format!("lib==1.0 @hash={other}"),
        format!("lib @hash={other}"),
    ] {
        let case = Case::new(&format!("{own}{line}"));
        let error = case.resolve().unwrap_err();
        assert_eq!(
            case.marked(&error),
            BTreeSet::from([line]),
            "{}",
            told(&error)
        );
    }
}

/// An index that tells no hash: the file is hashed, so that the lock has one.
#[test]
fn a_missing_hash_is_found_out() {
    let server = Server::start();
    let (file, bytes) = wheel("lib", "1.0", &[], 5000);
    server.project("lib", &[(file.clone(), bytes.clone())]);
    server.change("/simple/lib/", |page| {
        page.body = format!(
            "<!DOCTYPE html><html><body><a href=\"/files/{file}\">{file}</a></body></html>"
        )
        .into_bytes();
    });
    let resolution = Case::new(&format!("index own {} default\nlib", server.index()))
        .resolve()
        .unwrap();
    assert_eq!(resolution.wheels[0].1.sha256, Digest::of(&bytes));
    assert_eq!(resolution.wheels[0].1.size, Some(bytes.len() as u64));
}

/// PEP 700 upload times; a yanked release; a JSON index.
#[test]
fn exclude_newer_and_yanked() {
    let server = Server::start();
    let mut files = String::new();
    for (version, uploaded, yanked) in [
        ("1.0", "2024-01-01T00:00:00.000000Z", "false"),
        ("1.1", "2024-02-01T00:00:00.000000Z", "\"broken\""),
        ("2.0", "2025-01-01T00:00:00.000000Z", "false"),
    ] {
        let (file, bytes) = wheel("lib", version, &[], 10);
        server.file(&file, &bytes);
        let comma = if files.is_empty() { "" } else { "," };
        files += &format!(
            "{comma}{{\"filename\":\"{file}\",\"url\":\"/files/{file}\",\"hashes\":{{\"sha256\":\"{}\"}},\
             \"upload-time\":\"{uploaded}\",\"yanked\":{yanked},\"size\":{}}}",
            Digest::of(&bytes).hex(),
            bytes.len()
        );
    }
    let page = crate::support::Page {
        kind: "application/vnd.pypi.simple.v1+json",
        body: format!("{{\"meta\":{{\"api-version\":\"1.1\"}},\"name\":\"lib\",\"versions\":[],\"files\":[{files}]}}").into(),
        ..Default::default()
    };
    server.put("/simple/lib/", page);
    let own = format!("index own {} default\n", server.index());
    assert_eq!(Case::new(&format!("{own}lib")).pins(), ["lib==2.0"]);
    let limited = Case::new(&format!("{own}exclude-newer 2024-06-01T00:00:00Z\nlib"));
    let resolution = limited.resolve().unwrap();
    assert_eq!(resolution.wheels[0].1.version, "1.0");
    assert!(resolution.wheels[0].1.size.is_some());
    assert!(resolution.warnings.is_empty(), "{:?}", resolution.warnings);
    assert_eq!(Case::new(&format!("{own}lib==1.1")).pins(), ["lib==1.1"]);
    let date = Case::new(&format!("{own}exclude-newer 2024-06-01\nlib"))
        .resolve()
        .unwrap_err();
    assert!(told(&date).contains("RFC 3339"), "{}", told(&date));
}

#[test]
fn the_order_of_lines_changes_nothing() {
    let lines = ["requests[socks]", "flask>=2,<3", "urllib3<2"];
    let forward = Case::new(&lines.join("\n")).resolve().unwrap();
    let mut backward = lines;
    backward.reverse();
    assert_eq!(forward, Case::new(&backward.join("\n")).resolve().unwrap());
}

#[test]
fn offline_from_the_cache() {
    let server = Server::start();
    server.project("lib", &[wheel("lib", "1.0", &[], 10)]);
    let folder = tempfile::tempdir().unwrap();
    let mut case =
        Case::new(&format!("index own {} default\nlib", server.index())).own_cache(folder.path());
    let online = case.resolve().unwrap();
    let requests = server.seen().len();
    case.offline = true;
    assert_eq!(case.resolve().unwrap(), online);
    assert_eq!(server.seen().len(), requests, "offline asked the server");
}

/// Half a cache does not lead to other pins than the whole index would.
#[test]
fn offline_with_half_a_cache() {
    let server = Server::start();
    let wheels = [wheel("lib", "1.0", &[], 10), wheel("lib", "2.0", &[], 10)];
    server.project("lib", &wheels);
    let folder = tempfile::tempdir().unwrap();
    let own = format!("index own {} default\n", server.index());
    let case = |line: &str, offline| {
        let mut case = Case::new(&format!("{own}{line}")).own_cache(folder.path());
        case.offline = offline;
        case
    };
    assert_eq!(case("lib<2", false).pins(), ["lib==1.0"]);
    for line in ["lib==2.0", "lib"] {
        let error = match case(line, true).resolve() {
            Err(error) => error,
            Ok(resolution) => panic!("{line}: {:?}", resolution.pins()),
        };
        assert_eq!(error.kind(), Kind::Unavailable, "{line}: {}", told(&error));
        assert!(told(&error).contains("--offline"), "{}", told(&error));
    }
}
