//! Finding the disk that holds an image, and its partitions.
//!
//! On a CD the kernel looks for no partitions: its sectors have 2048 bytes, the table counts in 512. So the table is read here for either, and
//! of a CD's partitions devices are made. From then on it is a disk like any other.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use eci_contract::disk::{BootCount, CD_TABLE_SECTOR, DATA_NAME, Medium, Slot};
use eci_slots::Table;
use eci_sys::dm::{self, Target};

use crate::clock;

/// How often the list of disks is looked at. There are no uevents to wait for without a netlink listener, and a
/// look costs under 0.1 ms.
const POLL: Duration = Duration::from_millis(10);

/// How the kernel's names of CD drives begin.
const CD_DRIVE: &str = "sr";
/// Bytes of device-mapper's sectors.
const MAPPED_SECTOR: u64 = 512;

/// A disk with a partition table of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Name without `/dev/`.
    pub name: String,
    /// What kind of disk it is.
    pub medium: Medium,
    /// Bytes of a sector of its table.
    pub sector: u64,
    /// Its partitions, in the table's order.
    pub partitions: Vec<Partition>,
}

/// One entry of the partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Device name without `/dev/`.
    pub device: String,
    /// Its first and its last sector, as the table counts them.
    pub sectors: (u64, u64),
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
    /// A CD's table has a partition that it cannot have.
    #[error("the partition table of CD {disk} has sectors {first} to {last} for `{partition}`")]
    Place {
        /// Name of the drive.
        disk: String,
        /// Name of the partition.
        partition: String,
        /// Its first sector.
        first: u64,
        /// Its last.
        last: u64,
    },
    /// The kernel does not tell of the drive, or makes no device of a part of its CD.
    #[error("cannot make a device of partition `{partition}` of CD {disk}")]
    Map {
        /// Name of the drive.
        disk: String,
        /// Name of the partition.
        partition: String,
        /// What device-mapper said.
        source: dm::Error,
    },
    /// The drive has no device number.
    #[error("cannot read the device number of CD {disk}")]
    Number {
        /// Name of the drive.
        disk: String,
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
            return with_devices(disk);
        }
        if clock::boot_ms() >= end {
            return Err(Error::NoDisk { waited: deadline, seen });
        }
        std::thread::sleep(POLL);
    }
}

/// Names of the disks that may hold an image, sorted, so that the choice does not depend on the kernel's order. CDs are last: what is
/// on a disk was installed there.
fn names() -> Result<Vec<String>, Error> {
    let list = |source| Error::List { source };
    let mut names = Vec::new();
    for entry in fs::read_dir("/sys/block").map_err(list)? {
        let name = entry.map_err(list)?.file_name().to_string_lossy().into_owned();
        let virtual_disk = ["loop", "ram", "dm-", "zram"].iter().any(|prefix| name.starts_with(prefix));
        if !virtual_disk && serial(&name) != DATA_NAME {
            names.push(name);
        }
    }
    names.sort_by_key(|name| (medium(name), name.clone()));
    Ok(names)
}

fn medium(name: &str) -> Medium {
    if name.starts_with(CD_DRIVE) { Medium::Cd } else { Medium::Disk }
}

fn serial(name: &str) -> String {
    fs::read_to_string(format!("/sys/block/{name}/serial")).unwrap_or_default().trim().to_owned()
}

/// Reads a disk's partition table; a disk that cannot be read or has none is not ours.
fn read(name: &str) -> Option<Disk> {
    let file = File::open(Path::new("/dev").join(name)).ok()?;
    let medium = medium(name);
    let sector = match medium {
        Medium::Cd => CD_TABLE_SECTOR,
        Medium::Disk => {
            let size = fs::read_to_string(format!("/sys/block/{name}/queue/logical_block_size")).ok()?;
            size.trim().parse().ok()?
        }
    };
    let table = Table::read(&file, sector).ok()?;
    let partitions = table.entries.iter().filter(|(_, entry)| entry.is_used());
    let partitions = partitions.map(|(number, entry)| Partition {
        device: if medium.is_disk() { device_name(name, *number) } else { String::new() },
        sectors: (entry.first_lba, entry.last_lba),
        name: entry.name.clone(),
        kind: entry.part_type_guid.guid.to_string().to_lowercase(),
        uuid: entry.part_guid.to_string().to_lowercase(),
        boot: BootCount::from_attributes(entry.flags),
    });
    Some(Disk { name: name.to_owned(), medium, sector, partitions: partitions.collect() })
}

