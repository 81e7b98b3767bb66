//! Credentials go to the server that they are for, and to no other place: not into output, logs, errors, the lock, the
//! store, layers, records, archives, the registry's disk, or the arguments of a process.

use std::collections::BTreeSet;
use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::impostor::{Answer, Impostor, Request};
use crate::lab::Lab;
use crate::nest::{
    DOCKER, HELPER, IDENTITY, MANIFEST, MIRROR, Nest, PODMAN, PROXY, QUERY, STATE, TOKEN, URL,
    USER, admit,
};
use crate::wares::basic;

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

    let lines = nest.lines.lock().unwrap().clone();
    let helper = lines.iter().map(|line| String::from_utf8_lossy(line));
    assert!(
        helper
            .into_iter()
            .any(|line| line.contains("docker-credential-nest")),
        "processes are looked at while they live"
    );

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
