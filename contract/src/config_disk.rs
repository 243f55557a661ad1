//! The config disk: an administrator's settings, signed, on a small disk beside the image, and what an image says of whose it takes.
//!
//! The disk begins with a [`ConfigDisk`] as JSON and has zeros from there to its end. A key signs [`signed`], which has the edition in
//! front of the file: an older one cannot pass for a newer.

use serde::{Deserialize, Serialize};

/// Serial number of the virtio disk.
pub const DISK_NAME: &str = "eci-config";
/// Version of both forms.
pub const VERSION: u32 = 1;
/// Most bytes of the JSON: settings of 32 KiB in base64, and what is around them.
pub const MAX_BYTES: usize = 64 * 1024;
/// The disk's length is a multiple of this, in bytes.
pub const BLOCK_BYTES: usize = 4096;

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

/// The JSON at the beginning of a disk.
#[must_use]
pub fn text(disk: &[u8]) -> &[u8] {
    disk.split(|byte| *byte == 0).next().unwrap_or_default()
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
    fn the_text_ends_before_the_first_zero_or_with_the_disk() {
        for (disk, found) in [(&b"{}\0\0{}"[..], &b"{}"[..]), (b"{}", b"{}"), (b"\0", b""), (b"", b"")] {
            assert_eq!(text(disk), found);
        }
    }

    #[test]
    fn an_edition_is_signed_with_the_file() {
        assert_eq!(signed(7, b"{}"), b"eci settings 1 7\n{}");
        assert_ne!(signed(1, b"2\n"), signed(12, b"\n"));
    }
}
