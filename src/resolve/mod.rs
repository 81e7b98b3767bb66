//! `Manifest` → `Lock`.
//!
//! Owns the questions to indexes, archives and registries that turn requirements into pins. Never writes images,
//! never prints. Each part has an error type of its own.

pub mod base;
pub mod debian;
pub mod python;
