//! Pushing to, looking up in and pulling from real registries, in good weather and bad.
#![expect(
    clippy::print_stderr,
    reason = "the seed of random moments must be told, so that a failure can be repeated"
)]

mod again;
#[path = "../images/support.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod bases;
mod canaries;
#[path = "../debian/command.rs"]
mod command;
mod crowd;
mod disk;
mod documents;
#[path = "../cli/engines.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod engines;
mod faults;
mod find;
mod fixtures;
mod forged;
mod gales;
#[path = "../debian/gnupg.rs"]
mod gnupg;
mod hostile;
mod impostor;
#[path = "../robustness/server.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod index;
mod killed;
mod lab;
mod lies;
mod login;
#[path = "../debian/mirror.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod mirror;
mod names;
mod nest;
mod os_layers;
mod outage;
mod pages;
mod partial;
mod plain;
mod platforms;
mod prefer;
#[path = "../robustness/lab.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod project;
mod proxy;
mod push;
mod pushing;
mod records;
mod relay;
mod removal;
mod reuse;
mod sample;
mod satisfies;
mod sbom;
mod schemas;
mod seek;
mod setbacks;
mod show;
mod sign;
mod sources;
mod storms;
mod story;
mod substitution;
mod sync;
mod team;
mod tokens;
mod traps;
mod uploads;
#[path = "../robustness/wares.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod wares;
mod weather;
mod wire;
