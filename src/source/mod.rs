//! `Lock` → verified artifacts in the store.
