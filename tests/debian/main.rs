//! The Debian path, end to end: signed indexes, the solver, fetched debs, layers made by dpkg.
//!
//! Judges: gpg signs, dpkg-deb packs, apt chooses, mmdebstrap installs. Own archives are served on loopback; the real
//! one is reached through the host's apt sources, its files kept below `target/test-cache`.

mod archive;
mod cases;
mod command;
mod fetch;
mod gnupg;
mod layer;
mod mirror;
mod parity;
mod support;
