//! Reading a disk image's partition table back.

use std::fs::File;
use std::path::Path;

use uuid::Uuid;

use super::super::region::Region;
use super::{Error, Partition, SECTOR};

/// A partition table whose two copies are both sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The disk's own UUID.
    pub guid: Uuid,
    /// Partitions by their numbers.
    pub partitions: Vec<Partition>,
}

impl Table {
    /// The partition of this name; `None` when there is none or more than one, for then none can be trusted.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Partition> {
        let mut found = self.partitions.iter().filter(|partition| partition.name == name);
        found.next().filter(|_| found.next().is_none())
    }
}

impl Partition {
    /// The partition's bytes in its disk image.
    #[must_use]
    pub fn region<'a>(&self, disk: &'a File) -> Region<'a> {
        Region::part(disk, self.start, self.length)
    }
}

/// Reads the partition table of a raw disk image.
///
/// # Errors
/// [`Error::ReadTable`], and [`Error::Header`] where only one copy is sound.
pub fn read(disk: &File, path: &Path) -> Result<Table, Error> {
    let damaged = |source| Error::ReadTable { path: path.to_owned(), source };
    let device = disk.try_clone().map_err(|source| Error::File {
        operation: "read",
        path: path.to_owned(),
        source,
    })?;
    let table = gpt::GptConfig::new().writable(false).open_from_device(device).map_err(damaged)?;
    for (copy, header) in [("primary", table.primary_header()), ("backup", table.backup_header())] {
        header.map_err(|source| Error::Header { copy, path: path.to_owned(), source })?;
    }
    let partitions = table.partitions().values().filter(|entry| entry.is_used()).map(partition).collect();
    Ok(Table { guid: *table.guid(), partitions })
}

/// An entry of the table, in bytes.
#[must_use]
pub fn partition(entry: &gpt::partition::Partition) -> Partition {
    let sectors = entry.last_lba.checked_sub(entry.first_lba).map_or(0, |count| count.saturating_add(1));
    Partition {
        name: entry.name.clone(),
        kind: entry.part_type_guid.guid,
        uuid: entry.part_guid,
        start: entry.first_lba.saturating_mul(SECTOR),
        length: sectors.saturating_mul(SECTOR),
        attributes: entry.flags,
    }
}
