//! Debian archives of the tests' own, signed by gpg and served on loopback.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use imagewright::digest::Digest;
use imagewright::resolve::debian::ArchiveSpec;

use crate::command::run;
use crate::gnupg::GnuPg;

/// The suite of every archive.
pub const SUITE: &str = "bookworm";

/// 2026-07-12T00:00:00Z, a day within the validity of what [`Archive::release`] writes.
pub const NOW: i64 = 1_783_814_400;

/// An archive of one suite with own keys, in a temporary folder, served on loopback.
pub struct Archive {
    pub folder: tempfile::TempDir,
    pub url: String,
}

impl Archive {
    /// With these stanzas, not yet signed.
    pub fn new(stanzas: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = serve(folder.path());
        let archive = Self { folder, url };
        archive.packages(stanzas);
        archive
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn suite(&self, path: &str) -> PathBuf {
        self.path(&format!("dists/{SUITE}/{path}"))
    }

    pub fn packages(&self, stanzas: &str) {
        let by_hash = self.suite("main/binary-amd64/by-hash/SHA256");
        fs::create_dir_all(&by_hash).unwrap();
        fs::write(self.suite("main/binary-amd64/Packages"), stanzas).unwrap();
        run(Command::new("xz")
            .args(["-9", "-k", "-f"])
            .arg(self.suite("main/binary-amd64/Packages")));
        let xz = fs::read(self.suite("main/binary-amd64/Packages.xz")).unwrap();
        fs::write(by_hash.join(Digest::of(&xz).hex()), xz).unwrap();
    }

    /// The unsigned Release text.
    pub fn release(&self) -> String {
        let mut text = format!(
            "Suite: oldstable\nCodename: {SUITE}\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n\
             Valid-Until: Sat, 18 Jul 2026 10:16:37 UTC\nAcquire-By-Hash: yes\n\
             Architectures: amd64\nComponents: main\nSHA256:\n"
        );
        for name in ["Packages", "Packages.xz"] {
            let bytes = fs::read(self.suite(&format!("main/binary-amd64/{name}"))).unwrap();
            text += &format!(
                " {} {} main/binary-amd64/{name}\n",
                Digest::of(&bytes).hex(),
                bytes.len()
            );
        }
        text
    }

    pub fn publish(&self, in_release: &str) {
        fs::write(self.suite("InRelease"), in_release).unwrap();
    }

    pub fn spec(&self, key: &Key) -> ArchiveSpec {
        ArchiveSpec {
            suite: SUITE.into(),
            mirror: Some(self.url.clone()),
            components: vec!["main".into()],
            keyring: Some(key.public.clone()),
            updates: false,
        }
    }
}

/// A key that gpg made.
pub struct Key {
    gnupg: GnuPg,
    pub public: PathBuf,
}

impl Key {
    /// `algorithm` is gpg's; the key was made on 2026-01-01 and lives for `lifetime` (`1d`, `0`).
    pub fn new(algorithm: &str, lifetime: &str) -> Self {
        let gnupg = GnuPg::new();
        let public = gnupg.path("public.gpg");
        let key = Self { gnupg, public };
        key.gpg(
            &[
                "--quick-gen-key",
                "archive <archive@example.com>",
                algorithm,
                "sign",
                lifetime,
            ],
            "",
            "20260101T000000",
        );
        key.export();
        key
    }

    pub fn export(&self) {
        let public = self.gpg_bytes(&["--export"], "", "20260711T000000");
        fs::write(&self.public, public).unwrap();
    }

    pub fn gpg(&self, arguments: &[&str], input: &str, time: &str) -> String {
        String::from_utf8(self.gpg_bytes(arguments, input, time)).unwrap()
    }

    pub fn gpg_bytes(&self, arguments: &[&str], input: &str, time: &str) -> Vec<u8> {
        let time = ["--faked-system-time", time];
        self.gnupg.run(&[&time, arguments].concat(), input)
    }

    pub fn fingerprint(&self) -> String {
        let listing = self.gpg(&["--list-keys", "--with-colons"], "", "20260711T000000");
        let line = listing
            .lines()
            .find(|line| line.starts_with("fpr:"))
            .unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    /// The text with a cleartext signature of 2026-07-11.
    pub fn sign(&self, text: &str) -> String {
        self.gpg(
            &["--clearsign", "--digest-algo", "SHA512"],
            text,
            "20260711T110000",
        )
    }

    pub fn add_signing_subkey(&self) {
        let fingerprint = self.fingerprint();
        self.gpg(
            &["--quick-add-key", &fingerprint, "rsa2048", "sign", "0"],
            "",
            "20260102T000000",
        );
        self.export();
    }

    /// The public key after its owner revoked it.
    pub fn revoke(&self) {
        let folder = self.gnupg.path("openpgp-revocs.d");
        let file = fs::read_dir(folder)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let text = fs::read_to_string(file)
            .unwrap()
            .replace(":-----BEGIN", "-----BEGIN");
        self.gpg(&["--import"], &text, "20260705T000000");
        self.export();
    }
}

/// Serves a folder on loopback until the process ends; gives the URL.
pub fn serve(folder: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            std::thread::spawn(move || answer(stream, &folder));
        }
    });
    url
}

fn answer(mut stream: TcpStream, folder: &Path) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else {
        return;
    };
    while lines
        .next()
        .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
    {}
    let path = first
        .split(' ')
        .nth(1)
        .unwrap_or("/")
        .trim_start_matches('/');
    let answer = match fs::read(folder.join(path)) {
        Ok(bytes) => {
            let mut answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                bytes.len()
            )
            .into_bytes();
            answer.extend(bytes);
            answer
        }
        Err(_) => {
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
        }
    };
    let _ = stream.write_all(&answer);
}
