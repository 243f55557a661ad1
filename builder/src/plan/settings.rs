//! `[settings]` of `eci.toml`: the administrator's settings that are baked into the image.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use eci_contract::config_disk::{Anchor, VERSION};
use eci_contract::manifest::Flavour;
use eci_policy::settings::{DEFAULT, Settings};

use super::Error;
use super::config::Config;
use crate::image::signature::PublicKey;
use crate::settings;

/// What is baked in.
#[derive(Clone, Debug)]
pub struct Baked {
    /// Whose config disks the image takes.
    pub anchor: Option<Anchor>,
    /// The file's bytes.
    pub text: Vec<u8>,
    /// What they say; `None` where nobody looked, for an image whose engine is refused.
    pub settings: Option<Settings>,
}

/// Reads the file that the configuration names, or takes the default. `folder` is the one that paths are from.
///
/// # Errors
/// The file cannot be read or an image would not take it.
pub(super) fn read(path: &Path, folder: &Path, config: &Config) -> Result<Baked, Error> {
    let super::config::Settings { file, key, required, unchecked } = &config.settings;
    let file = file.as_deref().map(|file| folder.join(file));
    if *unchecked && config.image.flavour == Flavour::Shipped {
        return Err(Error::BadValue {
            path: path.to_owned(),
            key: "settings.unchecked",
            problem: "is only for an image of the test flavour, whose engine is to be refused",
        });
    }
    if *required && key.is_none() {
        return Err(Error::BadValue {
            path: path.to_owned(),
            key: "settings.required",
            problem: "needs `key`: nobody could sign the disk that is required",
        });
    }
    let anchor = key.as_deref().map(|key| anchor(&folder.join(key), *required)).transpose()?;
    match file {
        None => Ok(Baked { anchor, text: DEFAULT.into(), settings: Some(Settings::default()) }),
        Some(file) if *unchecked => Ok(Baked { anchor, text: settings::bytes(&file)?, settings: None }),
        Some(file) => {
            let (text, settings) = settings::read(&file)?;
            if settings.limits.judge_version(&config.image.version).is_err() {
                return Err(Error::BadValue {
                    path: path.to_owned(),
                    key: "image.version",
                    problem: "is below `eci.updates.minimumVersion` of the settings that it is built with: no such image starts an engine",
                });
            }
            Ok(Baked { anchor, text, settings: Some(settings) })
        }
    }
}

fn anchor(key: &Path, required: bool) -> Result<Anchor, Error> {
    let key = PublicKey::read_of_either(key).map_err(settings::Error::Key)?;
    Ok(Anchor { version: VERSION, key: BASE64.encode(key.0), required })
}
