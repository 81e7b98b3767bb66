//! Credentials go to the server that they are for, and to no other place: not into output, logs, errors, the lock, the
//! store, layers, records, archives, the registry's disk, or the arguments of a process.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::impostor::{Answer, Impostor, Request};
use crate::lab::{Lab, Options, Ran, Server};
use crate::seek::Seeker;
use crate::wares::{self, basic};

/// What is secret, each in a place of its own.
const DOCKER: &str = "canary-docker-1f09b7c2";
const PODMAN: &str = "canary-podman-2e18a6d3";
const HELPER: &str = "canary-helper-3d27f5e4";
const IDENTITY: &str = "canary-identity-4c36e4f5";
const TOKEN: &str = "canary-token-5b45d306";
const URL: &str = "canary-url-6a54c217";
const NAMED: &str = "canary-named-7963b128";
const NETRC: &str = "canary-netrc-8872a039";
const PROXY: &str = "canary-proxy-97819f4a";
const MIRROR: &str = "canary-mirror-a6908e5b";
const QUERY: &str = "canary-query-b5af7d6c";
const STATE: &str = "canary-state-c4be6c7d";
const MANIFEST: &str = "canary-manifest-d3cd5b8e";

const USER: &str = "someone";

const IMAGES: &str = r#"
image "one" base="small" {
    pip "alpha"
    pip "gamma" index="named"
    pip "delta" index="third"
    file "app.txt" to="/app/"
    tag "v1"
}
run "check" image="one" {
    command "sh" "-c" "env; cat /app/app.txt; touch /results/seen"
    resources ram="64MB" cpu="500m"
    timeout "20s"
}
"#;

fn seeker() -> Seeker {
    let all = [
        DOCKER, PODMAN, HELPER, IDENTITY, TOKEN, URL, NAMED, NETRC, PROXY, MIRROR, QUERY, STATE,
        MANIFEST,
    ];
    Seeker::new(all.map(|secret| (secret, secret.as_bytes())))
}

/// A package index that demands a login.
fn private(wheels: &[(String, Vec<u8>)], password: &str) -> crate::index::Server {
    let index = crate::index::Server::with(wheels);
    index.demand(basic(USER, password));
    index
}

/// A server before the registry that lets in who proves to be somebody.
fn guard(server: &Server, proof: String) -> Impostor {
    Impostor::before(server.address(), move |request| {
        admit(request, &proof, "Basic realm=\"x\"").unwrap_or(Answer::Honest)
    })
}

/// `None` if the request has the proof.
fn admit(request: &Request, proof: &str, challenge: &str) -> Option<Answer> {
    let header = format!("www-authenticate: {challenge}\r\n");
    (request.header("authorization") != Some(proof)).then(|| Answer::json(401, &header, "{}"))
}

/// A registry with a token server, for those with an identity token.
fn tokens(server: &Server) -> Impostor {
    Impostor::before(server.address(), |request| {
        if request.target.starts_with("/token") {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            return match body.contains(&format!("refresh_token={IDENTITY}")) {
                true => Answer::json(200, "", &json!({"access_token": TOKEN}).to_string()),
                false => Answer::json(401, "", "{}"),
            };
        }
        let host = request.header("host").unwrap_or_default();
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"x\"");
        admit(request, &format!("Bearer {TOKEN}"), &challenge).unwrap_or(Answer::Honest)
    })
}

/// A team member with secrets in all the places where secrets are kept.
struct Nest {
    server: Server,
    docker: Impostor,
    podman: Impostor,
    helper: Impostor,
    tokens: Impostor,
    proxy: Impostor,
    indexes: [crate::index::Server; 3],
    seeker: Seeker,
}

impl Nest {
    fn new() -> Self {
        let server = Server::docker_registry(Options::default());
        Self {
            docker: guard(&server, basic(USER, DOCKER)),
            podman: guard(&server, basic(USER, PODMAN)),
            helper: guard(&server, basic(USER, HELPER)),
            tokens: tokens(&server),
            proxy: Impostor::alone(|_| Answer::Honest),
            server,
            indexes: [
                private(
                    &[
                        wares::wheel("alpha", "1.0", &["beta"], 8, 40_000),
                        wares::wheel("beta", "2.0", &[], 4, 1_000),
                    ],
                    URL,
                ),
                private(&[wares::wheel("gamma", "3.0", &[], 5, 1_000)], NAMED),
                private(&[wares::wheel("delta", "0.1", &[], 2, 100)], NETRC),
            ],
            seeker: seeker(),
        }
    }

