//! Written disks, read back by us and judged by sgdisk.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use eci_contract::manifest::Architecture;

use super::super::digest::Sha256;
use super::super::esp::{Esp, MIN_BYTES};
use super::*;

fn layout() -> Layout {
    let sizes = Sizes { esp: MIN_BYTES, root: 4 * ALIGNMENT, data: 16 * ALIGNMENT };
    plan(Architecture::X86_64, sizes, Sha256::of(&[b"root"])).expect("sound sizes")
}

fn disk(folder: &Path, root: &[u8]) -> Result<PathBuf, Error> {
    let (image, path) = (folder.join("root"), folder.join("disk"));
    fs::write(&image, root).expect("root image");
    let esp = Esp::new(Architecture::X86_64, b"program", 1, (ALIGNMENT, MIN_BYTES)).expect("it fits");
    let contents = Contents { esp: &esp, root: &image, verity: b"tree", signature: b"{}" };
    write(&layout(), &contents, &path).map(|()| path)
}

#[test]
fn reads_back_what_it_wrote_and_stays_sparse() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut root = vec![0; 3 << 20];
    root[2 << 20] = 7;
    let path = disk(folder.path(), &root).expect("written");
    let file = File::open(&path).expect("disk");
    let table = read(&file, &path).expect("sound");
    assert_eq!((table.guid, &table.partitions), (layout().guid, &layout().partitions));
    let mut byte = [0];
    let partition = table.named("eci-root-a").expect("slot A");
    partition.region(&file).read_exact_at(&mut byte, 2 << 20).expect("inside");
    assert_eq!(byte, [7]);
    let metadata = fs::metadata(&path).expect("disk");
    assert_eq!(metadata.len(), layout().length);
    assert!(metadata.blocks() * 512 < 256 * 1024, "{} bytes in use", metadata.blocks() * 512);
}

#[test]
fn equal_contents_give_equal_bytes() {
    let (one, two) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let bytes = |folder: &Path| fs::read(disk(folder, b"root").expect("written")).expect("disk");
    assert_eq!(bytes(one.path()), bytes(two.path()));
}

#[test]
fn sgdisk_is_content() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = disk(folder.path(), b"root").expect("written");
    let path_to_tools = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let Ok(output) = Command::new("sgdisk").env("PATH", path_to_tools).arg("-v").arg(&path).output() else {
        eprintln!("skipped: sgdisk is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("No problems found"), "{output:?}");
}

#[test]
fn a_root_larger_than_its_slot_is_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let error = disk(folder.path(), &vec![1; (4 << 20) + 1]).expect_err("too large");
    assert_eq!(error.to_string(), "4194305 bytes do not fit in the partition `eci-root-a` of 4194304 bytes");
}

#[test]
fn a_damaged_copy_of_the_table_is_named() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = disk(folder.path(), b"root").expect("written");
    let file = File::options().read(true).write(true).open(&path).expect("disk");
    let backup = layout().length - SECTOR + 24;
    file.write_all_at(b"x", backup).expect("damaged");
    let error = read(&file, &path).expect_err("the backup is damaged");
    assert!(error.to_string().starts_with("the backup partition table of"), "{error}");
    file.write_all_at(b"x", SECTOR + 24).expect("damaged");
    let error = read(&file, &path).expect_err("both are damaged");
    assert!(error.to_string().ends_with("has no sound partition table"), "{error}");
}

#[test]
fn two_partitions_of_one_name_are_none() {
    let mut table = Table { guid: layout().guid, partitions: layout().partitions };
    assert!(table.named("eci-root-a").is_some());
    table.partitions[4].name = "eci-root-a".to_owned();
    assert!(table.named("eci-root-a").is_none());
    assert!(table.named("eci-root-c").is_none());
}
