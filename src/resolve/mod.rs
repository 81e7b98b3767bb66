//! `Manifest` → `Lock`.

pub mod base;
pub mod debian;
pub mod python;
