//! Python resolution: the only user of the resolver crates.
