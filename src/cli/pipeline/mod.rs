//! The stages in order: lock, build, trees. Nothing here decides anything that a stage decides.

mod accounts;
pub mod artifacts;
pub mod bases;
pub mod building;
pub mod content;
mod extras;
pub mod job;
mod learning;
pub mod locking;
pub mod materialise;
mod os_layers;
pub mod places;
pub mod publishing;
pub mod records;
pub mod removal;
pub mod roots;
pub mod sandbox;
pub mod shelf;
pub mod substitute;
mod told;
pub mod trees;
pub mod verify;
mod wheel_layers;
