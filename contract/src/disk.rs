//! Layout of the disk: a GPT by the Discoverable Partitions Specification (UAPI.2).
//!
//! Root and verity partitions carry UUIDs derived from the root hash, so that `systemd-dissect` and friends pair
//! them as we do. GPT attribute bits 48 to 56 count boots, as in ChromeOS and systemd-boot derived appliances.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::manifest::Architecture;

/// Partition name of the EFI system partition, the first of the disk.
pub const ESP_NAME: &str = "eci-esp";
/// Partition type of an EFI system partition.
pub const ESP_TYPE: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
/// Partition name of the data partition. Also the virtio-blk serial of a separate data disk.
pub const DATA_NAME: &str = "eci-data";
/// Partition type `var` of the specification is bound to a machine id; ours is plain Linux data.
pub const DATA_TYPE: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";

/// Bytes of the sectors that the partition table of a CD of ours counts in: those of the disk that the same file is, not the CD's.
pub const CD_TABLE_SECTOR: u64 = 512;

/// What an image is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Medium {
    /// A disk, whose partitions the kernel knows and on which boots are counted where it may be written to.
    #[default]
    Disk,
    /// A CD: nothing of it is ever written, so that nothing is counted, and there is no slot for an update. The kernel looks for no
    /// partitions there.
    Cd,
}

impl Medium {
    /// Whether it is a disk.
    #[must_use]
    pub fn is_disk(&self) -> bool {
        *self == Self::Disk
    }
}

/// One of the two places an image can be installed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The slot that a fresh image boots from.
    #[default]
    A,
    /// The slot for the next version.
    B,
}

impl Slot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The one that this is not.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// GPT partition names of root, verity tree and signature in this slot.
    #[must_use]
    pub fn names(self) -> [&'static str; 3] {
        match self {
            Self::A => ["eci-root-a", "eci-verity-a", "eci-signature-a"],
            Self::B => ["eci-root-b", "eci-verity-b", "eci-signature-b"],
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::A => "a",
            Self::B => "b",
        })
    }
}

/// Partition type UUIDs of root, verity tree and signature for an architecture.
#[must_use]
pub fn types(architecture: Architecture) -> [&'static str; 3] {
    match architecture {
        Architecture::X86_64 => [
            "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
            "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5",
            "41092b05-9fc8-4523-994f-2def0408b176",
        ],
        Architecture::Aarch64 => [
            "b921b045-1df0-41c3-af44-4c6f280d3fae",
            "df3300ce-d69f-4c92-978c-9bfb0f38d820",
            "6db69de6-29f4-4758-a7a5-962190f00ce3",
        ],
    }
}

/// Boots in a row that a new version gets to become ready in, before the old one is booted again; and that a proven one gets to come
/// to any end in (an engine, a refusal, a shutdown), before the machine stays off.
pub const TRIES: u8 = 3;

/// Boot counting bits of a GPT partition's attributes: priority in bits 48 to 51 (15 highest, 0 never), tries left in
/// bits 52 to 55, booted well in bit 56. They are set on the root partition of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootCount {
    /// 0 to 15; 0 means "never boot".
    pub priority: u8,
    /// 0 to 15.
    pub tries_left: u8,
    /// The slot got the engine ready before.
    pub successful: bool,
}

impl BootCount {
    /// A slot without an image, or with one that is not whole yet.
    pub const NEVER: Self = Self { priority: 0, tries_left: 0, successful: false };
    /// A slot whose image was written and never booted. It goes before one with [`Self::SECOND`].
    pub const ON_TRIAL: Self = Self { priority: 15, tries_left: TRIES, successful: false };
    /// The slot that is booted when no other is on trial.
    pub const PROVEN: Self = Self { priority: 15, tries_left: TRIES, successful: true };
    /// A proven slot while the other is on trial.
    pub const SECOND: Self = Self { priority: 14, tries_left: TRIES, successful: true };

