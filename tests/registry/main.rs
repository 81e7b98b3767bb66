//! Pushing to, looking up in and pulling from real registries, in good weather and bad.

mod fixtures;
#[path = "../robustness/server.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod index;
mod lab;
#[path = "../robustness/lab.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod project;
#[path = "../robustness/wares.rs"]
#[allow(
    dead_code,
    clippy::print_stderr,
    reason = "shared with other test binaries"
)]
mod wares;
