//! Choosing the slot to boot, by the boot counting bits of its root partition, and counting the boot.

use eci_contract::disk::{BootCount, Medium, Slot, TRIES, types};
use eci_contract::manifest::Architecture;

use super::disk::{Disk, Partition};
use crate::{boots, kmsg};

/// The architecture that this program was built for.
#[cfg(target_arch = "x86_64")]
pub const ARCHITECTURE: Architecture = Architecture::X86_64;
/// The architecture that this program was built for.
#[cfg(target_arch = "aarch64")]
pub const ARCHITECTURE: Architecture = Architecture::Aarch64;

/// A slot and its three partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotPartitions {
    /// Which.
    pub slot: Slot,
    /// Its boot counting bits, before this boot.
    pub count: BootCount,
    /// Root file system.
    pub root: Partition,
    /// dm-verity tree.
    pub verity: Partition,
    /// Signed manifest.
    pub signature: Partition,
}

/// Why no slot can be booted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No slot has priority and either tries or a good boot.
    #[error("no slot of disk {disk} may be booted: priority or tries are used up")]
    NoneBootable {
        /// Disk name.
        disk: String,
    },
    /// A slot lacks a partition.
    #[error("disk {disk} has no partition `{name}` of type {kind}")]
    MissingPartition {
        /// Disk name.
        disk: String,
        /// Partition name.
        name: &'static str,
        /// Partition type UUID.
        kind: &'static str,
    },
    /// The slot is on trial, and this boot cannot be counted. It would be tried for ever.
    #[error("slot {slot} is on trial, and its boots are not counted")]
    Uncounted {
        /// The slot.
        slot: Slot,
        /// Why.
        source: boots::Error,
    },
    /// The slot was booted well before, and then several times in a row without coming to an end.
    #[error(
        "slot {slot} was booted {TRIES} times in a row and got neither an engine nor as far as to say why: their consoles show what \
         stopped them; switch the machine on again to try again"
    )]
    Spent {
        /// The slot.
        slot: Slot,
    },
}

/// Picks the slot to boot ([`eci_slots::choose`]).
///
/// # Errors
/// When no slot may be booted, or the chosen one is not whole.
pub fn choose(disk: &Disk) -> Result<SlotPartitions, Error> {
    let [root_kind, ..] = types(ARCHITECTURE);
    let candidates = Slot::ALL.into_iter().filter_map(|slot| {
        let [root, ..] = slot.names();
        Some((slot, find(disk, root, root_kind).ok()?.boot))
    });
    match eci_slots::choose(&candidates.collect::<Vec<_>>()) {
        Some((slot, _)) => partitions(disk, slot),
        None => Err(Error::NoneBootable { disk: disk.name.clone() }),
    }
}

/// A slot's partitions.
///
/// # Errors
/// [`Error::MissingPartition`].
pub fn partitions(disk: &Disk, slot: Slot) -> Result<SlotPartitions, Error> {
    let [root, verity, signature] = slot.names();
    let [root_kind, verity_kind, signature_kind] = types(ARCHITECTURE);
    let root = find(disk, root, root_kind)?.clone();
    Ok(SlotPartitions {
        slot,
        count: root.boot,
        root,
        verity: find(disk, verity, verity_kind)?.clone(),
        signature: find(disk, signature, signature_kind)?.clone(),
    })
}

/// Takes a try from the slot, before anything of it is used. Whether that is written down: of a proven slot it need not be, on a disk
/// that nobody writes to, and on a CD nobody tries.
///
/// # Errors
/// When that cannot be written down of a slot on trial; [`Error::Spent`] once, then the slot has all its tries again.
pub fn count(disk: &Disk, chosen: &SlotPartitions) -> Result<bool, Error> {
    let (slot, count) = (chosen.slot, chosen.count);
    if disk.medium == Medium::Cd && !count.on_trial() {
        return Ok(false);
    }
    let after = if count.spent() { count.after_an_end() } else { count.after_a_boot() };
    match boots::change(&disk.name, disk.sector, |table| table.set_count(slot, after)) {
        Ok(()) if count.spent() => Err(Error::Spent { slot }),
        Ok(()) => Ok(true),
        Err(source) if count.on_trial() => Err(Error::Uncounted { slot, source }),
        Err(error) => {
            if !error.is_read_only() {
                kmsg::error(&format!("slot {slot}: {}", kmsg::chain(&error)));
            }
            Ok(false)
        }
    }
}

fn find<'a>(disk: &'a Disk, name: &'static str, kind: &'static str) -> Result<&'a Partition, Error> {
    let mut partitions = disk.partitions.iter();
    partitions
        .find(|partition| partition.name == name && partition.kind == kind)
        .ok_or_else(|| Error::MissingPartition { disk: disk.name.clone(), name, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(priority: u8, tries_left: u8, successful: bool) -> BootCount {
        BootCount { priority, tries_left, successful }
    }

    fn disk(a: BootCount, b: BootCount) -> Disk {
        let slot = |slot: Slot, boot| {
            slot.names().into_iter().zip(types(ARCHITECTURE)).map(move |(name, kind)| Partition {
                device: format!("dev-{name}"),
                sectors: (0, 0),
                name: name.into(),
                kind: kind.into(),
                uuid: String::new(),
                boot,
            })
        };
        Disk {
            name: "vda".into(),
            medium: Medium::Disk,
            sector: 512,
            partitions: slot(Slot::A, a).chain(slot(Slot::B, b)).collect(),
        }
    }

    fn chosen(a: BootCount, b: BootCount) -> Result<String, Error> {
        choose(&disk(a, b)).map(|slot| slot.root.name)
    }

    #[test]
    fn the_highest_priority_wins() {
        assert_eq!(chosen(boot(15, 0, true), boot(0, 0, false)).unwrap(), "eci-root-a");
        assert_eq!(chosen(boot(14, 0, true), boot(15, 3, false)).unwrap(), "eci-root-b");
    }

    #[test]
    fn a_slot_out_of_tries_is_passed_over() {
        assert_eq!(chosen(boot(14, 0, true), boot(15, 0, false)).unwrap(), "eci-root-a");
    }

    #[test]
    fn a_disk_without_a_bootable_slot_is_refused() {
        let error = chosen(boot(0, 3, true), boot(15, 0, false)).unwrap_err();
        assert_eq!(error.to_string(), "no slot of disk vda may be booted: priority or tries are used up");
    }

    #[test]
    fn a_partition_of_another_type_does_not_count() {
        let mut disk = disk(boot(15, 0, true), boot(0, 0, false));
        disk.partitions[2].kind = "0fc63daf-8483-4772-8e79-3d69d8477de4".into();
        let error = choose(&disk).unwrap_err();
        assert!(matches!(error, Error::MissingPartition { name: "eci-signature-a", .. }), "{error}");
    }
}
