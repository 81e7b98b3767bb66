//! Recipes as streams, for everything that writes layers.

use std::io::{self, Read};

use crate::layer::Layer;
use crate::layer::recipe::Recipe;
use crate::store::Store;

/// Opens the blob of a layer that is a recipe.
pub fn open(store: &Store) -> impl Fn(&Layer) -> io::Result<Box<dyn Read + Send + '_>> + Send + Sync + '_ {
    move |layer| {
        let recipe = Recipe::load(store, &layer.key).map_err(io::Error::other)?;
        let Some(recipe) = recipe else {
            let gone = format!("the store has no recipe of {}; build the image again", layer.comment);
            return Err(io::Error::new(io::ErrorKind::NotFound, gone));
        };
        Ok(Box::new(recipe.into_reader(store).map_err(io::Error::other)?))
    }
}