    /// A home with everything in it, and a project.
    fn lab(&self) -> Lab {
        let with_login = |url: String, user: &str, password: &str| {
            url.replace("http://", &format!("http://{user}:{password}@"))
        };
        let proxy = with_login(format!("http://{}", self.proxy.address()), "porter", PROXY);
        let lab = Lab::new()
            .env(
                "UV_DEFAULT_INDEX",
                &with_login(self.indexes[0].index(), USER, URL),
            )
            .env("IMAGEWRIGHT_INDEX_NAMED_USERNAME", USER)
            .env("IMAGEWRIGHT_INDEX_NAMED_PASSWORD", NAMED)
            .env(
                "IMAGEWRIGHT_DEBIAN_MIRROR",
                &format!("http://{USER}:{MIRROR}@{}/debian", self.docker.address()),
            )
            .env("HTTP_PROXY", &proxy)
            .env("HTTPS_PROXY", &proxy)
            .env("XDG_RUNTIME_DIR", "/nonexistent")
            .env("RUST_LOG", "trace")
            .env("IMAGEWRIGHT_LOG", "trace");
        let path = format!(
            "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            lab.path("bin").display()
        );
        let lab = lab.env("PATH", &path);
        self.secrets(&lab);
        lab.write("imagewright.kdl", self.manifest());
        lab.write("app.txt", "the app\n");
        lab
    }

    fn secrets(&self, lab: &Lab) {
        for folder in ["home/.docker", "home/.config/containers", "bin"] {
            fs::create_dir_all(lab.path(folder)).unwrap();
        }
        let auth = |password: &str| STANDARD.encode(format!("{USER}:{password}"));
        let config = json!({
            "auths": {
                self.docker.address(): {"auth": auth(DOCKER)},
                self.tokens.address(): {"auth": "", "identitytoken": IDENTITY},
            },
            "credHelpers": {self.helper.address(): "nest"},
        });
        fs::write(lab.path("home/.docker/config.json"), config.to_string()).unwrap();
        let podman = json!({"auths": {self.podman.address(): {"auth": auth(PODMAN)}}});
        fs::write(
            lab.path("home/.config/containers/auth.json"),
            podman.to_string(),
        )
        .unwrap();
        let netrc = format!("machine localhost login {USER} password {NETRC}\n");
        fs::write(lab.path("home/.netrc"), netrc).unwrap();
        let helper = lab.path("bin/docker-credential-nest");
        let answer =
            json!({"ServerURL": self.helper.address(), "Username": USER, "Secret": HELPER});
        // It lives long enough to be seen.
        fs::write(
            &helper,
            format!("#!/bin/sh\ncat > /dev/null\nsleep 0.3\necho '{answer}'\n"),
        )
        .unwrap();
        fs::set_permissions(helper, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn kept(&self, lab: &Lab) -> Vec<PathBuf> {
        [
            "home/.docker/config.json",
            "home/.config/containers/auth.json",
            "home/.netrc",
            "bin/docker-credential-nest",
            "secret.key",
        ]
        .map(|path| lab.path(path))
        .to_vec()
    }

    fn manifest(&self) -> String {
        let third = self.indexes[2].index().replace("127.0.0.1", "localhost");
        let places = [&self.podman, &self.helper, &self.tokens];
        let pushes: String = ["b", "c", "d"]
            .iter()
            .zip(places)
            .map(|(path, place)| format!("push \"{}/{path}/ml\"\n", place.address()))
            .collect();
        format!(
            "registry \"{}/a/ml\"\n{pushes}index \"named\" \"{}\" explicit=#true\nindex \"third\" \"{third}\" explicit=#true\n\
             base \"small\" {{ from \"oci:../base:busybox\"; }}\n{IMAGES}",
            self.docker.address(),
            self.indexes[1].index(),
        )
    }

    /// Runs, and looks through what is said and the arguments of every process meanwhile.
    #[track_caller]
    fn run(&self, lab: &Lab, arguments: &[&str]) -> Ran {
        let (done, seen) = (AtomicBool::new(false), Mutex::new(BTreeSet::new()));
        let ran = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    seen.lock().unwrap().extend(command_lines(lab.name()));
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            let ran = lab.start(arguments).wait(Duration::from_secs(100));
            done.store(true, Ordering::Relaxed);
            ran
        });
        self.quiet(arguments, &ran);
        let lines = seen.into_inner().unwrap().into_iter().collect::<Vec<_>>();
        self.seeker
            .assert_none("the arguments of a process", &lines.join(&0));
        ran
    }

