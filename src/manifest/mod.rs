//! KDL text → [`Manifest`], with every mistake reported at once.

mod model;

pub use model::*;