/// The same disk with a device for each partition of a slot: the kernel's own, or of a CD one that is made here, and is read-only.
fn with_devices(mut disk: Disk) -> Result<Disk, Error> {
    if disk.medium.is_disk() {
        return Ok(disk);
    }
    let number = fs::read_to_string(format!("/sys/block/{}/dev", disk.name));
    let number = number.map_err(|source| Error::Number { disk: disk.name.clone(), source })?;
    let slots = Slot::ALL.map(Slot::names).concat();
    for partition in disk.partitions.iter_mut().filter(|partition| slots.contains(&partition.name.as_str())) {
        let name = || (disk.name.clone(), partition.name.clone());
        let target = linear(number.trim(), partition.sectors, disk.sector).ok_or_else(|| {
            let ((disk, partition), (first, last)) = (name(), partition.sectors);
            Error::Place { disk, partition, first, last }
        })?;
        let mapped = dm::create_read_only(&partition.name, &target).map_err(|source| {
            let (disk, partition) = name();
            Error::Map { disk, partition, source }
        })?;
        partition.device = format!("dm-{}", mapped.1);
    }
    Ok(disk)
}

/// The table line for sectors of a device, as `Documentation/admin-guide/device-mapper/linear.rst` defines it. The kernel sees to it that they
/// are inside of the device.
fn linear(device: &str, (first, last): (u64, u64), bytes: u64) -> Option<Target> {
    let in_mapped = |count: u64| Some(count.checked_mul(bytes)? / MAPPED_SECTOR);
    let count = last.checked_sub(first)?.checked_add(1)?;
    let parameters = format!("{device} {}", in_mapped(first)?);
    Some(Target { start: 0, sectors: in_mapped(count)?, kind: "linear".into(), parameters })
}

/// `vda` and 1 give `vda1`, `nvme0n1` and 1 give `nvme0n1p1`, as in the kernel's `disk_name`.
fn device_name(disk: &str, number: u32) -> String {
    let separator = if disk.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{separator}{number}")
}

fn is_complete(disk: &Disk) -> bool {
    let roots = [Slot::A, Slot::B].map(|slot| slot.names()[0]);
    disk.partitions.iter().any(|partition| roots.contains(&partition.name.as_str()))
        && disk.partitions.iter().all(|partition| {
            // Of a CD they are made when it is the one.
            !disk.medium.is_disk() || Path::new("/dev").join(&partition.device).exists()
        })
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
    fn a_partition_of_a_cd_is_a_line_of_the_kernel_s_documentation() {
        let target = linear("11:0", (2048, 4095), 512).unwrap();
        assert_eq!((target.start, target.sectors, target.kind.as_str()), (0, 2048, "linear"));
        assert_eq!(target.parameters, "11:0 2048");
        assert_eq!(linear("11:0", (1, 1), 4096).unwrap().parameters, "11:0 8");
        // What nobody can count, or begins behind its end.
        for sectors in [(5, 4), (0, u64::MAX), (u64::MAX, u64::MAX)] {
            assert!(linear("11:0", sectors, 512).is_none());
        }
        assert_eq!([medium("sr0"), medium("sda")], [Medium::Cd, Medium::Disk]);
    }

    #[test]
    fn a_missing_disk_says_what_was_there() {
        let error = Error::NoDisk { waited: Duration::from_secs(5), seen: vec![] };
        assert_eq!(error.to_string(), "no disk with an image appeared within 5 s; disks seen: none");
    }
}
