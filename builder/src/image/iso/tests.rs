//! Written CDs, read by the field's tools.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use eci_contract::manifest::Architecture;

use super::super::digest::Sha256;
use super::super::disk::plan_cd;
use super::super::esp::{Esp, MIN_BYTES};
use super::super::formats::{self, Format};
use super::*;

const ROOT: &[u8] = &[7; 5000];

fn layout() -> Layout {
    plan_cd(Architecture::X86_64, MIN_BYTES, 5000, Sha256::of(&[b"root"])).expect("sound sizes")
}

fn cd(folder: &Path) -> PathBuf {
    let (root, path) = (folder.join("root"), folder.join("cd.iso"));
    fs::write(&root, ROOT).expect("root image");
    let esp = Esp::new(Architecture::X86_64, b"program", 1, (disk::ALIGNMENT, MIN_BYTES)).expect("it fits");
    let contents = Contents { esp: &esp, root: &root, verity: b"tree", signature: b"{}" };
    write("eci-0.1.0-x86_64", &layout(), &contents, &path).expect("written");
    path
}

/// What one of the field's tools prints of a CD; `None` when it is not installed.
fn tool(program: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        eprintln!("skipped: {program} is not installed");
        return None;
    };
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

#[test]
fn it_is_a_disk_and_a_cd_with_the_same_partitions() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = cd(folder.path());
    assert_eq!(formats::of_file(&path).expect("read"), Format::Iso);
    let table = disk::read(&File::open(&path).expect("file"), &path).expect("sound");
    assert_eq!(table.partitions, layout().partitions);
    let path = path.to_string_lossy();
    if let Some(listed) = tool("bsdtar", &["-tf", &path]) {
        let listed = String::from_utf8(listed).expect("text");
        let mut names: Vec<_> = listed.lines().filter(|name| *name != ".").collect();
        names.sort_unstable();
        assert_eq!(names, ["ECI_ESP.IMG", "ECI_ROOT_A.IMG", "ECI_SIGNATURE_A.IMG", "ECI_VERITY_A.IMG"]);
    }
    if let Some(root) = tool("bsdtar", &["-xOf", &path, "ECI_ROOT_A.IMG"]) {
        assert!(root.starts_with(ROOT) && root.len() == 1 << 20);
    }
}

#[test]
fn equal_contents_give_equal_bytes() {
    let (one, two) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let read = |folder: &Path| fs::read(cd(folder)).expect("file");
    assert!(read(one.path()) == read(two.path()));
}

#[test]
fn the_boot_catalogue_sums_up_and_names_the_efi_system_partition() {
    let catalogue = catalogue(512);
    let words = catalogue[..32].chunks(2).map(|word| u16::from_le_bytes([word[0], word[1]]));
    assert_eq!(words.fold(0, u16::wrapping_add), 0);
    assert_eq!(catalogue[32..44], [0x88, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0]);
}

#[test]
fn names_have_the_characters_that_a_cd_allows() {
    assert_eq!(file_name("eci-signature-a"), "ECI_SIGNATURE_A.IMG;1");
    assert_eq!(file_name(&"é".repeat(40)).len(), NAME_CHARACTERS);
    let volume = primary("eci-test-0.1.0~rc1-x86_64-and-more-of-it", 9);
    assert_eq!(&volume[40..72], b"ECI_TEST_0_1_0_RC1_X86_64_AND_MO");
}

#[test]
fn a_partition_of_4_gib_is_refused() {
    let mut partitions = layout().partitions;
    partitions[1].length = 4 << 30;
    let error = descriptors("eci", &partitions, 8 << 30).expect_err("too large").to_string();
    assert!(error.starts_with("the partition `eci-root-a` of 4294967296 bytes is too large"), "{error}");
}
