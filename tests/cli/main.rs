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
mod layers;
mod loading;
mod locking;
mod purity;
mod support;
mod surface;
mod unprivileged;
mod wheels;
#[path = "../layers/zipper.rs"]
#[allow(dead_code)]
mod zipper;
