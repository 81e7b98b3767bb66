//! Pulls from a real registry, and from servers that lie, break off, or ask for tokens.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use imagewright::ambient::Ambient;
use imagewright::diagnostic::{Explain, Kind};
use imagewright::digest::Digest;
use imagewright::http::Http;
use imagewright::progress::Silent;
use imagewright::registry::{Reference, Registry};
use imagewright::resolve::base::{BaseError, BaseImage, inspect};
use imagewright::store::Store;
use serde_json::json;

use super::support::*;

/// `docker-registry`, ended by its process id.
struct Server {
    child: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start(login: Option<(&str, &str)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let root = dir.path().display();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}}}\nhttp: {{addr: '{address}'}}\n"
        );
        if let Some((user, password)) = login {
            let table = run("htpasswd", ["-Bbn", user, password]);
            fs::write(dir.path().join("htpasswd"), table).unwrap();
            config.push_str(&format!(
                "auth: {{htpasswd: {{realm: test, path: {root}/htpasswd}}}}\n"
            ));
        }
        let path = dir.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let child = command("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < end, "docker-registry does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self {
            child,
            address,
            _dir: dir,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn registry(auth: &[&Path]) -> Registry {
    let ambient = Ambient {
        registry_auth: auth.iter().map(|path| path.to_path_buf()).collect(),
        ..Ambient::default()
    };
    Registry::new(Http::new(&ambient, false).unwrap(), &ambient)
}

fn pull(
    store: &Store,
    registry: &Registry,
    reference: &str,
    pinned: Option<&Digest>,
) -> Result<BaseImage, BaseError> {
    let parsed: Reference = reference.parse().unwrap();
    let repository = registry.repository(&parsed);
    wait(inspect(
        store,
        &repository,
        reference,
        pinned,
        AMD64,
        &Silent,
    ))
}

fn auth_file(dir: &Path, host: &str, login: &str) -> std::path::PathBuf {
    use std::process::Command;
    let script = format!("printf %s '{login}' | base64 -w0");
    let encoded = Command::new("sh")
        .args(["-c", &script])
        .output()
        .unwrap()
        .stdout;
    let encoded = String::from_utf8(encoded).unwrap();
    let path = dir.join(format!("auth-{}.json", encoded.len()));
    fs::write(
        &path,
        json!({"auths": {host: {"auth": encoded}}}).to_string(),
    )
    .unwrap();
    path
}

#[test]
fn a_base_is_pulled_from_a_registry_with_a_login() {
    let server = Server::start(Some(("ann", "pass:word")));
    let dir = tempfile::tempdir().unwrap();
    let target = format!("docker://{}/ml/python:3.11", server.address);
    let source = format!("oci:{}:python", python_base().display());
    run(
        "skopeo",
        [
            "copy",
            "--dest-tls-verify=false",
            "--dest-creds",
            "ann:pass:word",
            &source,
            &target,
        ],
    );
    let reference = format!("{}/ml/python:3.11", server.address);

    let test = store();
    let error = pull(&test.store, &registry(&[]), &reference, None).unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorised);
    assert!(error.hint().unwrap().contains("login"), "{error}");
    let wrong = auth_file(dir.path(), &server.address, "ann:SECRET");
    let error = pull(&test.store, &registry(&[&wrong]), &reference, None).unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorised);
    assert!(!format!("{error:?}{error}").contains("SECRET"));

    let right = auth_file(dir.path(), &server.address, "ann:pass:word");
    let client = registry(&[&dir.path().join("missing.json"), &right]);
    let pulled = pull(&test.store, &client, &reference, None).unwrap();
    let local = inspect_layout(&store().store, python_base(), "python", AMD64).unwrap();
    assert_eq!(
        (&pulled.layers, &pulled.contents),
        (&local.layers, &local.contents)
    );
    let unknown = format!("{}/ml/python:nope", server.address);
    let error = pull(&test.store, &client, &unknown, None).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("ml/python:nope"), "{error}");
    let other = Digest::of("other");
    assert_eq!(
        pull(&test.store, &client, &reference, Some(&other))
            .unwrap_err()
            .kind(),
        Kind::NotFound
    );
    drop(server);
    assert_eq!(
        pull(&test.store, &client, &reference, Some(&pulled.digest)).unwrap(),
        pulled
    );
}

