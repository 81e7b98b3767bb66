//! `Lock` → verified artifacts in the store.

pub mod debian;
