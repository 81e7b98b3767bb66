//! Projects of people who share a registry.

use std::fs;

use crate::lab::login_file;
pub use crate::project::{Lab, Ran};
use crate::wares;

/// A package index on loopback with some small wheels: `alpha` (needs `beta`), `beta`, `gamma` (needs `beta`,
/// `delta`), `delta`.
pub fn index() -> crate::index::Server {
    crate::index::Server::with(&[
        wares::wheel("alpha", "1.0", &["beta"], 60, 2_000),
        wares::wheel("beta", "2.0", &[], 4, 300_000),
        wares::wheel("gamma", "3.0", &["beta", "delta"], 200, 1_000),
        wares::wheel("delta", "0.1", &[], 2, 100),
    ])
}

/// Where the projects of the tests push to: below this repository of the registry.
pub const PREFIX: &str = "team/ml";

/// A project with its own store and home whose `registry` is at `address` (host and port), logged in there. Images
/// stand on the base `small`, a busybox image with what a resolver looks at.
pub fn project(address: &str, index: &crate::index::Server, images: &str) -> Lab {
    let lab = Lab::with(&manifest(address, images)).env("PIP_INDEX_URL", &index.index());
    login_file(&lab.path("home/.docker"), &[address]);
    lab
}

/// The manifest of [`project`].
pub fn manifest(address: &str, images: &str) -> String {
    format!(
        "registry \"{address}/{PREFIX}\"\nbase \"small\" {{ from \"oci:../base:busybox\"; }}\n{images}\n"
    )
}

/// A colleague's project: the same files, an empty store of its own, and no package index.
pub fn colleague(of: &Lab, address: &str) -> Lab {
    let closed = crate::index::closed_port();
    let lab = Lab::new().env("PIP_INDEX_URL", &format!("http://{closed}/simple"));
    for entry in walkdir::WalkDir::new(of.project())
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_type().is_file())
    {
        let below = entry.path().strip_prefix(of.project()).unwrap();
        lab.write(below.to_str().unwrap(), fs::read(entry.path()).unwrap());
    }
    login_file(&lab.path("home/.docker"), &[address]);
    lab
}
