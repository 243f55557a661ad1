//! The tree against the reference implementation, and against damage.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use super::*;

/// Data that no two blocks of are alike.
fn data(blocks: u64) -> Vec<u8> {
    (0..blocks).flat_map(|block| Sha256::of(&[&block.to_le_bytes()]).0.repeat(128)).collect()
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("temporary file");
    file.write_all(bytes).expect("written");
    file
}

fn tree_of(bytes: &[u8], salt: &[u8], threads: usize) -> Tree {
    let file = file(bytes);
    tree::compute(Region::whole(&file).expect("size"), salt, threads).expect("tree")
}

fn veritysetup(
    arguments: &[&str],
    files: [&Path; 2],
    root_hash: Option<&str>,
) -> Option<std::process::Output> {
    let output = Command::new("veritysetup").args(arguments).args(files).args(root_hash).output();
    if output.is_err() {
        eprintln!("skipped: veritysetup is not installed");
    }
    output.ok()
}

#[test]
fn equals_what_veritysetup_writes_at_every_turn_of_the_tree() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (data_path, tree_path) = (folder.path().join("data"), folder.path().join("tree"));
    for blocks in [1, 2, 127, 128, 129, 128 * 128, 128 * 128 + 1] {
        let bytes = data(blocks);
        fs::write(&data_path, &bytes).expect("data");
        let identity = Identity::of_data(Sha256::of(&[&bytes]));
        let tree = tree_of(&bytes, &identity.salt, 3);
        let salt = format!("--salt={}", super::super::digest::to_hex(&identity.salt));
        let uuid = format!("--uuid={}", identity.uuid);
        let Some(output) = veritysetup(&["format", &salt, &uuid], [&data_path, &tree_path], None) else {
            return;
        };
        assert!(output.status.success(), "{output:?}");
        let reference = fs::read(&tree_path).expect("tree");
        assert_eq!(partition_bytes(&identity, &tree), reference, "{blocks} blocks");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains(&tree.root_hash().to_string()),
            "{blocks} blocks"
        );
    }
}

#[test]
fn veritysetup_verifies_our_tree_and_refuses_damaged_data_as_we_do() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (data_path, tree_path) = (folder.path().join("data"), folder.path().join("tree"));
    let mut bytes = data(300);
    let identity = Identity::of_data(Sha256::of(&[&bytes]));
    let tree = tree_of(&bytes, &identity.salt, 2);
    fs::write(&tree_path, partition_bytes(&identity, &tree)).expect("tree");
    let root_hash = tree.root_hash().to_string();
    let verdict = |bytes: &[u8]| {
        fs::write(&data_path, bytes).expect("data");
        veritysetup(&["verify"], [&data_path, &tree_path], Some(&root_hash))
            .map(|output| output.status.success())
    };
    let Some(good) = verdict(&bytes) else { return };
    assert!(good);
    bytes[299 * BLOCK + 17] ^= 1;
    assert_eq!(verdict(&bytes), Some(false));
    let computed = tree_of(&bytes, &identity.salt, 2);
    assert_eq!(first_difference(&computed, tree.bytes()), Some(Difference::DataBlock(299)));
}

#[test]
fn a_damaged_tree_is_told_from_damaged_data() {
    let bytes = data(300);
    let tree = tree_of(&bytes, b"salt", 1);
    let mut stored = tree.bytes().to_vec();
    assert_eq!(first_difference(&tree, &stored), None);
    stored[40] ^= 1;
    assert_eq!(first_difference(&tree, &stored), Some(Difference::HashBlock(0)));
    stored.pop();
    assert_eq!(first_difference(&tree, &stored), Some(Difference::Length));
}

#[test]
fn padding_after_the_last_digest_belongs_to_the_tree() {
    let tree = tree_of(&data(2), b"", 1);
    let mut stored = tree.bytes().to_vec();
    stored[100] = 1;
    assert_eq!(first_difference(&tree, &stored), Some(Difference::HashBlock(0)));
}

#[test]
fn the_number_of_threads_does_not_change_the_tree() {
    let bytes = data(1000);
    let one = tree_of(&bytes, b"salt", 1);
    assert_eq!(one, tree_of(&bytes, b"salt", 2));
    assert_eq!(one, tree_of(&bytes, b"salt", 7));
}

#[test]
fn data_that_is_not_whole_blocks_is_refused() {
    for length in [0, 1, 4095, 4097] {
        let file = file(&vec![0; length]);
        let error = hash(Region::whole(&file).expect("size"), b"").expect_err("not whole blocks");
        assert!(matches!(error, Error::Size { .. }), "{error}");
    }
}

#[test]
fn a_read_error_names_the_block() {
    let file = file(&data(2));
    let error = hash(Region::part(&file, 0, 3 * BLOCK_BYTES), b"").expect_err("the file is shorter");
    assert_eq!(error.to_string(), "cannot read data block 0");
}

#[test]
fn errors_name_operation_and_object() {
    assert_eq!(
        Error::Size { bytes: 5 }.to_string(),
        "5 bytes of data are not a whole number of blocks of 4096 bytes, at least one"
    );
    assert_eq!(
        Error::TooLarge { bytes: 5 }.to_string(),
        "5 bytes of data are too many to hash on this machine"
    );
}
