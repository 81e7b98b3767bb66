//! Registries that answer with nonsense, without end, or with traps: every command ends soon, within its memory, with a
//! word that names the registry, and leaves nothing behind that is in the way of a good registry.

use std::fs;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use crate::impostor::{Answer, Impostor, Request};
use crate::lab::{self, Lab, Options, PREFIX, Ran, Server};
use crate::project::PROGRAM;

pub const IMAGES: &str = r#"
image "one" base="small" { pip "alpha"; file "app.txt" to="/app/"; }
run "check" image="one" {
    command "sh" "-c" "cat /app/app.txt; touch /results/seen"
    resources ram="64MB" cpu="500m"
    timeout "20s"
}
"#;

/// Address space of a command, in bytes.
const MEMORY: u64 = 2 << 30;
/// Most bytes of a file that a command writes; more ends it.
const FILE: u64 = 256 << 20;
/// How long a command may take on a machine that does other things too.
const LIMIT: Duration = Duration::from_secs(80);

/// Which requests are answered wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The record of a set key.
    Set,
    /// A record by its digest.
    Record,
    /// A manifest by its digest.
    Pinned,
    /// The list of tags.
    Tags,
    /// A blob.
    Blob,
    /// Whether a blob is there.
    Has,
    /// The begin of an upload.
    Begin,
    /// The rest of it.
    Send,
    /// Putting a manifest.
    Put,
    /// What refers to an image.
    Referrers,
    /// What an image's name stands for.
    Name,
}

impl Door {
    pub fn concerns(self, request: &Request) -> bool {
        let line = request.line();
        let (method, path) = line.split_once(' ').unwrap();
        let reads = matches!(method, "GET" | "HEAD");
        match self {
            Self::Set => reads && path.contains("/manifests/set-"),
            Self::Record => reads && path.contains("/manifests/record-"),
            Self::Pinned => reads && path.contains("/manifests/sha256:"),
            Self::Tags => path.ends_with("/tags/list"),
            Self::Blob => method == "GET" && path.contains("/blobs/sha256:"),
            Self::Has => method == "HEAD" && path.contains("/blobs/"),
            Self::Begin => method == "POST",
            Self::Send => method != "POST" && path.contains("/blobs/uploads/"),
            Self::Name => reads && path.ends_with("/manifests/one"),
            Self::Put => method == "PUT" && path.contains("/manifests/"),
            Self::Referrers => {
                path.contains("/referrers/") || reads && path.contains("/manifests/sha256-")
            }
        }
    }
}

/// What somebody does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Build,
    Find,
    Show,
    Reuse,
    Push,
    Test,
}

impl Deed {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Build => &["build"],
            Self::Find => &["find", "--pip", "alpha"],
            Self::Show => &["show", "other"],
            Self::Reuse => &["lock", "--reuse"],
            Self::Push => &["push"],
            Self::Test => &["test"],
        }
    }

    /// The exit codes that it may end with when the registry is of no use.
    fn codes(self) -> &'static [i32] {
        match self {
            Self::Build | Self::Test => &[0],
            Self::Find | Self::Show | Self::Reuse => &[0, 4, 7, 8],
            Self::Push => &[4, 7],
        }
    }
}

/// A registry with the image that the manifest declares and one that it does not, and who has pushed them.
pub struct Scene {
    pub server: Server,
    pub first: Lab,
    index: crate::index::Server,
}

impl Scene {
    pub fn new() -> Self {
        let server = Server::docker_registry(Options::default());
        let index = lab::index();
        let images = format!("{IMAGES}image \"other\" base=\"small\" {{ pip \"alpha\"; }}\n");
        let first = lab::project(server.address(), &index, &images);
        first.write("app.txt", "the app\n");
        first.run(&["push"]).expect(0, &["one", "other"]);
        Self {
            server,
            index,
            first,
        }
    }

