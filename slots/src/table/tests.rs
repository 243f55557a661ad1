use std::os::unix::fs::FileExt;

use gpt::mbr::ProtectiveMBR;
use gpt::partition_types::LINUX_FS;

use super::*;

const SECTOR: u64 = 512;
const BYTES: u64 = 1 << 20;
/// Header and entries of the first copy, header and entries of the second one.
const COPIES: [std::ops::Range<u64>; 2] = [SECTOR..34 * SECTOR, BYTES - 33 * SECTOR..BYTES];

/// A disk with both slots: A proven, B empty.
fn disk() -> File {
    let mut disk = tempfile::tempfile().unwrap();
    disk.set_len(BYTES).unwrap();
    ProtectiveMBR::with_lb_size(u32::try_from(BYTES / SECTOR - 1).unwrap())
        .overwrite_lba0(&mut disk)
        .unwrap();
    let mut table = config(SECTOR).writable(true).create_from_device(&disk, None).unwrap();
    let entries =
        Slot::ALL.into_iter().flat_map(Slot::names).zip(0..).map(|(name, index)| gpt::partition::Partition {
            part_type_guid: LINUX_FS,
            part_guid: Uuid::from_u128(index),
            first_lba: 40 + u64::try_from(index).unwrap(),
            last_lba: 40 + u64::try_from(index).unwrap(),
            flags: 1 << 60,
            name: name.to_owned(),
        });
    table.update_partitions((1..).zip(entries).collect()).unwrap();
    table.write().unwrap();
    change(&disk, SECTOR, |table| table.set_count(Slot::A, BootCount::PROVEN)).unwrap();
    disk
}

fn on_trial(table: &mut Table) -> Result<(), Error> {
    table.set_count(Slot::A, BootCount::SECOND)?;
    table.set_count(Slot::B, BootCount::ON_TRIAL)?;
    table.set_uuids(Slot::B, [7, 8, 9].map(Uuid::from_u128))
}

fn bytes(disk: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(BYTES).unwrap()];
    disk.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_change_is_in_both_copies_and_leaves_other_attributes() {
    let disk = disk();
    change(&disk, SECTOR, on_trial).unwrap();
    let (first, second) = (read_first(&disk, SECTOR).unwrap(), read_second(&disk, SECTOR).unwrap());
    assert_eq!(first, second);
    assert_eq!(first.counts(), [(Slot::A, BootCount::SECOND), (Slot::B, BootCount::ON_TRIAL)]);
    assert_eq!(first.entries[&4].part_guid, Uuid::from_u128(7));
    assert_eq!(first.entries[&4].flags, (1 << 60) | BootCount::ON_TRIAL.to_attributes());
}

#[test]
fn either_copy_alone_will_do_and_the_next_change_mends_the_other() {
    for damaged in COPIES {
        for at in [damaged.start, damaged.start + SECTOR + 3, damaged.end - SECTOR, damaged.end - SECTOR + 16]
        {
            let disk = disk();
            let before = Table::read(&disk, SECTOR).unwrap();
            let mut byte = [0];
            disk.read_exact_at(&mut byte, at).unwrap();
            disk.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
            assert_eq!(Table::read(&disk, SECTOR).unwrap(), before, "byte {at}");
            change(&disk, SECTOR, on_trial).unwrap();
            assert_eq!(read_first(&disk, SECTOR).unwrap(), read_second(&disk, SECTOR).unwrap(), "byte {at}");
        }
    }
}

#[test]
fn a_disk_without_a_whole_copy_is_refused() {
    let disk = disk();
    for copy in COPIES {
        disk.write_all_at(&[0xff; 700], copy.start).unwrap();
        disk.write_all_at(&[0xff; 700], copy.end - 700).unwrap();
    }
    let error = Table::read(&disk, SECTOR).unwrap_err();
    assert_eq!(error.to_string(), "neither copy of the partition table is whole");
    assert!(change(&disk, SECTOR, on_trial).is_err());
    assert!(matches!(
        Table { entries: BTreeMap::new() }.count(Slot::B),
        Err(Error::NoPartition("eci-root-b"))
    ));
}

/// A change is a sequence of sectors that get other bytes, in an order that is known only for the two copies. Whatever part of
/// one copy has arrived, the table reads as before or as after, and can be changed again.
#[test]
fn a_change_that_is_cut_off_has_happened_or_has_not() {
    let old = disk();
    let (old_bytes, old_table) = (bytes(&old), Table::read(&old, SECTOR).unwrap());
    change(&old, SECTOR, on_trial).unwrap();
    let (new_bytes, new_table) = (bytes(&old), Table::read(&old, SECTOR).unwrap());
    let changed = |sectors: std::ops::Range<u64>| {
        let sectors = sectors.start / SECTOR..sectors.end / SECTOR;
        let range = |sector: u64| {
            let start = usize::try_from(sector * SECTOR).unwrap();
            start..start + usize::try_from(SECTOR).unwrap()
        };
        let differ = sectors.filter(|sector| old_bytes[range(*sector)] != new_bytes[range(*sector)]);
        differ.map(range).collect::<Vec<_>>()
    };
    let [first, second] = COPIES.map(changed);
    assert!(first.len() > 1 && second.len() > 1, "header and entries");
    let check = |arrived: &[&std::ops::Range<usize>]| {
        let disk = disk();
        disk.write_all_at(&old_bytes, 0).unwrap();
        for range in arrived {
            disk.write_all_at(&new_bytes[(*range).clone()], u64::try_from(range.start).unwrap()).unwrap();
        }
        let read = Table::read(&disk, SECTOR).unwrap();
        assert!(read == old_table || read == new_table, "{arrived:?}");
        change(&disk, SECTOR, |table| table.set_count(Slot::B, BootCount::NEVER)).unwrap();
        assert_eq!(read_first(&disk, SECTOR).unwrap(), read_second(&disk, SECTOR).unwrap());
    };
    for choice in 0..1_u32 << first.len() {
        let arrived: Vec<_> =
            (0..).zip(&first).filter(|(bit, _)| choice >> bit & 1 == 1).map(|(_, r)| r).collect();
        check(&arrived);
    }
    for choice in 0..1_u32 << second.len() {
        let arrived = (0..).zip(&second).filter(|(bit, _)| choice >> bit & 1 == 1).map(|(_, r)| r);
        check(&first.iter().chain(arrived).collect::<Vec<_>>());
    }
}
