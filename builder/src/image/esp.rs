//! The EFI system partition: a FAT32 file system with one file in it, the unified kernel image, at the place that firmware
//! boots from without being told (UEFI 2.10, 3.5.1.1).
//!
//! Format: Microsoft's FAT32 File System Specification 1.03 (fatgen103). Everything lies where it has to, one cluster
//! after the other, and no clock is read: the same file gives the same bytes. So `verify` compares bytes and reads no
//! file system that somebody else may have made.

use std::io::{self, Read};

use eci_contract::manifest::Architecture;

use super::region::Region;

/// Bytes of a sector.
const SECTOR: u64 = 512;
/// Sectors before the first table: what the specification has for FAT32.
const RESERVED_SECTORS: u64 = 32;
/// Copies of the table.
const TABLES: u64 = 2;
/// Where the copy of the first two sectors is.
const BACKUP_SECTOR: u64 = 6;
/// Bytes of an entry of the table, and of a folder.
const TABLE_ENTRY_BYTES: usize = 4;
const FOLDER_ENTRY_BYTES: usize = 32;
/// Where the file's size is in its folder: in the third entry.
const FILE_SIZE: u64 = 2 * FOLDER_ENTRY_BYTES as u64 + 28;
/// Clusters count from 2.
const FIRST_CLUSTER: u64 = 2;
/// The specification's table: most sectors of a file system, and sectors of a cluster up to there.
const CLUSTER_SIZES: [(u64, u64); 4] = [(532_480, 1), (16_777_216, 8), (33_554_432, 16), (67_108_864, 32)];
/// The folders `/`, `/EFI` and `/EFI/BOOT`, a cluster each, are before the file.
const FOLDERS: u64 = 3;
const END_OF_CHAIN: u32 = 0x0fff_ffff;
/// 1 January 1980, the first day that the format knows.
const DATE: u16 = (1 << 5) | 1;
const LABEL: &[u8; 11] = b"ECI ESP    ";
const FOLDER: u8 = 0x10;
const VOLUME_LABEL: u8 = 0x08;
const FILE: u8 = 0x20;

const MIB: u64 = 1 << 20;
/// Fewest bytes of a FAT32 file system: below, its count of clusters would make it a FAT16 one. In whole MiB.
pub const MIN_BYTES: u64 = 33 * MIB;
/// Most bytes of a file, for the format.
const MAX_FILE_BYTES: u64 = u32::MAX as u64;
/// Most bytes of a file that is read, whatever a folder that nobody signed says: ours has 13 MiB.
const MAX_READ_BYTES: u64 = 512 << 20;

/// The file does not go into the file system.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The partition is smaller than FAT32 allows, or larger than its sectors can be counted.
    #[error(
        "an EFI system partition of {bytes} bytes cannot hold a FAT32 file system; it takes {MIN_BYTES} or more"
    )]
    Size {
        /// Size of the partition.
        bytes: u64,
    },
    /// Its place on the disk cannot be counted in sectors.
    #[error("an EFI system partition at byte {start} of its disk is too far behind for a FAT32 file system")]
    Start {
        /// First byte of the partition.
        start: u64,
    },
    /// The file is larger than what is left.
    #[error("{bytes} bytes do not fit in the EFI system partition, which has {room} for files")]
    TooLarge {
        /// Size of the file.
        bytes: u64,
        /// Bytes in clusters that are free.
        room: u64,
    },
}

/// A file system with one file: all that is not zero, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Esp<'a> {
    pieces: Vec<(u64, Vec<u8>)>,
    file_start: u64,
    file: &'a [u8],
    length: u64,
}

/// Where everything lies, in sectors.
#[derive(Clone, Copy)]
struct Geometry {
    total: u64,
    per_cluster: u64,
    table: u64,
    clusters: u64,
}

/// Path of the file on the partition.
#[must_use]
pub fn boot_path(architecture: Architecture) -> String {
    format!("EFI/BOOT/{}", boot_file(architecture))
}

fn boot_file(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "BOOTX64.EFI",
        Architecture::Aarch64 => "BOOTAA64.EFI",
    }
}

/// First byte of the file in a partition of `length` bytes.
///
/// # Errors
/// [`Error::Size`].
pub fn file_start(length: u64) -> Result<u64, Error> {
    Geometry::of(length).map(|geometry| geometry.start_of(FIRST_CLUSTER + FOLDERS))
}

/// Bytes of a partition for a file of `bytes`, in whole MiB: the tables take a sixty-fourth, and a MiB is to spare, for a signature that comes
/// later.
#[must_use]
pub fn length_for(bytes: u64) -> u64 {
    MIN_BYTES.max((bytes + bytes / 32 + MIB).next_multiple_of(MIB))
}