    /// Somebody with an empty store who asks `address` in place of the registry.
    pub fn colleague(&self, address: &str, deed: Deed) -> Lab {
        let lab = Lab::new().env("PIP_INDEX_URL", &self.index.index());
        // Whoever pushes has something new, below a name of its own: others count what is there.
        let (place, app) = match deed {
            Deed::Push => {
                let port = address.rsplit(':').next().unwrap();
                (format!("own/p{port}"), format!("the app for {port}\n"))
            }
            _ => (PREFIX.to_owned(), "the app\n".to_owned()),
        };
        let manifest = lab::manifest(address, IMAGES).replace(PREFIX, &place);
        lab.write("imagewright.kdl", manifest);
        lab.write("app.txt", app);
        if !matches!(deed, Deed::Reuse | Deed::Push) {
            let lock = fs::read_to_string(self.first.project().join("imagewright.lock"));
            lab.write("imagewright.lock", lock.unwrap());
        }
        lab
    }
}

/// Runs within limits. Whatever came of it: it was not ended by a limit or a bug, and nothing steers the terminal.
#[track_caller]
pub fn run(lab: &Lab, arguments: &[&str]) -> Ran {
    let mut command = Command::new("prlimit");
    command.args([
        format!("--as={MEMORY}"),
        format!("--fsize={FILE}"),
        PROGRAM.into(),
    ]);
    command.arg("-C").arg(lab.project()).args(arguments);
    lab.prepare(&mut command);
    let ran = lab.start_command(command).wait(LIMIT);
    let said = format!("{}{}", ran.out, ran.err);
    for bad in [
        "panicked",
        "RUST_BACKTRACE",
        "stack backtrace",
        "memory allocation",
    ] {
        assert!(!said.contains(bad), "{arguments:?}: {said}");
    }
    assert!(
        ran.code.is_some_and(|code| code < 70),
        "{arguments:?}: {ran:?}"
    );
    let steers = |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!said.contains(steers), "{arguments:?}: {said:?}");
    assert!(said.len() < 20_000, "{arguments:?} says too much: {said}");
    ran
}

/// One deed while `door` is answered by `answer`, and then with the good registry.
#[track_caller]
fn survives(scene: &Scene, what: &str, answer: fn(&Request) -> Answer, door: Door, deed: Deed) {
    let impostor = Impostor::before(scene.server.address(), move |request| {
        match door.concerns(request) {
            true => answer(request),
            false => Answer::Honest,
        }
    });
    let lab = scene.colleague(impostor.address(), deed);
    let ran = run(&lab, deed.arguments());
    let asked = impostor.seen();
    assert!(
        asked.iter().any(|request| door.concerns(request)),
        "{what}, {door:?}, {deed:?}: nothing was asked there"
    );
    let code = ran.code.unwrap();
    assert!(
        deed.codes().contains(&code) && ran.err.contains(impostor.address()),
        "{what}, {door:?}, {deed:?}: {ran:?}"
    );
    impostor.decide(|_| Answer::Honest);
    let after =
        run(&lab, deed.arguments()).expect(0, &["one"].repeat(usize::from(deed != Deed::Show)));
    assert!(
        deed != Deed::Find || after.out.contains("READY"),
        "{what}, {door:?}: {after:?}"
    );
}

