//! Where everything lies on the disk: a pure function of sizes and root hash.

use eci_contract::disk::{BootCount, DATA_NAME, DATA_TYPE, ESP_NAME, ESP_TYPE, Slot, types};
use eci_contract::manifest::Architecture;
use uuid::Uuid;

use super::super::content_uuid;
use super::super::digest::Sha256;
use super::super::verity::{BLOCK_BYTES, SALT_BYTES};
use super::{ALIGNMENT, Error, Partition};

/// GPT attribute bit 60 of the Discoverable Partitions Specification: read-only.
pub const READ_ONLY: u64 = 1 << 60;
/// Room for the signed manifest, 64 KiB at most, in base64.
const SIGNATURE_BYTES: u64 = ALIGNMENT;
/// Sizes that a user chooses, in bytes; multiples of 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The EFI system partition.
    pub esp: u64,
    /// A slot's root partition: the largest root file system that an update may bring.
    pub root: u64,
    /// The data partition, which grows with the disk.
    pub data: u64,
}

/// A laid out disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The disk's own UUID.
    pub guid: Uuid,
    /// Partitions in the order in which they lie: the EFI system partition; root, verity and signature of slot A; on a disk those of
    /// slot B, then data.
    pub partitions: Vec<Partition>,
    /// Size of the disk in bytes, with room for both partition tables.
    pub length: u64,
}

/// Lays out the disk of an image.
///
/// # Errors
/// [`Error::Size`].
pub fn plan(architecture: Architecture, sizes: Sizes, root_hash: Sha256) -> Result<Layout, Error> {
    check_sizes(&[("EFI system", sizes.esp), ("root", sizes.root), ("data", sizes.data)])?;
    let mut row = Row::default();
    row.add_esp(sizes.esp, root_hash);
    // A fresh image boots slot A without counting down: it is all there is.
    row.add_slot(Slot::A, architecture, slot_uuids(root_hash), BootCount::PROVEN, sizes.root);
    row.add_slot(Slot::B, architecture, empty_uuids(root_hash), BootCount::NEVER, sizes.root);
    let data = content_uuid("eci data partition", &root_hash.0);
    row.add(DATA_NAME, contract_uuid(DATA_TYPE), data, sizes.data, 0);
    Ok(row.end(content_uuid("eci disk", &root_hash.0)))
}

/// Lays out a CD: it has no other version and no data, and what is in its partitions fills them.
///
/// # Errors
/// [`Error::Size`].
pub fn plan_cd(architecture: Architecture, esp: u64, root: u64, root_hash: Sha256) -> Result<Layout, Error> {
    let root = root.next_multiple_of(ALIGNMENT);
    check_sizes(&[("EFI system", esp), ("root", root)])?;
    let mut row = Row::default();
    row.add_esp(esp, root_hash);
    row.add_slot(Slot::A, architecture, slot_uuids(root_hash), BootCount::PROVEN, root);
    Ok(row.end(content_uuid("eci cd", &root_hash.0)))
}