    /// Reads the three fields from GPT attribute bits.
    #[must_use]
    pub fn from_attributes(bits: u64) -> Self {
        let nibble = |shift: u32| u8::try_from((bits >> shift) & 0xf).unwrap_or(0);
        Self { priority: nibble(48), tries_left: nibble(52), successful: (bits >> 56) & 1 == 1 }
    }

    /// Puts the three fields into attribute bits, all other bits zero.
    #[must_use]
    pub fn to_attributes(self) -> u64 {
        (u64::from(self.priority & 0xf) << 48)
            | (u64::from(self.tries_left & 0xf) << 52)
            | (u64::from(self.successful) << 56)
    }

    /// Whether the slot still has to get the engine ready for the first time.
    #[must_use]
    pub fn on_trial(self) -> bool {
        self.bootable() && !self.successful
    }

    /// At the begin of a boot: a try less.
    #[must_use]
    pub fn after_a_boot(self) -> Self {
        Self { tries_left: self.tries_left.saturating_sub(1), ..self }
    }

    /// When a boot of a proven slot has come to an end of some kind: it has all its tries again.
    #[must_use]
    pub fn after_an_end(self) -> Self {
        Self { tries_left: TRIES, ..self }
    }

    /// Whether a proven slot was booted [`TRIES`] times in a row without coming to an end. Another boot would go as they did.
    #[must_use]
    pub fn spent(self) -> bool {
        self.successful && self.tries_left == 0
    }

    /// Whether the boot loader may pick this slot.
    #[must_use]
    pub fn bootable(self) -> bool {
        self.priority > 0 && (self.successful || self.tries_left > 0)
    }
}

/// What the signature partition holds: JSON, padded with NUL bytes to the partition's size.
///
/// The first three fields are those of the Discoverable Partitions Specification; ours ride along under names of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignaturePartition {
    /// Root hash, hexadecimal; has to equal the one in the manifest.
    pub root_hash: String,
    /// SHA-256 of the X.509 certificate (DER) whose key signed the root hash, hexadecimal. Images before this field have none.
    #[serde(default)]
    pub certificate_fingerprint: String,
    /// The root hash's signature for the kernel, base64: PKCS #7 (DER), detached, over its hexadecimal digits.
    #[serde(default)]
    pub signature: String,
    /// The exact bytes of `manifest.json`, base64 (standard alphabet, padded).
    pub eci_manifest: String,
    /// The raw Ed25519 signature of those bytes, base64.
    pub eci_manifest_signature: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_count_survives_the_attribute_bits() {
        let count = BootCount { priority: 15, tries_left: 3, successful: true };
        assert_eq!(count.to_attributes(), 0x013f_0000_0000_0000);
        assert_eq!(BootCount::from_attributes(count.to_attributes()), count);
    }

    #[test]
    fn a_slot_is_counted_down_and_a_proven_one_gets_its_tries_back() {
        for begin in [BootCount::ON_TRIAL, BootCount::PROVEN, BootCount::SECOND] {
            let mut count = begin;
            for left in (0..TRIES).rev() {
                assert_eq!((count.on_trial(), count.spent()), (!begin.successful, false));
                count = count.after_a_boot();
                assert_eq!(count.tries_left, left);
            }
            assert_eq!(count.after_a_boot(), count);
            assert_eq!((count.bootable(), count.spent()), (begin.successful, begin.successful));
            assert!(!count.on_trial());
            assert_eq!(count.after_an_end(), begin);
        }
        assert!(!BootCount::PROVEN.on_trial() && !BootCount::NEVER.bootable());
    }

    #[test]
    fn a_slot_with_priority_and_neither_tries_nor_success_is_not_bootable() {
        assert!(!BootCount { priority: 9, tries_left: 0, successful: false }.bootable());
        assert!(!BootCount { priority: 0, tries_left: 3, successful: true }.bootable());
        assert!(BootCount { priority: 1, tries_left: 1, successful: false }.bootable());
    }
}