/// Reads the file in a partition: where ours is, as long as its folder says, without a look at the rest of the file system.
///
/// # Errors
/// `UnexpectedEof` when the partition is not large enough for that, `InvalidData` when no file of ours is as large, and
/// what reading gave.
pub fn read_file(partition: Region<'_>) -> io::Result<Vec<u8>> {
    let geometry = Geometry::of(partition.length()).map_err(|_| io::ErrorKind::UnexpectedEof)?;
    let mut size = [0; size_of::<u32>()];
    partition.read_exact_at(&mut size, geometry.start_of(FIRST_CLUSTER + 2) + FILE_SIZE)?;
    let bytes = u64::from(u32::from_le_bytes(size));
    if bytes > MAX_READ_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let start = geometry.start_of(FIRST_CLUSTER + FOLDERS);
    let inside = start.checked_add(bytes).is_some_and(|end| end <= partition.length());
    let bytes = usize::try_from(bytes).ok().filter(|_| inside).ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut file = vec![0; bytes];
    partition.read_exact_at(&mut file, start)?;
    Ok(file)
}

impl<'a> Esp<'a> {
    /// Lays out a file system of `length` bytes at byte `start` of its disk, with `file` in it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn new(
        architecture: Architecture,
        file: &'a [u8],
        volume: u32,
        (start, length): (u64, u64),
    ) -> Result<Self, Error> {
        let geometry = Geometry::of(length)?;
        if u32::try_from(start / SECTOR).is_err() {
            return Err(Error::Start { start });
        }
        let bytes = u64::try_from(file.len()).unwrap_or(u64::MAX);
        let cluster = geometry.per_cluster * SECTOR;
        let room = (geometry.clusters - FOLDERS) * cluster;
        if bytes > room.min(MAX_FILE_BYTES) {
            return Err(Error::TooLarge { bytes, room });
        }
        let used = FOLDERS + bytes.div_ceil(cluster);
        let (boot, info) = (geometry.boot_sector(volume, start), geometry.info_sector(used));
        let table = table(used);
        let [root, efi, boot_folder] = folders(architecture, bytes);
        let at_table = |copy: u64| (RESERVED_SECTORS + copy * geometry.table) * SECTOR;
        let pieces = vec![
            (0, boot.clone()),
            (SECTOR, info.clone()),
            (BACKUP_SECTOR * SECTOR, boot),
            ((BACKUP_SECTOR + 1) * SECTOR, info),
            (at_table(0), table.clone()),
            (at_table(1), table),
            (geometry.start_of(FIRST_CLUSTER), root),
            (geometry.start_of(FIRST_CLUSTER + 1), efi),
            (geometry.start_of(FIRST_CLUSTER + 2), boot_folder),
        ];
        let file_start = geometry.start_of(FIRST_CLUSTER + FOLDERS);
        Ok(Self { pieces, file_start, file, length })
    }

    /// Reads the partition from its start to its end.
    #[must_use]
    pub fn reader(&self) -> impl Read + '_ {
        let pieces = self.pieces.iter().map(|(start, bytes)| (*start, bytes.as_slice()));
        let mut reader: Box<dyn Read + '_> = Box::new(io::empty());
        let mut end = 0;
        for (start, bytes) in pieces.chain([(self.file_start, self.file)]) {
            reader = Box::new(reader.chain(zeros(start - end)).chain(bytes));
            end = start + u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        }
        reader.chain(zeros(self.length - end))
    }
}

fn zeros(count: u64) -> impl Read {
    io::repeat(0).take(count)
}

impl Geometry {
    fn of(length: u64) -> Result<Self, Error> {
        let total = length / SECTOR;
        if length < MIN_BYTES || u32::try_from(total).is_err() {
            return Err(Error::Size { bytes: length });
        }
        let per_cluster =
            CLUSTER_SIZES.into_iter().find(|(most, _)| total <= *most).map_or(64, |(_, size)| size);
        // And its formula for the size of a table, which may be a few sectors more than needed.
        let table = (total - RESERVED_SECTORS).div_ceil((256 * per_cluster + TABLES) / 2);
        let clusters = (total - RESERVED_SECTORS - TABLES * table) / per_cluster;
        Ok(Self { total, per_cluster, table, clusters })
    }

    /// First byte of a cluster.
    fn start_of(self, cluster: u64) -> u64 {
        let data = RESERVED_SECTORS + TABLES * self.table;
        (data + (cluster - FIRST_CLUSTER) * self.per_cluster) * SECTOR
    }

