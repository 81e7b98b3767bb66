//! Ways to prove who one is, and to whom it is proved: credential files and helpers, tokens, certificates, plain HTTP.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::bases;
use crate::faults::Weather;
use crate::lab::{self, Lab, Options, PASSWORD, PREFIX, Ran, Server, USER};
use crate::proxy::Proxy;
use crate::relay::Relay;
use crate::wares;

const LOGIN: Options = Options {
    login: true,
    delete: false,
};

const ONE: &str = "image \"one\" base=\"small\" { pip \"delta\"; }";

/// Runs a command with more variables.
fn run_with(lab: &Lab, variables: &[(&str, String)], arguments: &[&str]) -> Ran {
    let mut command = lab.command(arguments);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    lab.start_command(command).wait(Duration::from_secs(120))
}

/// What a command ended with, and that it told no secret.
#[track_caller]
fn expect(ran: Ran, code: i32, words: &[&str], secrets: &[&str]) {
    let ran = ran.expect(code, words);
    let said = format!("{}{}", ran.out, ran.err);
    for secret in secrets.iter().chain(&[PASSWORD]) {
        assert!(!said.contains(secret), "{said}");
    }
}

/// A project that is not logged in anywhere.
fn stranger(address: &str, index: &crate::index::Server) -> Lab {
    let lab = lab::project(address, index, ONE);
    fs::remove_dir_all(lab.path("home/.docker")).unwrap();
    lab
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn entry(user: &str, password: &str) -> Value {
    let basic = wares::basic(user, password);
    json!({ "auth": basic.trim_start_matches("Basic ") })
}

#[test]
fn credentials_are_found_where_docker_and_podman_keep_them() {
    let server = Server::docker_registry(LOGIN);
    let index = lab::index();
    let lab = stranger(server.address(), &index);
    let push = ["push"];
    let docker = format!("`docker login {}`", server.address());
    let podman = format!("`podman login {}`", server.address());
    let words = ["none are configured", docker.as_str(), &podman];
    expect(lab.run(&push), 6, &words, &[]);
    assert_eq!(server.repositories(), Vec::<String>::new());

    // Written by podman, which compares the login with the registry.
    let by_podman = lab.path("by-podman.json");
    let file = by_podman.to_str().unwrap();
    let login = ["--username", USER, "--password", PASSWORD];
    let podman = [
        "login",
        "--tls-verify=false",
        "--authfile",
        file,
        server.address(),
    ];
    bases::run("podman", [&podman[..], &login].concat());
    let text = fs::read_to_string(&by_podman).unwrap();
    let path = json!({"auths": {format!("{}/{PREFIX}", server.address()): entry(USER, PASSWORD)}});
    let legacy =
        json!({"auths": {format!("https://{}/v2/", server.address()): entry(USER, PASSWORD)}});
    let folder = |name: &str| lab.path(name).display().to_string();
    for (file, content, variable) in [
        ("own.json", &text, Some(("REGISTRY_AUTH_FILE", "own.json"))),
        (
            "run/containers/auth.json",
            &text,
            Some(("XDG_RUNTIME_DIR", "run")),
        ),
        ("home/.config/containers/auth.json", &path.to_string(), None),
        (
            "docker/config.json",
            &legacy.to_string(),
            Some(("DOCKER_CONFIG", "docker")),
        ),
        ("home/.docker/config.json", &text, None),
    ] {
        write(&lab.path(file), content);
        let variables: Vec<(&str, String)> = variable
            .into_iter()
            .map(|(name, value)| (name, folder(value)))
            .collect();
        expect(run_with(&lab, &variables, &push), 0, &["one"], &[]);
        fs::remove_file(lab.path(file)).unwrap();
    }
    expect(lab.run(&push), 6, &[server.address()], &[]);

    let wrong = "wr0ng-and-secret";
    let encoded = entry(USER, wrong);
    let auths = json!({"auths": {server.address(): encoded}});
    write(&lab.path("home/.docker/config.json"), &auths.to_string());
    let secrets = [wrong, encoded["auth"].as_str().unwrap()];
    let words = [
        server.address(),
        "to these credentials",
        "are wrong, or may not do this",
    ];
    expect(lab.run(&push), 6, &words, &secrets);
    expect(lab.run(&["find", "--json"]), 6, &[], &secrets);
    // Half a file is no file.
    write(
        &lab.path("home/.docker/config.json"),
        &auths.to_string()[..60],
    );
    expect(lab.run(&push), 6, &["config.json", "not valid"], &secrets);
}

/// A credential helper in a folder of its own (the protocol of `docker-credential-helpers`): it knows `address`, writes
/// down what it is asked, and fails for everybody else with `otherwise`.
fn helper(lab: &Lab, address: &str, otherwise: &str) -> (PathBuf, Vec<(&'static str, String)>) {
    let log = lab.path("helper.log");
    let path = lab.path("bin/docker-credential-lab");
    let script = format!(
        "#!/bin/sh\nread -r host\necho \"$1 $host\" >> '{}'\n\
         [ \"$1 $host\" = 'get {address}' ] || {{ echo '{otherwise}'; exit 1; }}\n\
         printf '{{\"ServerURL\":\"%s\",\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}' \"$host\"\n",
        log.display()
    );
    write(&path, &script);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let folder = path.parent().unwrap().display();
    let variables = vec![("PATH", format!("{folder}:/usr/bin:/bin"))];
    (log, variables)
}

#[test]
fn credential_helpers_are_asked_for_this_registry() {
    let server = Server::docker_registry(LOGIN);
    let (address, index) = (server.address(), lab::index());
    let lab = stranger(address, &index);
    let config = lab.path("home/.docker/config.json");
    let none = "credentials not found in native keychain";
    for document in [
        json!({"credHelpers": {address: "lab"}}),
        json!({"credsStore": "lab"}),
        json!({"credsStore": "no-such-helper", "credHelpers": {address: "lab"}}),
    ] {
        write(&config, &document.to_string());
        let (log, variables) = helper(&lab, address, none);
        expect(run_with(&lab, &variables, &["push"]), 0, &["one"], &[]);
        let asked = fs::read_to_string(&log).unwrap();
        assert!(
            asked.lines().all(|line| line == format!("get {address}")),
            "{asked}"
        );
        fs::remove_file(log).unwrap();
    }
    // One that knows nothing of this registry is no obstacle for another file; one that breaks is.
    let podman = lab.path("home/.config/containers/auth.json");
    let auths = json!({"auths": {address: entry(USER, PASSWORD)}});
    write(&podman, &auths.to_string());
    write(&config, &json!({"credsStore": "lab"}).to_string());
    let (_, variables) = helper(&lab, "other.example.com", none);
    expect(run_with(&lab, &variables, &["push"]), 0, &["one"], &[]);
    fs::remove_file(&podman).unwrap();
    expect(run_with(&lab, &variables, &["push"]), 6, &[address], &[]);
    let document = json!({"credHelpers": {address: "lab"}});
    write(&config, &document.to_string());
    let (_, variables) = helper(&lab, "other.example.com", "the k3ychain is locked");
    let words = ["credential helper", address, "docker-credential-lab"];
    let ran = run_with(&lab, &variables, &["push"]);
    expect(ran, 6, &words, &["k3ychain"]);
}

#[test]
fn tokens_are_fetched_with_the_login_and_again_when_they_end() {
    let server = Server::docker_registry(Options::default());
    let index = lab::index();
    let weather = Weather {
        token_uses: Some(20),
        ..Weather::default()
    };
    let proxy = Proxy::start(server.address(), weather);
    let first = lab::project(proxy.address(), &index, ONE);
    expect(first.run(&["push"]), 0, &["one"], &[]);
    server.assert_whole();
    let tokens = || {
        let asked = proxy.asked().into_iter();
        asked
            .filter(|asked| asked.target.starts_with("/token?"))
            .count()
    };
    assert!(tokens() > 3, "{:?}", proxy.asked());
    let second = lab::colleague(&first, proxy.address());
    assert_eq!(second.build(), first.build());
    expect(
        second.run(&["find", "--pip", "delta"]),
        0,
        &["one"],
        &["token-"],
    );

    // The token server is who refuses.
    let lab = stranger(proxy.address(), &index);
    expect(lab.run(&["push"]), 6, &[proxy.address()], &["token-"]);
    let wrong = entry(USER, "wr0ng");
    let auths = json!({"auths": {proxy.address(): wrong}});
    write(&lab.path("home/.docker/config.json"), &auths.to_string());
    let secrets = ["wr0ng", wrong["auth"].as_str().unwrap()];
    expect(lab.run(&["push"]), 6, &[proxy.address()], &secrets);
}

/// A certificate for `registry.example.com` by an authority of our own.
struct Certificates(tempfile::TempDir);

impl Certificates {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = "set -e
            new='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
            openssl req -x509 $new -keyout ca.key -out ca.pem -days 2 -subj /CN=authority
            openssl req $new -keyout server.key -out server.csr -subj /CN=server
            echo subjectAltName=DNS:registry.example.com > names
            openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem";
        let mut shell = bases::command("sh");
        let made = shell
            .args(["-c", script])
            .current_dir(folder.path())
            .output();
        let made = made.unwrap();
        assert!(made.status.success(), "{made:?}");
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[test]
fn an_authority_of_ones_own_vouches_for_the_registry_of_its_name() {
    let certificates = Certificates::new();
    let server = Server::with_tls(
        &certificates.path("server.pem"),
        &certificates.path("server.key"),
    );
    let relay = Relay::start(server.address());
    let mut variables = Vec::from(relay.variables());
    let index = lab::index();
    let host = "registry.example.com:5443";
    let project = |host: &str, variables: &[(String, String)]| {
        let lab = lab::project(host, &index, ONE);
        variables
            .iter()
            .fold(lab, |lab, (name, value)| lab.env(name, value))
    };
    let unknown = project(host, &variables);
    expect(unknown.run(&["push"]), 4, &[host, "certificate"], &[]);
    assert_eq!(server.repositories(), Vec::<String>::new());

    let authority = certificates.path("ca.pem").display().to_string();
    variables.push(("SSL_CERT_FILE".into(), authority));
    let first = project(host, &variables);
    expect(first.run(&["push"]), 0, &["one"], &[]);
    server.assert_whole();
    let tunnel = format!("CONNECT {host}");
    assert!(relay.asked().iter().all(|line| *line == tunnel));
    let second = project(host, &variables);
    let lock = fs::read(first.project().join("imagewright.lock")).unwrap();
    second.write("imagewright.lock", lock);
    expect(second.run(&["build"]), 0, &["substituted from"], &[]);

    // It is known, but as another one.
    let other = project("other.example.com:5443", &variables);
    expect(
        other.run(&["push"]),
        4,
        &["other.example.com:5443", "certificate"],
        &[],
    );
}

#[test]
fn without_tls_only_loopback_and_declared_hosts_are_talked_to() {
    let server = Server::docker_registry(LOGIN);
    let relay = Relay::start(server.address());
    let index = lab::index();
    let host = "registry.example.com:5000";
    let lab = relay
        .variables()
        .iter()
        .fold(lab::project(host, &index, ONE), |lab, (name, value)| {
            lab.env(name, value)
        });
    let (ran, requests) = server.during(|| lab.run(&["push"]));
    expect(ran, 4, &[host, "plain-http=#true"], &[]);
    assert!(requests.is_empty(), "{requests:#?}");
    let tunnel = format!("CONNECT {host}");
    assert!(relay.asked().iter().all(|line| *line == tunnel));

    let manifest = fs::read_to_string(lab.project().join("imagewright.kdl")).unwrap();
    let declared = format!("{PREFIX}\" plain-http=#true");
    lab.write(
        "imagewright.kdl",
        manifest.replacen(&format!("{PREFIX}\""), &declared, 1),
    );
    expect(lab.run(&["push"]), 0, &["one"], &[]);
    server.assert_whole();
    expect(lab.run(&["find", "--pip", "delta"]), 0, &["one"], &[]);
    // What is declared for one host holds for that one.
    let elsewhere = "elsewhere.example.com:5000";
    let (ran, requests) =
        server.during(|| lab.run(&["push", "--to", &format!("{elsewhere}/team")]));
    expect(ran, 4, &[elsewhere], &[]);
    assert!(requests.is_empty(), "{requests:#?}");
}
