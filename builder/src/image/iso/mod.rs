//! The image as a CD: the disk's partition table and partitions, without slot B and data, and what firmware and other systems look for
//! on a CD.
//!
//! Formats: ECMA-119 (ISO 9660), and El Torito 1.0 as UEFI has it (2.10, 13.3.2.1). A CD's first 32 KiB are for whoever wants them: there the
//! partition table is, in sectors of 512 bytes, so that the same file is a disk as well. Descriptors follow, in the MiB before the first
//! partition. Firmware boots the EFI system partition; each partition is also a file of the CD. No clock is read: all dates
//! are left open. So `verify` compares bytes here, too, and reads no file system that somebody else may have made.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::disk::{self, Contents, Layout, Partition};

/// Bytes of a CD's sector.
const SECTOR: usize = 2048;
/// First byte behind what a CD leaves to others (ECMA-119, 6.2.1): descriptors begin here.
pub const START: u64 = 16 * SECTOR as u64;
/// Where a file says that it is a CD, and how (8.4.1, 8.4.2).
pub const MAGIC: (u64, &[u8]) = (START + 1, b"CD001");
/// Sectors of what follows the three descriptors. El Torito wants its descriptor to be the second.
const CATALOGUE: u32 = 19;
const PATHS: [u32; 2] = [20, 21];
const FOLDER: u32 = 22;
/// Bytes of a folder's entry before the name, and of the table of paths, which has the root alone.
const ENTRY_BYTES: usize = 33;
const PATHS_BYTES: u32 = 10;
const IS_FOLDER: u8 = 2;
/// Most characters of a volume's name, and of a file's with its version.
const NAME_CHARACTERS: usize = 32;
/// Platform of a boot entry: UEFI.
const UEFI: u8 = 0xef;
const BOOTABLE: u8 = 0x88;