fn check_sizes(sizes: &[(&'static str, u64)]) -> Result<(), Error> {
    match sizes.iter().find(|(_, bytes)| *bytes == 0 || bytes % ALIGNMENT != 0) {
        Some(&(partition, bytes)) => Err(Error::Size { partition, bytes }),
        None => Ok(()),
    }
}

/// Partitions that follow one another behind the first MiB, which holds the primary table; the last one holds the backup.
#[derive(Default)]
struct Row(Vec<Partition>);

impl Row {
    fn add(&mut self, name: &str, kind: Uuid, uuid: Uuid, length: u64, attributes: u64) {
        let start = self.length();
        self.0.push(Partition { name: name.to_owned(), kind, uuid, start, length, attributes });
    }

    fn add_esp(&mut self, length: u64, root_hash: Sha256) {
        self.add(ESP_NAME, contract_uuid(ESP_TYPE), esp_uuid(root_hash), length, 0);
    }

    fn add_slot(
        &mut self,
        slot: Slot,
        architecture: Architecture,
        uuids: [Uuid; 3],
        count: BootCount,
        root: u64,
    ) {
        let kinds = types(architecture).map(contract_uuid);
        let lengths = [root, verity_room(root), SIGNATURE_BYTES];
        let attributes = [count.to_attributes() | READ_ONLY, READ_ONLY, READ_ONLY];
        for index in 0..kinds.len() {
            self.add(slot.names()[index], kinds[index], uuids[index], lengths[index], attributes[index]);
        }
    }

    /// Up to the end of the last partition.
    fn length(&self) -> u64 {
        self.0.last().map_or(ALIGNMENT, |last| last.start + last.length)
    }

    fn end(self, guid: Uuid) -> Layout {
        Layout { guid, length: self.length() + ALIGNMENT, partitions: self.0 }
    }
}

/// UUID of the EFI system partition of a disk that was made with this root hash in slot A.
#[must_use]
pub fn esp_uuid(root_hash: Sha256) -> Uuid {
    content_uuid("eci esp", &root_hash.0)
}

/// Volume id of the file system on it.
#[must_use]
pub fn esp_volume(root_hash: Sha256) -> u32 {
    let (volume, ..) = content_uuid("eci esp volume", &root_hash.0).as_fields();
    volume
}

/// UUIDs of root, verity and signature partition of a slot that holds the image with this root hash.
#[must_use]
pub fn slot_uuids(root_hash: Sha256) -> [Uuid; 3] {
    let half = |range: std::ops::Range<usize>| {
        Uuid::from_bytes(root_hash.0[range].try_into().expect("half a digest has 16 bytes"))
    };
    [half(0..16), half(16..32), content_uuid("eci signature partition", &root_hash.0)]
}

fn empty_uuids(root_hash: Sha256) -> [Uuid; 3] {
    ["eci empty root", "eci empty verity", "eci empty signature"]
        .map(|purpose| content_uuid(purpose, &root_hash.0))
}

/// Room for superblock and hash tree of a root partition's worth of data, in whole MiB.
fn verity_room(root: u64) -> u64 {
    let fanout = BLOCK_BYTES / u64::try_from(SALT_BYTES).expect("32 fits");
    let mut level = root / BLOCK_BYTES;
    let mut blocks = 1;
    while level > 1 {
        level = level.div_ceil(fanout);
        blocks += level;
    }
    (blocks * BLOCK_BYTES).next_multiple_of(ALIGNMENT)
}

fn contract_uuid(text: &str) -> Uuid {
    text.parse().expect("the contract's partition types are UUIDs")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = ALIGNMENT;
    const SMALL: Sizes = Sizes { esp: 33 * MIB, root: MIB, data: MIB };

    #[test]
    fn partitions_follow_one_another_from_the_first_mib() {
        let root_hash = Sha256::of(&[b"root"]);
        let sizes = Sizes { esp: 64 * MIB, root: 256 * MIB, data: 1024 * MIB };
        let layout = plan(Architecture::X86_64, sizes, root_hash).expect("sound sizes");
        let lies: Vec<_> =
            layout.partitions.iter().map(|p| (p.name.as_str(), p.start / MIB, p.length / MIB)).collect();
        assert_eq!(
            lies,
            [
                ("eci-esp", 1, 64),
                ("eci-root-a", 65, 256),
                ("eci-verity-a", 321, 3),
                ("eci-signature-a", 324, 1),
                ("eci-root-b", 325, 256),
                ("eci-verity-b", 581, 3),
                ("eci-signature-b", 584, 1),
                ("eci-data", 585, 1024),
            ]
        );
        assert_eq!(layout.length, 1610 * MIB);
    }

    #[test]
    fn a_cd_has_slot_a_alone_as_large_as_its_root() {
        let layout = plan_cd(Architecture::X86_64, 33 * MIB, 2 * MIB + 4096, Sha256([1; 32])).expect("sizes");
        let lies: Vec<_> =
            layout.partitions.iter().map(|p| (p.name.as_str(), p.start / MIB, p.length / MIB)).collect();
        let wanted =
            [("eci-esp", 1, 33), ("eci-root-a", 34, 3), ("eci-verity-a", 37, 1), ("eci-signature-a", 38, 1)];
        assert_eq!((lies.as_slice(), layout.length), (&wanted[..], 40 * MIB));
        let disk = plan(Architecture::X86_64, SMALL, Sha256([1; 32])).expect("sound sizes");
        assert_eq!(disk.partitions[2].uuid, layout.partitions[2].uuid);
        assert_ne!(disk.guid, layout.guid);
    }

    #[test]
    fn root_and_verity_uuids_are_the_halves_of_the_root_hash() {
        let root_hash: Sha256 =
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f".parse().expect("a digest");
        let layout = plan(Architecture::X86_64, SMALL, root_hash).expect("sound sizes");
        assert_eq!(layout.partitions[1].uuid.to_string(), "00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(layout.partitions[2].uuid.to_string(), "10111213-1415-1617-1819-1a1b1c1d1e1f");
        let mut uuids: Vec<_> = layout.partitions.iter().map(|p| p.uuid).chain([layout.guid]).collect();
        uuids.sort();
        uuids.dedup();
        assert_eq!(uuids.len(), 9, "no two partitions share a UUID");
    }

    #[test]
    fn only_slot_a_of_a_fresh_disk_may_boot() {
        let layout = plan(Architecture::Aarch64, SMALL, Sha256([1; 32])).expect("sound sizes");
        let bootable =
            |index: usize| BootCount::from_attributes(layout.partitions[index].attributes).bootable();
        assert!(bootable(1));
        assert!(!bootable(4));
    }

    #[test]
    fn the_tree_of_a_full_root_partition_has_room() {
        // 256 MiB are 65536 blocks: 512 + 4 + 1 blocks of tree and the superblock.
        assert_eq!(verity_room(256 * MIB), 3 * MIB);
        assert_eq!(verity_room(MIB), MIB);
    }

    #[test]
    fn sizes_off_the_alignment_are_refused() {
        for bytes in [0, 1, MIB + 512] {
            for (wrong, sizes) in [
                ("EFI system", Sizes { esp: bytes, ..SMALL }),
                ("root", Sizes { root: bytes, ..SMALL }),
                ("data", Sizes { data: bytes, ..SMALL }),
            ] {
                let error = plan(Architecture::X86_64, sizes, Sha256([0; 32]));
                assert!(matches!(error, Err(Error::Size { partition, .. }) if partition == wrong));
            }
        }
    }
}