    fn boot_sector(self, volume: u32, start: u64) -> Vec<u8> {
        let mut sector = vec![0; 512];
        let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[0xeb, 0x58, 0x90]);
        put(3, b"MSWIN4.1");
        put(11, &512_u16.to_le_bytes());
        put(13, &[low_byte(self.per_cluster)]);
        put(14, &[low_byte(RESERVED_SECTORS), 0, low_byte(TABLES)]);
        // A fixed disk; the geometry is one that everybody gives and nobody uses.
        put(21, &[0xf8, 0, 0, 63, 0, 255, 0]);
        put(28, &word(start / SECTOR));
        put(32, &word(self.total));
        put(36, &word(self.table));
        put(44, &word(FIRST_CLUSTER));
        put(48, &[1, 0, low_byte(BACKUP_SECTOR)]);
        put(64, &[0x80, 0, 0x29]);
        put(67, &volume.to_le_bytes());
        put(71, LABEL);
        put(82, b"FAT32   ");
        put(510, &[0x55, 0xaa]);
        sector
    }

    /// How many clusters are free and where the first of them is.
    fn info_sector(self, used: u64) -> Vec<u8> {
        let mut sector = vec![0; 512];
        let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"RRaA");
        put(484, b"rrAa");
        put(488, &word(self.clusters - used));
        put(492, &if used < self.clusters { word(FIRST_CLUSTER + used) } else { [0xff; 4] });
        put(508, &[0, 0, 0x55, 0xaa]);
        sector
    }
}

/// The table as far as clusters are in use: the medium, the state (clean), a cluster for each folder, the file's chain.
fn table(used: u64) -> Vec<u8> {
    let ends = [0x0fff_fff8, END_OF_CHAIN, END_OF_CHAIN, END_OF_CHAIN, END_OF_CHAIN];
    let first = FIRST_CLUSTER + FOLDERS;
    let chain = (first..FIRST_CLUSTER + used).map(|cluster| cluster + 1);
    let mut table: Vec<u8> =
        ends.into_iter().flat_map(u32::to_le_bytes).chain(chain.flat_map(word)).collect();
    if used > FOLDERS {
        let last = table.len() - TABLE_ENTRY_BYTES;
        table[last..].copy_from_slice(&END_OF_CHAIN.to_le_bytes());
    }
    table
}

/// The folders `/`, `/EFI` and `/EFI/BOOT`.
fn folders(architecture: Architecture, bytes: u64) -> [Vec<u8>; 3] {
    let (efi, boot, file) = (FIRST_CLUSTER + 1, FIRST_CLUSTER + 2, FIRST_CLUSTER + FOLDERS);
    // Clusters of an empty file are none; a parent that is the root is written as 0.
    let file = if bytes == 0 { 0 } else { file };
    [
        [entry(LABEL, VOLUME_LABEL, 0, 0), entry(b"EFI        ", FOLDER, efi, 0)].concat(),
        [
            entry(b".          ", FOLDER, efi, 0),
            entry(b"..         ", FOLDER, 0, 0),
            entry(b"BOOT       ", FOLDER, boot, 0),
        ]
        .concat(),
        [
            entry(b".          ", FOLDER, boot, 0),
            entry(b"..         ", FOLDER, efi, 0),
            entry(short_name(architecture), FILE, file, bytes),
        ]
        .concat(),
    ]
}

/// [`boot_file`] as a folder has it: eight and three characters without the dot.
fn short_name(architecture: Architecture) -> &'static [u8; 11] {
    match architecture {
        Architecture::X86_64 => b"BOOTX64 EFI",
        Architecture::Aarch64 => b"BOOTAA64EFI",
    }
}

fn entry(name: &[u8; 11], attributes: u8, cluster: u64, bytes: u64) -> Vec<u8> {
    let mut entry = vec![0; FOLDER_ENTRY_BYTES];
    let mut put = |at: usize, bytes: &[u8]| entry[at..at + bytes.len()].copy_from_slice(bytes);
    let cluster = word(cluster);
    put(0, name);
    put(11, &[attributes]);
    put(16, &DATE.to_le_bytes());
    put(18, &DATE.to_le_bytes());
    put(20, &cluster[2..]);
    put(24, &DATE.to_le_bytes());
    put(26, &cluster[..2]);
    put(28, &word(bytes));
    entry
}

fn word(value: u64) -> [u8; 4] {
    u32::try_from(value)
        .expect("a partition's sectors and a file's bytes are counted in 32 bits")
        .to_le_bytes()
}

