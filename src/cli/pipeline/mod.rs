//! The stages in order: lock, build, trees. Nothing here decides anything that a stage decides.

pub mod bases;
pub mod building;
pub mod content;
pub mod locking;
pub mod places;
pub mod publishing;
pub mod records;
pub mod sandbox;
pub mod trees;
