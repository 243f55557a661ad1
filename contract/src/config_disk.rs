//! The config disk: an administrator's settings, signed, on a small disk beside the image, and what an image says of whose it takes.
//!
//! The disk carries a [`ConfigDisk`] ([`crate::json_disk`]). A key signs [`signed`], which has the edition in front of the file: an
//! older one cannot pass for a newer.

use serde::{Deserialize, Serialize};

/// Serial number of the virtio disk.
pub const DISK_NAME: &str = "eci-config";
/// Version of both forms.
pub const VERSION: u32 = 1;
/// Most bytes of the JSON: settings of 32 KiB in base64, and what is around them.
pub const MAX_BYTES: usize = 64 * 1024;

/// What is on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigDisk {
    /// [`VERSION`].
    pub version: u32,
    /// Counts up: a VM takes none that is older than the one that it took last.
    pub edition: u64,
    /// The file `admin-settings.json`, in base64 (RFC 4648, section 4).
    pub settings: String,
    /// Ed25519 signature of [`signed`], 64 bytes in base64.
    pub signature: String,
}

/// Whose disks an image takes: [`crate::paths::SETTINGS_ANCHOR`], on the verified root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    /// [`VERSION`].
    pub version: u32,
    /// Ed25519 public key, 32 bytes in base64.
    pub key: String,
    /// Without a disk there is no engine.
    pub required: bool,
}

/// The bytes that are signed.
#[must_use]
pub fn signed(edition: u64, settings: &[u8]) -> Vec<u8> {
    [format!("eci settings {VERSION} {edition}\n").as_bytes(), settings].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edition_is_signed_with_the_file() {
        assert_eq!(signed(7, b"{}"), b"eci settings 1 7\n{}");
        assert_ne!(signed(1, b"2\n"), signed(12, b"\n"));
    }
}
