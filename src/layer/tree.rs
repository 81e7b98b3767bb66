//! placeholder until merged
use std::path::PathBuf;
use super::{Layer, LayerError};
use crate::store::Store;
/// x
pub fn unpack(_: &Store, _: &Layer) -> Result<PathBuf, LayerError> { unreachable!() }
