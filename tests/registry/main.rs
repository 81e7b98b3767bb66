//! Pushing to, looking up in and pulling from real registries, in good weather and bad.
#![expect(
    clippy::print_stderr,
    reason = "the seed of random moments must be told, so that a failure can be repeated"
)]

#[path = "../images/support.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod bases;
mod canaries;
mod crowd;
#[path = "../cli/engines.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod engines;
mod faults;
mod find;
mod fixtures;
mod hostile;
mod impostor;
#[path = "../robustness/server.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod index;
mod killed;
mod lab;
#[path = "../robustness/lab.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod project;
mod push;
mod records;
mod reuse;
mod sample;
mod sbom;
mod seek;
mod sign;
mod sources;
mod storms;
mod story;
mod substitution;
mod sync;
mod team;
mod traps;
#[path = "../robustness/wares.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod wares;