/// A server that answers as told; what it was asked is kept.
struct Liar {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

/// Status line and headers (without the last empty line), body.
type Answer = (String, Vec<u8>);

impl Liar {
    fn start(answer: impl Fn(&str, &str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &log, &*answer));
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> String {
        self.asked.lock().unwrap().join("\n")
    }
}

fn serve(stream: TcpStream, log: &Mutex<Vec<String>>, answer: &dyn Fn(&str, &str) -> Answer) {
    let mut reader = BufReader::new(&stream);
    let mut head = String::new();
    while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    let _ = reader.read_exact(&mut body);
    log.lock()
        .unwrap()
        .push(format!("{head}{}", String::from_utf8_lossy(&body)));
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let (head, body) = answer(&path, &head);
    let _ = (&stream).write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes());
    let _ = (&stream).write_all(&body);
}

fn ok(body: impl Into<Vec<u8>>) -> Answer {
    let body = body.into();
    (
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}", body.len()),
        body,
    )
}

fn not_found() -> Answer {
    (
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0".into(),
        Vec::new(),
    )
}

/// The blobs of a small image, and its manifest.
fn small_image() -> (tempfile::TempDir, Digest) {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    let mut noise = 1u32;
    let content: Vec<u8> = (0..400_000)
        .map(|_| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        })
        .collect();
    let digest = layout.add(
        "x",
        &[tar(&[Item::File("opt/noise", &content)])],
        "amd64",
        &[],
    );
    (dir, digest)
}

fn from_layout(dir: &Path, path: &str) -> Option<Vec<u8>> {
    fs::read(
        dir.join("blobs/sha256")
            .join(path.rsplit("sha256:").next()?),
    )
    .ok()
}

#[test]
fn tokens_are_fetched_and_go_to_their_servers_only() {
    let (image, digest) = small_image();
    let root = image.path().to_owned();
    let tokens = Liar::start(|path, head| {
        let login = head
            .to_ascii_lowercase()
            .contains("authorization: basic ym9iomh1bmw=");
        let fits = path.contains("service=reg&scope=repository%3Aml%2Fa%3Apull");
        match login && fits || head.starts_with("POST") {
            true => ok(r#"{"access_token":"T0KEN"}"#),
            false => ("HTTP/1.1 401 No\r\nContent-Length: 0".into(), Vec::new()),
        }
    });
    let realm = tokens.address.clone();
    let server = Liar::start(move |path, head| {
        if !head.contains("Bearer T0KEN") {
            let challenge = format!(
                r#"Bearer realm="http://{realm}/token",service="reg",scope="repository:ml/a:pull""#
            );
            return (
                format!("HTTP/1.1 401 No\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0"),
                Vec::new(),
            );
        }
        let path = path.replace("manifests/v1", &format!("manifests/{digest}"));
        from_layout(&root, &path).map_or_else(not_found, ok)
    });
    let reference = format!("{}/ml/a:v1", server.address);
    let dir = tempfile::tempdir().unwrap();
    let login = auth_file(dir.path(), &server.address, "bob:hunl");
    let pulled = pull(&store().store, &registry(&[&login]), &reference, None).unwrap();
    assert_eq!(pulled.digest, digest);
    assert!(
        !server.asked().to_lowercase().contains("basic"),
        "the password goes to the token server only"
    );
    assert_eq!(
        tokens.asked().matches("GET /token").count(),
        1,
        "one token serves all requests"
    );

    let identity = dir.path().join("identity.json");
    let text = json!({"auths": {&server.address: {"identitytoken": "IDENT"}}});
    fs::write(&identity, text.to_string()).unwrap();
    pull(&store().store, &registry(&[&identity]), &reference, None).unwrap();
    assert!(
        tokens.asked().contains("grant_type=refresh_token")
            && tokens.asked().contains("refresh_token=IDENT")
    );

    let wrong = auth_file(dir.path(), &server.address, "bob:other-password");
    let error = pull(&store().store, &registry(&[&wrong]), &reference, None).unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorised);
    assert!(
        !error.to_string().contains("service="),
        "no query in messages: {error}"
    );
}

