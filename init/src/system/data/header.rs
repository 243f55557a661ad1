//! What is on the data disk, told by its first bytes.
//!
//! One 512-byte sector carries a marker of ours: the first one, in ext4's unused boot block, written in one go by any
//! disk. mke2fs would clear it, and with it the knowledge that a half-made file system is ours to make again; it spares
//! a boot block that bears a BSD disk label's magic at byte 64 (`zap_sector` in mke2fs.c), so the marker bears it.

/// Bytes that are looked at: the marker, the superblock, and where other file systems have their magic.
pub const HEAD_BYTES: usize = 1024 * 1024;
/// Size of the marker.
pub const SECTOR_BYTES: usize = 512;

const MAKING: &[u8] = b"eci-data 1 making\n";
const MADE: &[u8] = b"eci-data 1 made\n";
const BSD_MAGIC_AT: usize = 64;
const BSD_MAGIC: [u8; 4] = 0x8256_4557_u32.to_le_bytes();

const SUPERBLOCK_AT: usize = 1024;
const EXT4_MAGIC: [u8; 2] = [0x53, 0xef];
/// Where ext4 keeps its first backup superblocks, in bytes: block group 1 with blocks of 1, 2 and 4 KiB.
pub const BACKUP_SUPERBLOCKS: [u64; 3] = [8193 * 1024, 16384 * 2048, 32768 * 4096];

/// What to do with a data disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing is on it, or a file system whose making was cut short and that was never mounted.
    Make,
    /// Our file system.
    Made {
        /// Its size in bytes.
        bytes: u64,
        /// Its block size in bytes.
        block: u64,
        /// Whether it was unmounted in order and nothing is known to be wrong with it.
        clean: bool,
    },
    /// Something that is not ours, and is never touched.
    Foreign {
        /// What it looks like.
        what: &'static str,
    },
}

/// Which marker to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// Before mkfs.
    Making,
    /// After mkfs, when everything is on the disk.
    Made,
}

/// The marker's sector.
#[must_use]
pub fn sector(marker: Marker) -> [u8; SECTOR_BYTES] {
    let text = match marker {
        Marker::Making => MAKING,
        Marker::Made => MADE,
    };
    let mut sector = [0; SECTOR_BYTES];
    for (to, from) in sector.iter_mut().zip(text) {
        *to = *from;
    }
    for (to, from) in sector.iter_mut().skip(BSD_MAGIC_AT).zip(BSD_MAGIC) {
        *to = from;
    }
    sector
}

/// Judges the first [`HEAD_BYTES`] of a disk; `backup_superblock` says whether an ext4 magic was found further in.
#[must_use]
pub fn judge(head: &[u8], backup_superblock: bool) -> Content {
    let first = head.get(..SECTOR_BYTES).unwrap_or_default();
    if first == sector(Marker::Making) {
        return Content::Make;
    }
    if first == sector(Marker::Made) {
        return read_superblock(head)
            .unwrap_or(Content::Foreign { what: "a damaged data file system of ours" });
    }
    if head.iter().any(|byte| *byte != 0) {
        return Content::Foreign { what: name(head) };
    }
    if backup_superblock {
        return Content::Foreign { what: "an ext4 file system whose beginning was wiped" };
    }
    Content::Make
}

/// Whether bytes read at a [`BACKUP_SUPERBLOCKS`] position are a superblock.
#[must_use]
pub fn is_superblock(bytes: &[u8]) -> bool {
    bytes.get(56..58) == Some(&EXT4_MAGIC)
}

/// What the superblock (`struct ext4_super_block`) says. Blocks at 4 and, for 64-bit, 0x150; block size at 24; state at 58:
/// 1 is unmounted in order, 2 and 4 are trouble; features at 0x60 and 0x64: a journal to replay, orphans to remove; the
/// first of a list of orphans at 0xe8.
fn read_superblock(head: &[u8]) -> Option<Content> {
    let superblock = head.get(SUPERBLOCK_AT..SUPERBLOCK_AT + 1024)?;
    let word = |at: usize| Some(u32::from_le_bytes(superblock.get(at..at + 4)?.try_into().ok()?));
    if !is_superblock(superblock) {
        return None;
    }
    let is_64_bit = word(0x60)? & 0x80 != 0;
    let high = if is_64_bit { u64::from(word(0x150)?) } else { 0 };
    let block = 1024_u64.checked_shl(word(24)?).filter(|block| (1024..=65536).contains(block))?;
    let bytes = ((high << 32) | u64::from(word(4)?)).checked_mul(block)?;
    let (replay, orphans) = (word(0x60)? & 0x4 != 0, word(0x64)? & 0x1_0000 != 0);
    let clean = word(56)? >> 16 == 1 && !replay && !orphans && word(0xe8)? == 0;
    Some(Content::Made { bytes, block, clean })
}

