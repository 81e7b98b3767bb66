//! A team member with secrets in all the places where secrets are kept, servers that demand them, and a look at all that
//! is said and left behind.

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
pub const DOCKER: &str = "canary-docker-1f09b7c2";
pub const PODMAN: &str = "canary-podman-2e18a6d3";
pub const HELPER: &str = "canary-helper-3d27f5e4";
pub const IDENTITY: &str = "canary-identity-4c36e4f5";
pub const TOKEN: &str = "canary-token-5b45d306";
pub const URL: &str = "canary-url-6a54c217";
pub const NAMED: &str = "canary-named-7963b128";
pub const NETRC: &str = "canary-netrc-8872a039";
pub const PROXY: &str = "canary-proxy-97819f4a";
pub const MIRROR: &str = "canary-mirror-a6908e5b";
pub const QUERY: &str = "canary-query-b5af7d6c";
pub const STATE: &str = "canary-state-c4be6c7d";
pub const MANIFEST: &str = "canary-manifest-d3cd5b8e";

pub const USER: &str = "someone";

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
pub fn admit(request: &Request, proof: &str, challenge: &str) -> Option<Answer> {
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
pub struct Nest {
    pub server: Server,
    pub docker: Impostor,
    pub podman: Impostor,
    pub helper: Impostor,
    pub tokens: Impostor,
    pub proxy: Impostor,
    pub indexes: [crate::index::Server; 3],
    pub seeker: Seeker,
    /// Arguments of the processes that were seen.
    pub lines: Mutex<BTreeSet<Vec<u8>>>,
}

impl Nest {
    pub fn new() -> Self {
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
            lines: Mutex::default(),
        }
    }

    /// A home with everything in it, and a project.
    pub fn lab(&self) -> Lab {
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

    pub fn manifest(&self) -> String {
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
    pub fn run(&self, lab: &Lab, arguments: &[&str]) -> Ran {
        let done = AtomicBool::new(false);
        let ran = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let seen = command_lines(lab.name());
                    self.lines.lock().unwrap().extend(seen);
                    std::thread::sleep(Duration::from_millis(60));
                }
            });
            let ran = lab.start(arguments).wait(Duration::from_secs(100));
            done.store(true, Ordering::Relaxed);
            ran
        });
        self.quiet(arguments, &ran);
        let lines: Vec<_> = self.lines.lock().unwrap().iter().cloned().collect();
        self.seeker
            .assert_none("the arguments of a process", &lines.join(&0));
        ran
    }

    #[track_caller]
    pub fn quiet(&self, arguments: &[&str], ran: &Ran) {
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
    pub fn clean(&self, lab: &Lab, least: usize) {
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
