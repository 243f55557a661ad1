//! What the machine's user chose, from a small disk ([`eci_contract::choice`]). Whether it counts is for [`super::settings`] to say.

use std::io;
use std::path::PathBuf;

use eci_contract::choice::{Choice, DISK_NAME, MAX_BYTES, Switch, VERSION};
use eci_contract::json_disk::text;

use super::data::{beginning, disk_with_serial};

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk cannot be read.
    #[error("cannot read the disk `{DISK_NAME}`, {}", .device.display())]
    Disk {
        /// The device.
        device: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// What is on it is not understood.
    #[error(
        "what the disk `{DISK_NAME}` says is not understood: use the `eci-builder` of this image's version"
    )]
    Malformed(#[source] serde_json::Error),
    /// It is of another version.
    #[error(
        "the disk `{DISK_NAME}` is of version {version}, and this is {VERSION}: use the `eci-builder` of this image's version"
    )]
    Version {
        /// Its version.
        version: u32,
    },
}

/// Whether containers are to be isolated; `None` without a disk.
///
/// # Errors
/// [`Error`].
pub fn read() -> Result<Option<Switch>, Error> {
    let Some(device) = disk_with_serial(DISK_NAME) else { return Ok(None) };
    let bytes = beginning(&device, MAX_BYTES).map_err(|source| Error::Disk { device, source })?;
    chosen(&bytes).map(Some)
}

/// What these bytes of a disk say.
fn chosen(bytes: &[u8]) -> Result<Switch, Error> {
    let Choice { version, isolation } = serde_json::from_slice(text(bytes)).map_err(Error::Malformed)?;
    if version == VERSION { Ok(isolation) } else { Err(Error::Version { version }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eci_contract::json_disk::carrying;

    #[test]
    fn a_choice_is_read_and_anything_else_is_an_error() {
        let disk = |text: &str| chosen(&carrying(text.as_bytes().to_vec()));
        let text = r#"{"version":1,"isolation":"off"}"#;
        let off = Choice { version: VERSION, isolation: Switch::Off };
        assert_eq!(serde_json::to_string(&off).unwrap(), text, "as documented");
        assert_eq!(disk(text).unwrap(), Switch::Off);
        assert_eq!(disk(r#"{"version":1,"isolation":"on"}"#).unwrap(), Switch::On);
        assert!(matches!(disk(r#"{"version":2,"isolation":"off"}"#), Err(Error::Version { version: 2 })));
        for wrong in ["", "{}", r#"{"version":1,"isolation":"of"}"#] {
            assert!(matches!(disk(wrong), Err(Error::Malformed(_))), "{wrong}");
        }
    }
}
