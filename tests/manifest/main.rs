//! The manifest language: data files with the diagnostics or requests that they give, and random texts.

mod cases;
mod random;
mod schema;
mod support;
