//! The built-in bases: built by the program from the real archive, built again under another clock, and used.
//!
//! Downloads are kept below `target/test-cache`; what is built is not, so that every run builds. The other clock is
//! libfaketime's, which is why these tests need the package faketime.
#![cfg(target_os = "linux")]

mod above;
mod clock;
#[path = "../debian/command.rs"]
mod command;
mod contents;
mod support;
mod unprivileged;