    #[track_caller]
    fn quiet(&self, arguments: &[&str], ran: &Ran) {
        for bad in ["panicked", "RUST_BACKTRACE", "stack backtrace"] {
            assert!(!ran.err.contains(bad), "{arguments:?}: {}", ran.err);
        }
        self.seeker
            .assert_none(&format!("output of {arguments:?}"), ran.out.as_bytes());
        self.seeker
            .assert_none(&format!("errors of {arguments:?}"), ran.err.as_bytes());
    }

    /// Nothing is anywhere in the lab but where it was put, nor on the registry's disk.
    #[track_caller]
    fn clean(&self, lab: &Lab, least: usize) {
        let (found, files) = self.seeker.below(&lab.path(""), &self.kept(lab));
        assert!(found.is_empty(), "{found:#?}");
        assert!(files >= least, "only {files} files were looked through");
        let (found, _) = self.seeker.below(&self.server.storage(), &[]);
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// Arguments of every process that has `name` in its environment or arguments.
fn command_lines(name: &str) -> Vec<Vec<u8>> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let read = |path: &Path, file: &str| fs::read(path.join(file)).unwrap_or_default();
    processes
        .filter_map(|process| {
            let line = read(&process.path(), "cmdline");
            let environment = read(&process.path(), "environ");
            let here =
                [&line, &environment].map(|bytes| String::from_utf8_lossy(bytes).contains(name));
            (here.contains(&true) && !line.is_empty()).then_some(line)
        })
        .collect()
}

#[test]
fn everything_works_with_credentials_that_nobody_ever_sees() {
    let mut nest = Nest::new();
    let lab = nest.lab();
    let key = lab.path("secret.key").display().to_string();
    nest.run(&lab, &["sign", "--new", &key]).expect(0, &[]);
    let text = fs::read_to_string(&key).unwrap();
    let seed = text.trim().rsplit(':').next().unwrap().to_owned();
    nest.seeker
        .add("the signing key", &STANDARD.decode(&seed).unwrap());
    let lab = lab.env("IMAGEWRIGHT_SIGNING_KEY", &key);

    let archive = lab.path("archive.tar").display().to_string();
    let layout = lab.path("layout").display().to_string();
    let docker = lab.path("docker.tar").display().to_string();
    for arguments in [
        &["check"][..],
        &["lock", "--json"],
        &["build", "--metadata-file", "metadata.json"],
        &["push", "--dry-run"],
        &["push", "--json"],
        &["push", "--with-sources"],
        &["sign", "one", "--json"],
        &["find", "--pip", "alpha"],
        &[
            "find",
            "--json",
            "--registry",
            &format!("{}/d/ml", nest.tokens.address()),
        ],
        &["show", "one"],
        &[
            "show",
            "one",
            "--json",
            "--registry",
            &format!("{}/b/ml", nest.podman.address()),
        ],
        &["test", "--json"],
        &["why", "one"],
        &["jobs", "--json"],
        &["export", "one", "--oci", &layout],
        &["export", "one", "--oci-archive", &archive],
        &["export", "one", "--docker-archive", &docker],
        &["lock", "--upgrade"],
        &["lock", "--prefer-catalog"],
        &["lock", "--reuse", "--json"],
        &["gc", "--older-than", "0s"],
    ] {
        nest.run(&lab, arguments).expect(0, &[]);
    }
    // What the registry itself called secret in the addresses of uploads.
    let states: BTreeSet<String> = nest
        .server
        .requests()
        .iter()
        .filter_map(|request| {
            Some(
                request
                    .query
                    .split("_state=")
                    .nth(1)?
                    .split('&')
                    .next()?
                    .to_owned(),
            )
        })
        .collect();
    assert!(!states.is_empty());
    for state in &states {
        nest.seeker
            .add("the state of an upload", &state.as_bytes()[..40]);
    }
    nest.clean(&lab, 60);

    // Somebody with an empty store gets the same from there.
    let colleague = nest.lab();
    for name in ["imagewright.lock", "imagewright.kdl"] {
        colleague.write(name, fs::read(lab.project().join(name)).unwrap());
    }
    nest.run(&colleague, &["build", "--json"])
        .expect(0, &["substituted"]);
    nest.run(&colleague, &["test"]).expect(0, &["SUCCEEDED"]);
    nest.clean(&colleague, 10);

    // All of them were needed, each at its own place.
    for index in &nest.indexes {
        assert!(index.counts().1 > 1);
    }
    let porter = basic("porter", PROXY);
    let seen = nest.proxy.seen();
    assert!(seen.len() > 20);
    assert!(
        seen.iter()
            .all(|request| request.header("proxy-authorization") == Some(&porter))
    );
    for (place, proof) in [
        (&nest.docker, basic(USER, DOCKER)),
        (&nest.podman, basic(USER, PODMAN)),
        (&nest.helper, basic(USER, HELPER)),
        (&nest.tokens, format!("Bearer {TOKEN}")),
    ] {
        let seen = place.seen();
        assert!(
            seen.iter()
                .any(|request| request.header("authorization") == Some(&proof))
        );
        let other = seen
            .iter()
            .filter_map(|request| request.header("authorization"));
        assert_eq!(other.filter(|found| *found != proof).count(), 0);
    }
}

/// An error that repeats what it was sent, in several ways.
fn echo(status: u16, request: &Request) -> Answer {
    let sent = request.header("authorization").unwrap_or_default();
    let secret = sent.split(' ').next_back().unwrap_or_default();
    let decoded = STANDARD.decode(secret).unwrap_or_default();
    let decoded = String::from_utf8_lossy(&decoded).into_owned();
    let hidden: String = decoded.chars().flat_map(|c| [c, '\u{200b}']).collect();
    let message = format!(
        "bad header {sent}, {decoded}, {hidden}, {} in {}",
        decoded.replace(':', "%3A"),
        request.target
    );
    let body = json!({"errors": [
        {"code": "SOMETHING", "message": message, "detail": message},
        {"code": decoded, "message": secret},
    ]});
    Answer::json(status, &format!("x-echo: {sent}\r\n"), &body.to_string())
}

#[test]
fn errors_that_repeat_credentials_are_not_repeated() {
    let nest = Nest::new();
    let first = nest.lab();
    nest.run(&first, &["push"]).expect(0, &[]);
    let lock = fs::read(first.project().join("imagewright.lock")).unwrap();
    type Trouble = fn(&Request) -> Answer;
    let troubles: [(Trouble, &[i32]); 5] = [
        (|request| echo(401, request), &[6]),
        (|request| echo(403, request), &[6]),
        (|request| echo(500, request), &[4]),
        (|_| Answer::Reset, &[4]),
        (
            |_| {
                let target =
                    format!("location: http://127.0.0.1:9/x?token={QUERY}&_state={STATE}\r\n");
                Answer::new(307, &target, "")
            },
            &[4, 7],
        ),
    ];
    std::thread::scope(|scope| {
        for (trouble, codes) in troubles {
            let (nest, lock) = (&nest, &lock);
            scope.spawn(move || {
                let proof = basic(USER, DOCKER);
                let front = Impostor::before(nest.server.address(), move |request| {
                    admit(request, &proof, "Basic realm=\"x\"").unwrap_or_else(|| trouble(request))
                });
                let lab = nest.lab();
                let config = fs::read_to_string(lab.path("home/.docker/config.json")).unwrap();
                let config = config.replace(nest.docker.address(), front.address());
                fs::write(lab.path("home/.docker/config.json"), config).unwrap();
                let manifest = nest
                    .manifest()
                    .replace(nest.docker.address(), front.address());
                lab.write("imagewright.kdl", manifest);
                lab.write("imagewright.lock", lock);
                nest.run(&lab, &["build"]).expect(0, &[front.address()]);
                for arguments in [
                    &["find"][..],
                    &["find", "--json"],
                    &["push"],
                    &["push", "--dry-run", "--json"],
                ] {
                    let ran = nest.run(&lab, arguments);
                    assert!(codes.contains(&ran.code.unwrap()), "{arguments:?}: {ran:?}");
                    let code = ran.code.unwrap();
                    ran.expect(code, &[front.address()]);
                }
                nest.clean(&lab, 10);
            });
        }
    });
}

#[test]
fn token_servers_and_upload_sessions_that_repeat_secrets_are_not_repeated() {
    let nest = Nest::new();
    let refusing = Impostor::before(nest.server.address(), |request| {
        let host = request.header("host").unwrap_or_default();
        match request.target.starts_with("/token") {
            true => Answer::json(403, "", &json!({"errors": [{"code": "DENIED", "message": String::from_utf8_lossy(&request.body)}]}).to_string()),
            false => Answer::json(401, &format!("www-authenticate: Bearer realm=\"http://{USER}:{STATE}@{host}/token?x={QUERY}\"\r\n"), "{}"),
        }
    });
    let losing = Impostor::before(nest.server.address(), |request| {
        let target = format!("/v2/a/ml/blobs/uploads/lost?_state={STATE}");
        match request.method.as_str() {
            "POST" => Answer::new(202, &format!("location: {target}\r\n"), ""),
            "PUT" | "PATCH" => Answer::json(
                404,
                "",
                &json!({"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}).to_string(),
            ),
            _ => Answer::Honest,
        }
    });
    let lab = nest.lab();
    for (front, code) in [(&refusing, 6), (&losing, 4)] {
        let config = json!({"auths": {front.address(): {"auth": "", "identitytoken": IDENTITY}}});
        fs::write(lab.path("home/.docker/config.json"), config.to_string()).unwrap();
        let place = format!("{}/e/ml", front.address());
        nest.run(&lab, &["push", "--to", &place])
            .expect(code, &[front.address()]);
    }
    let place = format!("{}/e/ml", refusing.address());
    nest.run(&lab, &["find", "--registry", &place, "--json"])
        .expect(6, &[refusing.address()]);
    nest.clean(&lab, 10);
}

#[test]
fn what_authorises_stays_with_its_host() {
    let nest = Nest::new();
    let other = Impostor::before(nest.server.address(), |_| Answer::Honest);
    // Reading and uploading lead to another host.
    let (proof, elsewhere) = (basic(USER, DOCKER), other.address().to_owned());
    nest.docker.decide(move |request| {
        let target = format!("http://{elsewhere}{}?token={QUERY}", request.target);
        admit(request, &proof, "Basic realm=\"x\"").unwrap_or_else(|| {
            match request.method.as_str() {
                "POST" => Answer::As(elsewhere.clone()),
                "GET" => Answer::new(307, &format!("location: {target}\r\n"), ""),
                _ => Answer::Honest,
            }
        })
    });
    let lab = nest.lab();
    let place = format!("{}/a/ml", nest.docker.address());
    nest.run(&lab, &["push", "--to", &place]).expect(0, &[]);
    let colleague = nest.lab();
    let lock = fs::read(lab.project().join("imagewright.lock")).unwrap();
    colleague.write("imagewright.lock", lock);
    nest.run(&colleague, &["test"]).expect(0, &["SUCCEEDED"]);
    nest.clean(&lab, 10);
    nest.clean(&colleague, 10);
    let seen = other.seen();
    for method in ["PUT", "GET"] {
        assert!(
            seen.iter().any(|request| request.method == method),
            "{method}"
        );
    }
    for request in &seen {
        for name in ["authorization", "cookie", "proxy-authorization", "referer"] {
            assert_eq!(request.header(name), None, "{request:?}");
        }
    }
}

/// Ends with one of the codes, and says nothing that it should not, as text and as JSON.
fn refused(nest: &Nest, lab: &Lab, arguments: &[&str], codes: &[i32]) {
    for json in [&[][..], &["--json"]] {
        let ran = nest.run(lab, &[arguments, json].concat());
        let code = ran.code.unwrap();
        assert!(codes.contains(&code), "{arguments:?}: {ran:?}");
    }
    nest.clean(lab, 4);
}

#[test]
fn indexes_mirrors_and_proxies_that_fail_do_not_tell() {
    let nest = &Nest::new();
    let echoing = Impostor::alone(|request| echo(403, request));
    let gone = crate::index::closed_port().to_string();
    std::thread::scope(|scope| {
        for host in [echoing.address(), &gone] {
            scope.spawn(move || {
                let url = format!("http://{USER}:{URL}@{host}/simple?key={QUERY}");
                let lab = nest.lab().env("UV_DEFAULT_INDEX", &url);
                refused(nest, &lab, &["lock"], &[3, 4, 6]);
            });
            scope.spawn(move || {
                let mirror = format!("http://{USER}:{MIRROR}@{host}/debian?key={QUERY}");
                let lab = nest.lab().env("IMAGEWRIGHT_DEBIAN_MIRROR", &mirror);
                lab.write("imagewright.kdl", "image \"one\" base=\"minimal\"\n");
                refused(nest, &lab, &["lock"], &[4, 6]);
            });
            for registry in ["registry.example.com", nest.docker.address()] {
                scope.spawn(move || {
                    let proxy = format!("http://porter:{PROXY}@{host}");
                    let lab = nest.lab().env("HTTP_PROXY", &proxy);
                    let lab = lab.env("HTTPS_PROXY", &proxy);
                    log_in(&lab, registry);
                    let place = format!("{registry}/a/ml");
                    refused(nest, &lab, &["find", "--registry", &place], &[4, 6]);
                });
            }
        }
        scope.spawn(|| a_proxy_to_what_is_no_tls_server(nest));
        scope.spawn(|| an_index_that_leads_elsewhere(nest));
    });
}

/// Puts a login for the registry into the home.
fn log_in(lab: &Lab, registry: &str) {
    let auth = STANDARD.encode(format!("{USER}:{DOCKER}"));
    let config = json!({"auths": {registry: {"auth": auth}}});
    fs::write(lab.path("home/.docker/config.json"), config.to_string()).unwrap();
}

fn a_proxy_to_what_is_no_tls_server(nest: &Nest) {
    let plain = nest.server.address().to_owned();
    let proxy = Impostor::alone(move |_| Answer::Tunnel(plain.clone()));
    let url = format!("http://porter:{PROXY}@{}", proxy.address());
    let lab = nest.lab().env("HTTPS_PROXY", &url);
    log_in(&lab, "registry.example.com");
    let place = "registry.example.com/a/ml";
    refused(nest, &lab, &["find", "--registry", place], &[4]);
    let porter = basic("porter", PROXY);
    let seen = proxy.seen();
    assert!(!seen.is_empty());
    for request in seen {
        assert_eq!(request.method, "CONNECT");
        assert_eq!(request.header("proxy-authorization"), Some(&*porter));
        assert_eq!(request.header("authorization"), None);
    }
}

/// It tells nobody what its own address holds.
fn an_index_that_leads_elsewhere(nest: &Nest) {
    let stranger = Impostor::alone(|_| Answer::new(404, "", ""));
    let location = format!("location: http://{}/simple/alpha/\r\n", stranger.address());
    let leading = Impostor::alone(move |_| Answer::new(302, &location, ""));
    let url = format!(
        "http://{USER}:{URL}@{}/simple?key={QUERY}",
        leading.address()
    );
    let lab = nest.lab().env("UV_DEFAULT_INDEX", &url);
    refused(nest, &lab, &["lock"], &[3, 4, 8]);
    assert!(!stranger.seen().is_empty());
    for request in stranger.seen() {
        for name in ["authorization", "referer"] {
            assert_eq!(request.header(name), None, "{request:?}");
        }
        let place = "a request to another host";
        nest.seeker.assert_none(place, request.target.as_bytes());
    }
}

#[test]
fn credentials_in_a_manifest_are_refused_without_being_shown() {
    let nest = Nest::new();
    for line in [
        format!("registry \"{USER}:{MANIFEST}@registry.example.com/ml\""),
        format!("registry \"https://{USER}:{MANIFEST}@registry.example.com/ml\""),
        format!("push \"{USER}:{MANIFEST}@registry.example.com/ml\""),
        format!("index \"x\" \"https://{USER}:{MANIFEST}@index.example.com/simple\""),
        format!("index \"x\" \"https://index.example.com/simple?token={MANIFEST}\""),
    ] {
        let lab = nest.lab();
        lab.write(
            "imagewright.kdl",
            format!("{line}\nimage \"one\" {{ pip \"alpha\"; }}\n"),
        );
        for arguments in [&["check"][..], &["check", "--json"], &["lock"], &["push"]] {
            // The line itself is the user's own text, and stands in the file that they look at.
            let ran = lab.run(arguments);
            assert_eq!(ran.code, Some(2), "{line}: {ran:?}");
            let found = nest
                .seeker
                .find(&line, format!("{}{}", ran.out, ran.err).as_bytes());
            assert!(found.is_empty(), "{found:?}\n{}", ran.err);
        }
    }
    let lab = nest.lab();
    let place = format!("{USER}:{MANIFEST}@{}/a/ml", nest.docker.address());
    for arguments in [["find", "--registry", &place], ["push", "--to", &place]] {
        let ran = lab.run(&arguments);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        nest.quiet(&arguments, &ran);
    }
}
