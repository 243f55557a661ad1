//! What the user of a machine chooses, where the administrator's settings leave it to them: a disk beside the image with the serial number
//! [`DISK_NAME`] that carries a [`Choice`] ([`crate::json_disk`]). Without a disk nothing is chosen.
//!
//! It is not signed: who attaches disks to a machine is its user. Whether a choice counts is for the settings to say, which are.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Serial number of the virtio disk.
pub const DISK_NAME: &str = "eci-choice";
/// Version of what is on it.
pub const VERSION: u32 = 1;
/// Most bytes of the JSON.
pub const MAX_BYTES: usize = 4096;

/// What is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// [`VERSION`].
    pub version: u32,
    /// Whether containers are isolated.
    pub isolation: Switch,
}

/// Something that is on or off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// On, where nobody says otherwise.
    #[default]
    On,
    /// Off.
    Off,
}

impl From<bool> for Switch {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

impl Switch {
    /// From its word; `None` for any other text.
    #[must_use]
    pub fn from_word(text: &str) -> Option<Self> {
        [Self::On, Self::Off].into_iter().find(|switch| switch.word() == text)
    }

    /// As files have it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.word())
    }
}
