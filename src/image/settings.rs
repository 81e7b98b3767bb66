//! What an image's configuration says about the processes that run in it.

use std::collections::BTreeMap;

use oci_spec::image as oci;

use super::{Image, ImageError};

/// Environment, user and working folder of an image (OCI image specification, config.md).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Numeric user id; 0 if the image says nothing.
    pub uid: u32,
    /// Numeric group id; 0 if the image says nothing.
    pub gid: u32,
    /// Working folder.
    pub workdir: Option<String>,
}

impl Image {
    /// Reads the settings of the image's configuration.
    ///
    /// # Errors
    /// When the configuration is not one of ours: not valid, or a user that is not numeric.
    pub fn settings(&self) -> Result<Settings, ImageError> {
        let config = oci::ImageConfiguration::from_reader(self.config.as_bytes())
            .map_err(|error| ImageError::Encoding(error.to_string()))?;
        let Some(config) = config.config() else {
            return Ok(Settings::default());
        };
        let user = config.user().as_deref().unwrap_or("0:0");
        let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
        let number = |text: &str| {
            text.parse()
                .map_err(|_| ImageError::Encoding(format!("the user `{user}` is not numeric")))
        };
        let env = config
            .env()
            .iter()
            .flatten()
            .filter_map(|pair| pair.split_once('='));
        Ok(Settings {
            env: env
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            uid: number(uid)?,
            gid: number(gid)?,
            workdir: config
                .working_dir()
                .clone()
                .filter(|folder| !folder.is_empty()),
        })
    }
}
