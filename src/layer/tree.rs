//! placeholder until merged
use super::{Layer, LayerError};
use crate::store::Store;
use std::path::PathBuf;
/// x
pub fn unpack(_: &Store, _: &Layer) -> Result<PathBuf, LayerError> {
    unreachable!()
}
