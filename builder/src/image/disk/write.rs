//! Writing a laid out disk: tables at both ends, contents where they belong, holes everywhere else.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use gpt::mbr::ProtectiveMBR;
use gpt::partition_types::{OperatingSystem, Type};

use super::super::esp::Esp;
use super::super::region::Region;
use super::{Error, Layout, Partition, SECTOR};

/// Zeros are left out in pieces of this many bytes, the block size of the file systems we write to.
const PIECE: usize = 4096;
const ZEROS: [u8; PIECE] = [0; PIECE];
/// Bytes copied at a time.
const BUFFER_BYTES: usize = 256 * PIECE;

/// What goes into the EFI system partition and slot A.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// The file system that firmware boots from.
    pub esp: &'a Esp<'a>,
    /// The root file system's image.
    pub root: &'a Path,
    /// Superblock and hash tree.
    pub verity: &'a [u8],
    /// What the signature partition says.
    pub signature: &'a [u8],
}

/// Writes a sparse disk image to `path`, which must not exist.
///
/// # Errors
/// [`Error`]; an unfinished image may be left at `path`.
pub fn write(layout: &Layout, contents: &Contents<'_>, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::File { operation: "write", path: path.to_owned(), source };
    let disk = OpenOptions::new().read(true).write(true).create_new(true).open(path).map_err(failed)?;
    disk.set_len(layout.length).map_err(failed)?;
    let [esp, root, verity, signature, ..] = layout.partitions.as_slice() else {
        unreachable!("a layout has the EFI system partition and slot A's three partitions first")
    };
    copy_sparse(&mut contents.esp.reader(), &disk, esp.start).map_err(failed)?;
    write_bytes(&disk, verity, contents.verity, path)?;
    write_bytes(&disk, signature, contents.signature, path)?;
    let read = |source| Error::File { operation: "read", path: contents.root.to_owned(), source };
    let mut image = File::open(contents.root).map_err(read)?;
    check_fits(root, image.metadata().map_err(read)?.len())?;
    copy_sparse(&mut image, &disk, root.start).map_err(failed)?;
    write_tables(layout, disk).map_err(|source| Error::WriteTable { path: path.to_owned(), source })
}

/// Copies a raw disk image to `path`, which must not exist, with other contents in some of its partitions: what is given, then
/// zeros.
///
/// # Errors
/// [`Error`]; an unfinished image may be left at `path`.
pub fn rewrite(from: &File, changes: Vec<(&Partition, &mut dyn Read)>, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::File { operation: "write", path: path.to_owned(), source };
    let disk = OpenOptions::new().read(true).write(true).create_new(true).open(path).map_err(failed)?;
    let whole = Region::whole(from).map_err(failed)?;
    disk.set_len(whole.length()).map_err(failed)?;
    copy_sparse(&mut whole.reader(), &disk, 0).map_err(failed)?;
    changes.into_iter().try_for_each(|(partition, content)| fill(&disk, partition, content, path))
}

/// Gives a partition of a disk other contents: what is given, then zeros. What is there already is not written again.
///
/// # Errors
/// [`Error::File`]; the partition then has some of both.
pub fn fill(disk: &File, partition: &Partition, content: impl Read, path: &Path) -> Result<(), Error> {
    let content = &mut content.chain(io::repeat(0)).take(partition.length);
    let filled = copy_over(content, disk, partition.start);
    filled.map_err(|source| Error::File { operation: "write", path: path.to_owned(), source })
}

fn write_bytes(disk: &File, partition: &Partition, bytes: &[u8], path: &Path) -> Result<(), Error> {
    check_fits(partition, u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
    let written = copy_sparse(&mut &*bytes, disk, partition.start);
    written.map_err(|source| Error::File { operation: "write", path: path.to_owned(), source })
}

fn check_fits(partition: &Partition, bytes: u64) -> Result<(), Error> {
    if bytes <= partition.length {
        return Ok(());
    }
    Err(Error::TooLarge { partition: partition.name.clone(), bytes, room: partition.length })
}

/// Copies all of `from` to `start` in a disk that is all zeros, leaving out what is zero.
///
/// # Errors
/// What reading or writing gave.
pub fn copy_sparse(from: &mut impl Read, disk: &File, mut start: u64) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let limit = u64::try_from(BUFFER_BYTES).map_err(io::Error::other)?;
    loop {
        buffer.clear();
        if from.by_ref().take(limit).read_to_end(&mut buffer)? == 0 {
            return Ok(());
        }
        for piece in buffer.chunks(PIECE) {
            if *piece != ZEROS[..piece.len()] {
                disk.write_all_at(piece, start)?;
            }
            start += u64::try_from(piece.len()).map_err(io::Error::other)?;
        }
    }
}

/// Copies all of `from` to `start` in a disk, leaving out what is there already: holes stay.
fn copy_over(from: &mut impl Read, disk: &File, mut start: u64) -> io::Result<()> {
    let (mut piece, mut there) = (Vec::with_capacity(PIECE), [0; PIECE]);
    let limit = u64::try_from(PIECE).map_err(io::Error::other)?;
    loop {
        piece.clear();
        if from.by_ref().take(limit).read_to_end(&mut piece)? == 0 {
            return Ok(());
        }
        let there = &mut there[..piece.len()];
        disk.read_exact_at(there, start)?;
        if piece != there {
            disk.write_all_at(&piece, start)?;
        }
        start += u64::try_from(piece.len()).map_err(io::Error::other)?;
    }
}

fn write_tables(layout: &Layout, mut disk: File) -> Result<(), gpt::GptError> {
    let sectors = u32::try_from(layout.length / SECTOR - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(&mut disk).map_err(|error| match error {
        gpt::mbr::MBRError::Io(error) => gpt::GptError::Io(error),
        _ => gpt::GptError::Overflow("a protective MBR of one entry cannot be written"),
    })?;
    let mut table = gpt::GptConfig::new().writable(true).create_from_device(disk, Some(layout.guid))?;
    let entries: BTreeMap<_, _> = (1..).zip(layout.partitions.iter().map(entry)).collect();
    table.update_partitions(entries)?;
    table.write().map(drop)
}

fn entry(partition: &Partition) -> gpt::partition::Partition {
    gpt::partition::Partition {
        part_type_guid: Type { guid: partition.kind, os: OperatingSystem::None },
        part_guid: partition.uuid,
        first_lba: partition.start / SECTOR,
        last_lba: (partition.start + partition.length) / SECTOR - 1,
        flags: partition.attributes,
        name: partition.name.clone(),
    }
}
