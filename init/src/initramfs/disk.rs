//! Finding the disk that holds an image, and its partitions.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use eci_contract::disk::{BootCount, DATA_NAME, Slot};
use eci_slots::Table;

use crate::clock;

/// How often the list of disks is looked at. There are no uevents to wait for without a netlink listener, and a
/// look costs under 0.1 ms.
const POLL: Duration = Duration::from_millis(10);

/// A disk with a partition table of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Name without `/dev/`.
    pub name: String,
    /// Bytes of a sector.
    pub sector: u64,
    /// Its partitions, in the table's order.
    pub partitions: Vec<Partition>,
}

/// One entry of the partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Device name without `/dev/`.
    pub device: String,
    /// Partition name.
    pub name: String,
    /// Type UUID, lower case.
    pub kind: String,
    /// Partition UUID, lower case.
    pub uuid: String,
    /// Boot counting bits.
    pub boot: BootCount,
}

/// Why no disk was found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No disk has a root partition of ours.
    #[error("no disk with an image appeared within {} s; disks seen: {}", .waited.as_secs(), list(.seen))]
    NoDisk {
        /// How long we waited.
        waited: Duration,
        /// Names of the disks that were there.
        seen: Vec<String>,
    },
    /// The kernel's list of disks could not be read.
    #[error("cannot list disks in `/sys/block`")]
    List {
        /// What the kernel said.
        source: io::Error,
    },
}

/// Waits until a disk with a root partition is there, nodes of its partitions included.
///
/// # Errors
/// When there is none by the deadline.
pub fn wait(deadline: Duration) -> Result<Disk, Error> {
    let end = clock::boot_ms() + u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX / 2);
    loop {
        let seen = names()?;
        if let Some(disk) = seen.iter().filter_map(|name| read(name)).find(is_complete) {
            return Ok(disk);
        }
        if clock::boot_ms() >= end {
            return Err(Error::NoDisk { waited: deadline, seen });
        }
        std::thread::sleep(POLL);
    }
}

/// Names of the disks that may hold an image, sorted, so that the choice does not depend on the kernel's order.
fn names() -> Result<Vec<String>, Error> {
    let list = |source| Error::List { source };
    let mut names = Vec::new();
    for entry in fs::read_dir("/sys/block").map_err(list)? {
        let name = entry.map_err(list)?.file_name().to_string_lossy().into_owned();
        let virtual_disk = ["loop", "ram", "dm-", "zram", "sr"].iter().any(|prefix| name.starts_with(prefix));
        if !virtual_disk && serial(&name) != DATA_NAME {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn serial(name: &str) -> String {
    fs::read_to_string(format!("/sys/block/{name}/serial")).unwrap_or_default().trim().to_owned()
}

/// Reads a disk's partition table; a disk that cannot be read or has none is not ours.
fn read(name: &str) -> Option<Disk> {
    let file = File::open(Path::new("/dev").join(name)).ok()?;
    let size = fs::read_to_string(format!("/sys/block/{name}/queue/logical_block_size")).ok()?;
    let sector = size.trim().parse().ok()?;
    let table = Table::read(&file, sector).ok()?;
    let partitions = table.entries.iter().filter(|(_, entry)| entry.is_used());
    let partitions = partitions.map(|(number, entry)| Partition {
        device: device_name(name, *number),
        name: entry.name.clone(),
        kind: entry.part_type_guid.guid.to_string().to_lowercase(),
        uuid: entry.part_guid.to_string().to_lowercase(),
        boot: BootCount::from_attributes(entry.flags),
    });
    Some(Disk { name: name.to_owned(), sector, partitions: partitions.collect() })
}

/// `vda` and 1 give `vda1`, `nvme0n1` and 1 give `nvme0n1p1`, as in the kernel's `disk_name`.
fn device_name(disk: &str, number: u32) -> String {
    let separator = if disk.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{separator}{number}")
}

fn is_complete(disk: &Disk) -> bool {
    let roots = [Slot::A, Slot::B].map(|slot| slot.names()[0]);
    disk.partitions.iter().any(|partition| roots.contains(&partition.name.as_str()))
        && disk.partitions.iter().all(|partition| Path::new("/dev").join(&partition.device).exists())
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_devices_are_named_as_the_kernel_does() {
        assert_eq!(device_name("vda", 1), "vda1");
        assert_eq!(device_name("nvme0n1", 12), "nvme0n1p12");
    }

    #[test]
    fn a_missing_disk_says_what_was_there() {
        let error = Error::NoDisk { waited: Duration::from_secs(5), seen: vec![] };
        assert_eq!(error.to_string(), "no disk with an image appeared within 5 s; disks seen: none");
    }
}