#[test]
fn credentials_do_not_go_to_a_token_server_without_https() {
    let server = Liar::start(|_, _| {
        let challenge = r#"Bearer realm="http://tokens.example.com/t",service="reg""#;
        (
            format!("HTTP/1.1 401 No\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0"),
            Vec::new(),
        )
    });
    let dir = tempfile::tempdir().unwrap();
    let login = auth_file(dir.path(), &server.address, "bob:x");
    let reference = format!("{}/a:1", server.address);
    let error = pull(&store().store, &registry(&[&login]), &reference, None).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("tokens.example.com"), "{error}");
}

#[test]
fn transfers_that_break_off_go_on() {
    let (image, digest) = small_image();
    let root = image.path().to_owned();
    let server = Liar::start(move |path, head| {
        let path = path.replace("manifests/v1", &format!("manifests/{digest}"));
        let Some(body) = from_layout(&root, &path) else {
            return not_found();
        };
        if body.len() < 100_000 {
            return ok(body);
        }
        let from = head.lines().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("range: bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        });
        let from: usize = from.unwrap_or(0);
        let status = if from == 0 {
            "200 OK"
        } else {
            "206 Partial Content"
        };
        let range = format!(
            "Content-Range: bytes {from}-{}/{}",
            body.len() - 1,
            body.len()
        );
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{range}",
            body.len() - from
        );
        // Half of what is left, then the connection is closed.
        let end = if from < 250_000 {
            from + (body.len() - from) / 2
        } else {
            body.len()
        };
        (head, body[from..end].to_vec())
    });
    let reference = format!("{}/a:v1", server.address);
    let test = store();
    let pulled = pull(&test.store, &registry(&[]), &reference, None).unwrap();
    let blob = fs::read(test.store.blob_path(&pulled.layers[0].digest)).unwrap();
    assert_eq!(Digest::of(&blob), pulled.layers[0].digest);
    assert!(server.asked().to_lowercase().contains("range: bytes="));
}

#[test]
fn lying_servers_are_refused() {
    let huge = Liar::start(|_, _| {
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity".into(),
            vec![b' '; 5 << 20],
        )
    });
    let error = pull(
        &store().store,
        &registry(&[]),
        &format!("{}/a:v1", huge.address),
        None,
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("larger than 4194304 bytes"),
        "{error}"
    );
    assert_eq!(error.kind(), Kind::Refused);

    let (image, digest) = small_image();
    for (damage, words) in [
        ("flip", "expected sha256:"),
        ("long", "larger than"),
        ("short", "ended after"),
    ] {
        let root = image.path().to_owned();
        let server = Liar::start(move |path, _| {
            let Some(mut body) = from_layout(
                &root,
                &path.replace("manifests/v1", &format!("manifests/{digest}")),
            ) else {
                return not_found();
            };
            if path.contains("/blobs/") && body.len() > 100_000 {
                match damage {
                    "flip" => body[1000] ^= 1,
                    "long" => body.push(0),
                    _ => body.truncate(1000),
                }
            }
            ok(body)
        });
        let test = store();
        let reference = format!("{}/a:v1", server.address);
        let error = pull(&test.store, &registry(&[]), &reference, None).unwrap_err();
        assert!(error.to_string().contains(words), "{damage}: {error}");
        let blobs = fs::read_dir(test.store.base().join("blobs"))
            .unwrap()
            .count();
        assert!(blobs <= 1, "only the configuration may be there");
    }
    let other = Liar::start(|_, _| ok("{}"));
    let reference = format!("{}/a@{}", other.address, Digest::of("x"));
    let error = pull(&store().store, &registry(&[]), &reference, None).unwrap_err();
    assert!(error.to_string().contains("expected sha256:"), "{error}");
    let html = Liar::start(|_, _| ok("<html>log in</html>"));
    let error = pull(
        &store().store,
        &registry(&[]),
        &format!("{}/a", html.address),
        None,
    )
    .unwrap_err();
    assert!(matches!(error, BaseError::NotAnImage { .. }), "{error}");
    let offline = Registry::new(
        Http::new(&Ambient::default(), true).unwrap(),
        &Ambient::default(),
    );
    let error = pull(&store().store, &offline, "registry.example.com/a:1", None).unwrap_err();
    assert!(error.to_string().contains("--offline"), "{error}");
}