fn low_byte(value: u64) -> u8 {
    u8::try_from(value).expect("a constant or a row of the table of cluster sizes")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;
    use std::process::Command;

    use super::*;

    fn image(file: &[u8], length: u64) -> Vec<u8> {
        let esp = Esp::new(Architecture::X86_64, file, 0x1234_5678, (MIB, length)).expect("it fits");
        let mut image = Vec::new();
        esp.reader().read_to_end(&mut image).expect("memory reads");
        image
    }

    /// Runs one of the field's tools on an image; `None` when it is not installed.
    fn tool(program: &str, arguments: &[&str], image: &[u8]) -> Option<(bool, Vec<u8>)> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("esp");
        fs::write(&path, image).expect("image");
        let tools = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let path = path.to_string_lossy().into_owned();
        let arguments = arguments.iter().map(|argument| argument.replace("ESP", &path));
        let output = Command::new(program).env("PATH", tools).args(arguments).output();
        if output.is_err() {
            eprintln!("skipped: {program} is not installed");
        }
        output.ok().map(|output| (output.status.success(), [output.stdout, output.stderr].concat()))
    }

    #[test]
    fn the_file_lies_where_it_is_said_to_lie() {
        for (length, size) in [(33 * MIB, 0), (33 * MIB, 1), (64 * MIB, 512), (300 * MIB, 70_001)] {
            let file = vec![7; size];
            let image = image(&file, length);
            assert_eq!(u64::try_from(image.len()).expect("small"), length);
            let start = usize::try_from(file_start(length).expect("large enough")).expect("small");
            assert_eq!(&image[start..start + size], file);
            assert!(image[start + size..] == vec![0; image.len() - start - size]);
        }
    }

    #[test]
    fn a_file_and_its_signature_go_into_a_partition_that_was_made_for_the_file() {
        for bytes in [0, 14 * MIB, 31 * MIB, 32 * MIB - 1, 200 * MIB, 900 * MIB] {
            let length = length_for(bytes);
            let geometry = Geometry::of(length).expect("large enough");
            let room = (geometry.clusters - FOLDERS) * geometry.per_cluster * SECTOR;
            assert!(length % MIB == 0 && room >= bytes + MIB / 2, "{bytes}: {room} in {length}");
        }
    }

    #[test]
    fn the_field_s_tools_read_it() {
        let file: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
        for length in [33 * MIB, 64 * MIB, 300 * MIB] {
            let image = image(&file, length);
            if let Some((good, said)) = tool("fsck.fat", &["-n", "-v", "ESP"], &image) {
                let said = String::from_utf8_lossy(&said).into_owned();
                assert!(good && said.contains("32 bit"), "{length}: {said}");
            }
            if let Some((good, read)) = tool("mtype", &["-i", "ESP", "::/EFI/BOOT/BOOTX64.EFI"], &image) {
                assert!(good && read == file, "{length}");
            }
        }
    }

    #[test]
    fn a_partition_that_is_too_small_is_refused_with_what_it_takes() {
        let error = Esp::new(Architecture::X86_64, b"x", 0, (MIB, 32 * MIB)).expect_err("FAT16");
        assert_eq!(
            error.to_string(),
            "an EFI system partition of 33554432 bytes cannot hold a FAT32 file system; it takes 34603008 or more"
        );
        let error =
            Esp::new(Architecture::X86_64, &vec![1; 40 << 20], 0, (MIB, 33 * MIB)).expect_err("too large");
        assert!(error.to_string().starts_with("41943040 bytes do not fit"), "{error}");
    }

    #[test]
    fn places_and_sizes_that_no_disk_of_ours_has_are_errors() {
        let far = Esp::new(Architecture::X86_64, b"x", 0, (1 << 41, 33 * MIB)).expect_err("too far");
        assert_eq!(far, Error::Start { start: 1 << 41 });
        let huge = Esp::new(Architecture::X86_64, b"x", 0, (MIB, u64::MAX)).expect_err("too large");
        assert_eq!(huge, Error::Size { bytes: u64::MAX });
        let file = tempfile::tempfile().expect("temporary file");
        let mut esp = image(b"x", 33 * MIB);
        let size = usize::try_from(Geometry::of(33 * MIB).expect("large enough").start_of(4) + FILE_SIZE);
        let size = size.expect("small");
        for (bytes, read) in [(1_u32, true), (40 << 20, false), (u32::MAX, false)] {
            esp[size..size + 4].copy_from_slice(&bytes.to_le_bytes());
            file.write_all_at(&esp, 0).expect("written");
            assert_eq!(read_file(Region::part(&file, 0, 33 * MIB)).is_ok(), read, "{bytes}");
        }
        assert!(read_file(Region::part(&file, 0, MIB)).is_err(), "no file system is as small");
        assert!(read_file(Region::part(&file, 0, 1 << 40)).is_err(), "it is not there");
    }

    #[test]
    fn a_file_takes_the_last_cluster_and_not_one_more() {
        let room = match Esp::new(Architecture::X86_64, &vec![1; 40 << 20], 0, (MIB, 33 * MIB)) {
            Err(Error::TooLarge { room, .. }) => usize::try_from(room).expect("small"),
            made => panic!("{made:?}"),
        };
        let image = image(&vec![1; room], 33 * MIB);
        assert_eq!(u64::try_from(image.len()).expect("small"), 33 * MIB);
        assert!(Esp::new(Architecture::X86_64, &vec![1; room + 1], 0, (MIB, 33 * MIB)).is_err());
    }
}