/// A name for what is there, for the message.
fn name(head: &[u8]) -> &'static str {
    let has = |at: usize, magic: &[u8]| head.get(at..at + magic.len()) == Some(magic);
    let known: [(usize, &[u8], &str); 9] = [
        (0, b"XFSB", "an XFS file system"),
        (0, b"LUKS\xba\xbe", "an encrypted LUKS volume"),
        (0, b"hsqs", "a squashfs image"),
        (0, b"QFI\xfb", "a qcow2 image attached as a raw disk"),
        (0x10040, b"_BHRfS_M", "a Btrfs file system"),
        (SUPERBLOCK_AT + 56, &EXT4_MAGIC, "an ext4 file system that is not ours"),
        (512, b"EFI PART", "a GPT partition table"),
        (536, b"LVM2 001", "an LVM volume"),
        (510, &[0x55, 0xaa], "a boot sector or MBR partition table"),
    ];
    known
        .into_iter()
        .find(|(at, magic, _)| has(*at, magic))
        .map_or("data of an unknown kind", |(.., name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blank() -> Vec<u8> {
        vec![0; HEAD_BYTES]
    }

    fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut head = blank();
        head[at..at + bytes.len()].copy_from_slice(bytes);
        head
    }

    fn made() -> Vec<u8> {
        let mut head = with(0, &sector(Marker::Made));
        head[1024 + 56..1024 + 58].copy_from_slice(&EXT4_MAGIC);
        head[1024 + 4..1024 + 8].copy_from_slice(&1000_u32.to_le_bytes());
        head[1024 + 24] = 2;
        head[1024 + 58] = 1;
        head
    }

    #[test]
    fn a_blank_disk_and_a_half_made_one_are_made() {
        assert_eq!(judge(&blank(), false), Content::Make);
        let mut half = with(0, &sector(Marker::Making));
        half[5000] = 7;
        assert_eq!(judge(&half, true), Content::Make);
    }

    #[test]
    fn ours_tells_its_size() {
        assert_eq!(judge(&made(), true), Content::Made { bytes: 4_096_000, block: 4096, clean: true });
        let mut large = made();
        large[1024 + 0x60] = 0x80;
        large[1024 + 0x150] = 1;
        assert_eq!(
            judge(&large, true),
            Content::Made { bytes: ((1 << 32) + 1000) * 4096, block: 4096, clean: true }
        );
    }

    #[test]
    fn a_file_system_with_anything_left_to_do_is_not_clean() {
        for (at, value) in
            [(58, 0), (58, 2), (58, 3), (58, 5), (0x60, 0x4), (0x66, 0x1), (0xe8, 12), (0xeb, 1)]
        {
            let mut head = made();
            head[1024 + at] = value;
            assert!(matches!(judge(&head, true), Content::Made { clean: false, .. }), "{value} at {at:#x}");
        }
    }

    #[test]
    fn whatever_else_is_there_is_foreign() {
        let foreign = |head: &[u8]| match judge(head, false) {
            Content::Foreign { what } => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(foreign(&with(HEAD_BYTES - 1, &[1])), "data of an unknown kind");
        assert_eq!(foreign(&with(0, b"XFSB")), "an XFS file system");
        assert_eq!(foreign(&with(512, b"EFI PART")), "a GPT partition table");
        assert_eq!(foreign(&with(1024 + 56, &EXT4_MAGIC)), "an ext4 file system that is not ours");
        assert_eq!(
            judge(&blank(), true),
            Content::Foreign { what: "an ext4 file system whose beginning was wiped" }
        );
    }

    #[test]
    fn a_marker_one_byte_off_is_foreign_and_so_is_a_made_disk_without_superblock() {
        for at in [0, 8, 11, 64, 511] {
            let mut head = made();
            head[at] ^= 1;
            assert!(matches!(judge(&head, true), Content::Foreign { .. }), "byte {at}");
        }
        let bare = with(0, &sector(Marker::Made));
        assert_eq!(judge(&bare, false), Content::Foreign { what: "a damaged data file system of ours" });
        let mut wild = made();
        wild[1024 + 24] = 200;
        assert!(matches!(judge(&wild, false), Content::Foreign { .. }));
    }
}
