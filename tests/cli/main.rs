//! The program as its users have it: every command of the real binary, on real packages and on a local index, its
//! images judged by skopeo, umoci, Podman and Docker.

#[path = "../images/support.rs"]
#[allow(dead_code)]
mod bases;
mod ci;
mod documents;
mod engines;
mod examples;
mod explaining;
#[path = "../python/support.rs"]
#[allow(dead_code)]
mod index;
mod judges;
#[path = "../registry/lab.rs"]
#[allow(dead_code, unused_imports)]
mod lab;
mod layers;
mod loading;
mod locking;
#[path = "../robustness/lab.rs"]
#[allow(dead_code)]
mod project;
mod purity;
mod support;
mod surface;
mod team {}
mod unprivileged;
#[path = "../robustness/wares.rs"]
#[allow(dead_code)]
mod wares;
mod wheels;
#[path = "../layers/zipper.rs"]
#[allow(dead_code)]
mod zipper;