/// Why a CD cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of a CD has fewer bytes than 4 GiB.
    #[error(
        "the partition `{partition}` of {bytes} bytes is too large or too far behind for a CD, whose files have less than 4 GiB"
    )]
    TooLarge {
        /// Name of the partition.
        partition: String,
        /// Its size.
        bytes: u64,
    },
    /// The partitions cannot be written.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The descriptors cannot be written.
    #[error("cannot write `{}`", .path.display())]
    Write {
        /// The CD's image.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Writes a CD's image to `path`, which must not exist. `name` is what it will be called.
///
/// # Errors
/// [`Error`]; an unfinished image may be left at `path`.
pub fn write(name: &str, layout: &Layout, contents: &Contents<'_>, path: &Path) -> Result<(), Error> {
    let descriptors = descriptors(name, &layout.partitions, layout.length)?;
    disk::write(layout, contents, path)?;
    let opened = OpenOptions::new().write(true).open(path);
    let written = opened.and_then(|file| file.write_all_at(&descriptors, START));
    written.map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// All that makes a disk of `length` bytes with these partitions, the EFI system partition first, a CD: its bytes from [`START`].
///
/// # Errors
/// [`Error::TooLarge`].
pub fn descriptors(name: &str, partitions: &[Partition], length: u64) -> Result<Vec<u8>, Error> {
    let mut folder =
        [entry(&[0], (FOLDER, 2048), IS_FOLDER), entry(&[1], (FOLDER, 2048), IS_FOLDER)].concat();
    let mut boot = 0;
    // Entries are sorted by name (9.3).
    let mut files: Vec<_> =
        partitions.iter().map(|partition| (file_name(&partition.name), partition)).collect();
    files.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (name, partition) in files {
        let too_large = || Error::TooLarge { partition: partition.name.clone(), bytes: partition.length };
        let first = u32::try_from(partition.start / 2048).map_err(|_| too_large())?;
        let bytes = u32::try_from(partition.length).map_err(|_| too_large())?;
        if partitions.first() == Some(partition) {
            boot = first;
        }
        folder.extend(entry(name.as_bytes(), (first, bytes), 0));
    }
    let sectors = u32::try_from(length / 2048).unwrap_or(u32::MAX);
    Ok([
        primary(name, sectors),
        boot_record(),
        descriptor(255),
        sector(&catalogue(boot)),
        sector(&path_table(u32::to_le_bytes, u16::to_le_bytes)),
        sector(&path_table(u32::to_be_bytes, u16::to_be_bytes)),
        sector(&folder),
    ]
    .concat())
}

/// `eci-root-a` is `ECI_ROOT_A.IMG;1`: capitals, digits and `_`, and the version that every file has (7.5.1).
fn file_name(partition: &str) -> String {
    format!("{:.26}.IMG;1", allowed(partition))
}

/// In d-characters (7.4.1).
fn allowed(text: &str) -> String {
    let upper = text.chars().map(|letter| letter.to_ascii_uppercase());
    upper.map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect()
}

fn sector(bytes: &[u8]) -> Vec<u8> {
    let mut sector = bytes.to_vec();
    sector.resize(SECTOR, 0);
    sector
}

/// A descriptor of this kind with nothing in it.
fn descriptor(kind: u8) -> Vec<u8> {
    let (_, magic) = MAGIC;
    sector(&[&[kind], magic, &[1]].concat())
}

/// The primary volume descriptor (8.4). What is not said is spaces in text, and digits and zeros in dates.
fn primary(name: &str, sectors: u32) -> Vec<u8> {
    let mut volume = descriptor(1);
    let mut put = |at: usize, bytes: &[u8]| volume[at..at + bytes.len()].copy_from_slice(bytes);
    put(8, &[b' '; NAME_CHARACTERS]);
    put(40, format!("{:<32.32}", allowed(name)).as_bytes());
    put(80, &both(sectors));
    // One CD of a set of one, and the size of a block.
    put(120, &[1, 0, 0, 1, 1, 0, 0, 1, 0, 8, 8, 0]);
    put(132, &both(PATHS_BYTES));
    put(140, &PATHS[0].to_le_bytes());
    put(148, &PATHS[1].to_be_bytes());
    put(156, &entry(&[0], (FOLDER, 2048), IS_FOLDER));
    put(190, &[b' '; 623]);
    for date in [813, 830, 847, 864] {
        put(date, b"0000000000000000\0");
    }
    put(881, &[1]);
    volume
}

/// Says where the boot catalogue is (El Torito, 2.0).
fn boot_record() -> Vec<u8> {
    let mut record = descriptor(0);
    let name = b"EL TORITO SPECIFICATION";
    record[7..7 + name.len()].copy_from_slice(name);
    record[71..75].copy_from_slice(&CATALOGUE.to_le_bytes());
    record
}

/// The boot catalogue (El Torito, 2.1 and 2.2): UEFI boots what begins at sector `boot`. The count of its sectors has 16 bits, which a FAT32
/// file system does not go into: 0 has firmware take it to reach to the end of the CD.
fn catalogue(boot: u32) -> Vec<u8> {
    let mut validation = [0; 32];
    validation[..2].copy_from_slice(&[1, UEFI]);
    validation[30..].copy_from_slice(&[0x55, 0xaa]);
    // The sum of all words is 0.
    let words = validation.chunks(2).map(|word| u16::from_le_bytes([word[0], word[1]]));
    let checksum = words.fold(0, u16::wrapping_sub);
    validation[28..30].copy_from_slice(&checksum.to_le_bytes());
    let mut entry = [0; 32];
    entry[0] = BOOTABLE;
    entry[8..12].copy_from_slice(&boot.to_le_bytes());
    [validation, entry].concat()
}

/// The table of paths (9.4) in one of the two orders of bytes: the root, which is its own parent.
fn path_table(word: fn(u32) -> [u8; 4], half: fn(u16) -> [u8; 2]) -> Vec<u8> {
    [&[1, 0][..], &word(FOLDER), &half(1), &[0, 0]].concat()
}

/// An entry of a folder (9.1), the date all zeros: none.
fn entry(name: &[u8], (first, bytes): (u32, u32), flags: u8) -> Vec<u8> {
    let mut entry = vec![0; ENTRY_BYTES];
    entry[2..10].copy_from_slice(&both(first));
    entry[10..18].copy_from_slice(&both(bytes));
    entry[25] = flags;
    entry[28..32].copy_from_slice(&[1, 0, 0, 1]);
    entry[32] = u8::try_from(name.len()).expect("a name has 32 characters at most");
    entry.extend(name);
    // Of even length.
    entry.resize(entry.len().next_multiple_of(2), 0);
    entry[0] = u8::try_from(entry.len()).expect("33 bytes and a name");
    entry
}

/// A number in both orders of bytes (7.3.3).
fn both(number: u32) -> Vec<u8> {
    [number.to_le_bytes(), number.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests;