type Trap = (&'static str, fn(&Request) -> Answer);

fn ok(body: impl AsRef<[u8]>) -> Answer {
    let kind = "content-type: application/vnd.oci.image.manifest.v1+json\r\n";
    Answer::new(200, kind, body)
}

/// A body that never ends, in chunks.
fn endless(piece: &[u8], pause: Duration) -> Answer {
    let size = format!("{:x}\r\n", piece.len());
    Answer::Endless {
        begin: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
        piece: [size.as_bytes(), piece, b"\r\n"].concat(),
        pause,
    }
}

/// What is no document.
const DOCUMENTS: &[Trap] = &[
    ("an empty answer", |_| ok("")),
    ("a login page", |_| {
        Answer::new(200, "content-type: text/html\r\n", "<html>sign in</html>")
    }),
    ("not UTF-8", |_| {
        ok(b"{\"tags\":[\"\xff\xfe\"],\"config\":\"\xff\"}")
    }),
    ("100,000 levels", |_| {
        ok("[".repeat(100_000) + &"]".repeat(100_000))
    }),
    ("digests that are paths", |_| {
        let blob =
            r#"{"mediaType":"a\nb\u001b[2J","digest":"sha256:../../../etc/passwd","size":-1}"#;
        ok(format!(
            r#"{{"config":{blob},"layers":[{blob}],"manifests":[{blob}],"tags":["../\u001b[2J"]}}"#
        ))
    }),
    ("sizes that are none", |_| {
        let blob =
            r#"{"mediaType":"a","digest":"sha512:00","size":99999999999999999999999,"size":NaN}"#;
        ok(format!(
            r#"{{"config":{blob},"config":{blob},"manifests":{blob},"tags":NaN}}"#
        ))
    }),
];

/// What is no answer.
const ANSWERS: &[Trap] = &[
    ("a gigabyte announced", |_| {
        Answer::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n{".to_vec())
    }),
    ("an endless body", |_| {
        endless(&[b'['; 65536], Duration::ZERO)
    }),
    ("endless headers", |_| Answer::Endless {
        begin: b"HTTP/1.1 200 OK\r\n".to_vec(),
        piece: b"x-flood: yes\r\n".repeat(100),
        pause: Duration::ZERO,
    }),
    ("a redirect to itself", |request| {
        Answer::new(307, &format!("location: {}\r\n", request.target), "")
    }),
    ("a redirect to a file", |_| {
        Answer::new(307, "location: file:///etc/passwd\r\n", "")
    }),
    ("escapes for a terminal", |_| {
        let error = r#"{"code":"\u001b[2J","message":"\u001b]0;x\u0007\u202eevil\u009b2J"}"#;
        Answer::json(400, "", &format!(r#"{{"errors":[{error}]}}"#))
    }),
];

/// What breaks off as the others do; asked for once by each kind of work.
const BROKEN: &[Trap] = &[
    ("no HTTP", |_| {
        Answer::Bytes(b"\x15\x03\x01\x00\x02\x02\x50 \x1b[2J\r\n\r\n".to_vec())
    }),
    ("a chunk beyond all sizes", |_| {
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        Answer::Bytes([head.as_slice(), b"ffffffffffffffffff\r\n"].concat())
    }),
];

/// What comes so slowly that only those may ask for it who do not wait long.
const SLOW: &[Trap] = &[
    ("a slow drip", |_| endless(b" ", Duration::from_millis(300))),
    ("nothing at all", |_| Answer::Endless {
        begin: Vec::new(),
        piece: Vec::new(),
        pause: Duration::from_millis(300),
    }),
];

const READING: &[(Door, Deed)] = &[
    (Door::Set, Deed::Build),
    (Door::Blob, Deed::Build),
    (Door::Pinned, Deed::Build),
    (Door::Tags, Deed::Find),
    (Door::Record, Deed::Find),
    (Door::Tags, Deed::Reuse),
    (Door::Blob, Deed::Reuse),
    (Door::Tags, Deed::Show),
    (Door::Blob, Deed::Test),
    (Door::Referrers, Deed::Push),
];

const WRITING: &[(Door, Deed)] = &[
    (Door::Has, Deed::Push),
    (Door::Begin, Deed::Push),
    (Door::Send, Deed::Push),
    (Door::Put, Deed::Push),
    // A document that is none is replaced there.
    (Door::Name, Deed::Push),
];

#[test]
fn every_command_survives_every_answer_and_works_with_a_good_registry_afterwards() {
    let scene = &Scene::new();
    let mut jobs = Vec::new();
    for trap in SLOW {
        jobs.extend(READING[..3].iter().map(|work| (trap, *work)));
    }
    for trap in ANSWERS {
        let work = READING.iter().chain(WRITING);
        jobs.extend(work.map(|work| (trap, *work)));
    }
    for trap in BROKEN {
        let work = READING.iter().step_by(3).chain(&WRITING[1..2]);
        jobs.extend(work.map(|work| (trap, *work)));
    }
    for trap in DOCUMENTS {
        jobs.extend(READING.iter().map(|work| (trap, *work)));
    }
    let jobs = Mutex::new(jobs.into_iter());
    let next = || jobs.lock().unwrap().next();
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                while let Some(((what, answer), (door, deed))) = next() {
                    survives(scene, what, *answer, door, deed);
                }
            });
        }
    });
}
