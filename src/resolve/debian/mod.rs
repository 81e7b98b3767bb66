//! Debian resolution: an archive's signed index, and which of its packages an image needs.
//!
//! `archive` fetches and verifies, `packages` holds what the archive offers, `solve` chooses, [`resolve_base`] and
//! [`resolve_above`] turn a manifest's requirements into debs for the lock. Nothing here downloads a package, and
//! nothing reads a clock.

mod archive;
mod choose;
mod date;
mod openpgp;
mod packages;
pub mod relation;
mod release;
mod solve;

pub use archive::{ArchiveError, ArchiveSpec, Outside, load, login, mirrors};
pub use choose::{
    AboveRequest, BaseRequest, BaseSolution, Installed, means_version, resolve_above, resolve_base,
};
pub use openpgp::{Keyring, SignatureError};
pub use packages::{NotStanzas, Package, Priority, Universe};
pub use release::Release;

pub use debversion::Version;
