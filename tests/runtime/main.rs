//! The embedded runtime, runs and their results, on a small root made of one static busybox.
#![cfg(target_os = "linux")]

mod container;
mod limits;
mod rootless;
mod runs;
mod support;
