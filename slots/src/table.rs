//! The partition table of a disk, from whichever of its two copies is whole, and changes to it that may be cut off.
//!
//! The crate `gpt` writes both copies entry by entry in turn, and reads the first copy's entries when only its header is sound. So
//! each copy is written alone here, the first one first and onto the disk before the second, and where the first is damaged the
//! crate is shown a disk without it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use eci_contract::disk::{BootCount, Slot};
use gpt::disk::LogicalBlockSize;
use gpt::{DiskDevice, GptConfig, GptError};
use uuid::Uuid;

/// Why a table cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither copy is whole.
    #[error("neither copy of the partition table is whole")]
    Damaged(#[source] GptError),
    /// A change cannot be written.
    #[error("cannot write the partition table")]
    Write(#[source] GptError),
    /// What was written may not be on the disk.
    #[error("cannot bring the partition table onto the disk")]
    Sync(#[source] io::Error),
    /// A slot has no root partition.
    #[error("there is no partition `{0}`")]
    NoPartition(&'static str),
}

/// Partitions by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The entries, as the crate has them.
    pub entries: BTreeMap<u32, gpt::partition::Partition>,
}

impl Table {
    /// Reads the table of a disk with sectors of `sector` bytes, 512 or 4096.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn read(disk: &File, sector: u64) -> Result<Self, Error> {
        let first = read_first(disk, sector);
        first.or_else(|_| read_second(disk, sector)).map_err(Error::Damaged)
    }

    /// Boot counting bits of a slot.
    ///
    /// # Errors
    /// [`Error::NoPartition`].
    pub fn count(&self, slot: Slot) -> Result<BootCount, Error> {
        let [root, ..] = slot.names();
        let entry = self.entries.values().find(|entry| entry.name == root);
        entry.map(|entry| BootCount::from_attributes(entry.flags)).ok_or(Error::NoPartition(root))
    }

    /// Those slots that the disk has, with their counts.
    #[must_use]
    pub fn counts(&self) -> Vec<(Slot, BootCount)> {
        Slot::ALL.into_iter().filter_map(|slot| Some((slot, self.count(slot).ok()?))).collect()
    }

    /// Sets the boot counting bits of a slot and leaves its other attributes alone.
    ///
    /// # Errors
    /// [`Error::NoPartition`].
    pub fn set_count(&mut self, slot: Slot, count: BootCount) -> Result<(), Error> {
        let root = self.entry(slot.names()[0])?;
        let mask = BootCount { priority: 15, tries_left: 15, successful: true }.to_attributes();
        root.flags = (root.flags & !mask) | count.to_attributes();
        Ok(())
    }

    /// Gives the three partitions of a slot other UUIDs.
    ///
    /// # Errors
    /// [`Error::NoPartition`].
    pub fn set_uuids(&mut self, slot: Slot, uuids: [Uuid; 3]) -> Result<(), Error> {
        for (name, uuid) in slot.names().into_iter().zip(uuids) {
            self.entry(name)?.part_guid = uuid;
        }
        Ok(())
    }

    fn entry(&mut self, name: &'static str) -> Result<&mut gpt::partition::Partition, Error> {
        self.entries.values_mut().find(|entry| entry.name == name).ok_or(Error::NoPartition(name))
    }
}

/// Changes the table of a disk with sectors of `sector` bytes. It is on the disk when this returns.
///
/// # Errors
/// [`Error`]; the table then says what it said before, or what `change` made of it.
pub fn change(
    disk: &File,
    sector: u64,
    change: impl FnOnce(&mut Table) -> Result<(), Error>,
) -> Result<(), Error> {
    let (first, second) = (read_first(disk, sector), read_second(disk, sector));
    // What a change that was cut off left behind: the copy that is written first is the newer one, when it is whole.
    let before = match (first, second) {
        (Ok(first), Ok(second)) if first == second => first,
        (Ok(first), _) => {
            write_second(disk, sector, &first)?;
            first
        }
        (Err(_), Ok(second)) => {
            write_first(disk, sector, &second)?;
            second
        }
        (Err(error), Err(_)) => return Err(Error::Damaged(error)),
    };
    let mut after = before.clone();
    change(&mut after)?;
    if after != before {
        write_first(disk, sector, &after)?;
        write_second(disk, sector, &after)?;
    }
    Ok(())
}

fn config(sector: u64) -> GptConfig {
    let size = if sector == 4096 { LogicalBlockSize::Lb4096 } else { LogicalBlockSize::Lb512 };
    GptConfig::new().logical_block_size(size)
}

fn read_first(disk: &File, sector: u64) -> Result<Table, GptError> {
    let mut table = config(sector).open_from_device(disk)?;
    // Without this the crate would have taken the second copy.
    table.primary_header()?;
    Ok(Table { entries: table.take_partitions() })
}

fn read_second(disk: &File, sector: u64) -> Result<Table, GptError> {
    let mut table = config(sector).open_from_device(WithoutFirst { disk, sector })?;
    Ok(Table { entries: table.take_partitions() })
}

/// Writes the first copy alone; the second must be whole.
fn write_first(disk: &File, sector: u64, table: &Table) -> Result<(), Error> {
    let config = config(sector).writable(true).readonly_backup(true);
    write(config.open_from_device(WithoutFirst { disk, sector }), table).map_err(Error::Write)?;
    disk.sync_all().map_err(Error::Sync)
}

/// Writes the second copy, and the first again as it is.
fn write_second(disk: &File, sector: u64, table: &Table) -> Result<(), Error> {
    write(config(sector).writable(true).open_from_device(disk), table).map_err(Error::Write)?;
    disk.sync_all().map_err(Error::Sync)
}

fn write<D: DiskDevice>(open: Result<gpt::GptDisk<D>, GptError>, table: &Table) -> Result<(), GptError> {
    let mut open = open?;
    open.update_partitions(table.entries.clone())?;
    open.write().map(drop)
}

/// A disk on which the first copy's header reads as zeros.
#[derive(Debug)]
struct WithoutFirst<'a> {
    disk: &'a File,
    sector: u64,
}

impl Read for WithoutFirst<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let start = self.disk.stream_position()?;
        let count = self.disk.read(buffer)?;
        let header = self.sector..2 * self.sector;
        for (byte, position) in buffer.iter_mut().take(count).zip(start..) {
            if header.contains(&position) {
                *byte = 0;
            }
        }
        Ok(count)
    }
}

impl Write for WithoutFirst<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.disk.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.flush()
    }
}

impl Seek for WithoutFirst<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.disk.seek(position)
    }
}

#[cfg(test)]
mod tests;
