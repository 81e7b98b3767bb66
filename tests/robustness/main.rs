//! Killed, interrupted, locked down, badly fed, crowded: every command ends with a clear word, and the store stays whole.
//!
//! The binary under test runs in an environment of its own ([`lab::Lab`]); nothing of the host leaks in.
#![expect(
    clippy::print_stderr,
    reason = "the seed of random moments must be told, so that a failure can be repeated"
)]

mod collection;
mod crowd;
mod full_disk;
#[path = "../debian/gnupg.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod gnupg;
mod input;
mod interrupted;
mod killed;
mod lab;
mod limits;
mod locked_down;
mod secrets;
mod server;
mod traces;
mod wares;
