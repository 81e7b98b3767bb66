//! `imagewright.lock`: what a manifest was resolved to.

mod model;

pub use model::*;
