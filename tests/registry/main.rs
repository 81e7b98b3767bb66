//! Pushing to, looking up in and pulling from real registries, in good weather and bad.
#![expect(
    clippy::print_stderr,
    reason = "the seed of random moments must be told, so that a failure can be repeated"
)]

#[path = "../images/support.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod bases;
mod crowd;
#[path = "../cli/engines.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod engines;
mod faults;
mod find;
mod fixtures;
#[path = "../robustness/server.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod index;
mod killed;
mod lab;
mod lies;
mod os_layers;
mod outage;
mod partial;
#[path = "../robustness/lab.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod project;
mod push;
mod records;
mod reuse;
mod sample;
mod sbom;
mod sign;
mod sources;
mod storms;
mod story;
mod substitution;
mod sync;
#[path = "../robustness/wares.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod wares;
