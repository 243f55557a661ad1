//! Checks of a disk image: both copies of its table, and every slot that holds an image, down to its last block.

use std::fs::File;
use std::io;
use std::path::Path;

use eci_contract::disk::{Slot, types};
use eci_contract::manifest::Manifest;

use super::super::digest::{Sha256, from_hex};
use super::super::disk::{self, Partition, Table, slot_uuids};
use super::super::formats::{Format, RawDisk};
use super::super::region::Region;
use super::super::secure_boot::Certificate;
use super::super::signature_partition::{self, Signed};
use super::super::verity::{self, BLOCK_BYTES, Difference, SUPERBLOCK_BYTES, Superblock, Tree};
use super::{Expected, Report, chain, esp, files, iso};

/// Checks an opened disk image; `subject` names it in the report. Gives the manifests whose signature holds.
pub(super) fn disk(
    subject: &str,
    opened: &RawDisk,
    path: &Path,
    expected: &Expected,
    report: &mut Report,
) -> Vec<Vec<u8>> {
    let (file, is_cd) = (&opened.file, opened.format == Format::Iso);
    let table = disk::read(file, path);
    let outcome = table.as_ref().map(|table| format!("{} partitions", table.partitions.len()));
    report.add(subject, "partition table", outcome.map_err(|error| chain(error)));
    let Ok(table) = table else { return Vec::new() };
    let mut manifests = Vec::new();
    let mut trusted = None;
    let slots = [(Slot::A, "A"), (Slot::B, "B")];
    for (slot, letter) in slots.into_iter().take(if is_cd { 1 } else { 2 }) {
        let subject = format!("{subject} slot {letter}");
        let Some(partitions) = partitions(&subject, &table, slot, report) else { continue };
        let signed = match signature_partition::read(partitions[2].region(file)) {
            Ok(Some(signed)) => signed,
            Ok(None) if slot == Slot::B => {
                report.skip(&subject, "signature", "the slot is empty");
                continue;
            }
            Ok(None) => {
                report.add(&subject, "signature", Err("the slot is empty".to_owned()));
                continue;
            }
            Err(error) => {
                report.add(&subject, "signature", Err(chain(&error)));
                continue;
            }
        };
        if let Some(checked) = check_slot(&subject, file, partitions, &signed, expected, report) {
            manifests.push(signed.manifest);
            trusted.get_or_insert(checked);
        }
    }
    esp::check(subject, file, &table, trusted.as_ref(), expected, report);
    if is_cd {
        iso::check(subject, file, &table, trusted.as_ref().map(|(manifest, _)| manifest), report);
    }
    manifests
}

fn partitions<'a>(
    subject: &str,
    table: &'a Table,
    slot: Slot,
    report: &mut Report,
) -> Option<[&'a Partition; 3]> {
    let [root, verity, signature] = slot.names().map(|name| table.named(name).ok_or(name));
    let found = (|| Ok([root?, verity?, signature?]))();
    found
        .map_err(|name: &str| report.add(subject, "partitions", Err(format!("there is no single `{name}`"))))
        .ok()
}

/// Checks a slot that holds an image, and gives its manifest if that is to be believed, with who signed its root hash for the kernel.
fn check_slot(
    subject: &str,
    file: &File,
    [root, verity, signature]: [&Partition; 3],
    signed: &Signed,
    expected: &Expected,
    report: &mut Report,
) -> Option<(Manifest, Option<Certificate>)> {
    let Some(manifest) = files::manifest(subject, &signed.manifest, &signed.signature, expected, report)
    else {
        report.skip(subject, "root file system", "its digests are in the manifest, and that is not trusted");
        return None;
    };
    let root_hash: Sha256 = manifest.root.root_hash.parse().expect("a parsed manifest has a root hash");
    let beside = match signed.root_hash == manifest.root.root_hash {
        true => Ok(root_hash.to_string()),
        false => Err(format!("the partition says {}, the manifest {root_hash}", signed.root_hash)),
    };
    report.add(subject, "root hash of the signature partition", beside);
    let signer = files::root_hash(
        subject,
        root_hash,
        &signed.root_hash_signature,
        Some(&signed.fingerprint),
        expected,
        report,
    );
    report.add(
        subject,
        "partition types and UUIDs",
        identities([root, verity, signature], &manifest, root_hash),
    );
    root_and_tree(subject, root.region(file), verity.region(file), &manifest, report);
    Some((manifest, signer))
}

/// Checks a root file system and its tree against a believed manifest.
pub(super) fn root_and_tree(
    subject: &str,
    root: Region<'_>,
    verity: Region<'_>,
    manifest: &Manifest,
    report: &mut Report,
) {
    let root_hash: Sha256 = manifest.root.root_hash.parse().expect("a parsed manifest has a root hash");
    let salt = from_hex(&manifest.root.salt).expect("a parsed manifest has a salt");
    report.add(subject, "verity superblock", superblock(verity, manifest, &salt));
    let tree = match compute(root, manifest, &salt) {
        Ok(tree) => tree,
        Err(reason) => {
            report.add(subject, "root hash", Err(reason));
            return;
        }
    };
    let stored = stored_tree(verity, &tree);
    report.add(subject, "root hash", same_root(&tree, root_hash, stored.as_deref().ok()));
    report.add(subject, "hash tree", same_tree(&tree, root_hash, stored));
}

fn identities(partitions: [&Partition; 3], manifest: &Manifest, root_hash: Sha256) -> Result<String, String> {
    let (kinds, uuids) = (types(manifest.architecture), slot_uuids(root_hash));
    for ((partition, kind), uuid) in partitions.into_iter().zip(kinds).zip(uuids) {
        if partition.kind.to_string() != kind {
            return Err(format!("{} has the type {}, not {kind}", partition.name, partition.kind));
        }
        if partition.uuid != uuid {
            return Err(format!("{} has the UUID {}, not {uuid}", partition.name, partition.uuid));
        }
    }
    Ok("as the root hash has them".to_owned())
}

fn superblock(partition: Region<'_>, manifest: &Manifest, salt: &[u8]) -> Result<String, String> {
    let mut bytes = [0; SUPERBLOCK_BYTES];
    partition.read_exact_at(&mut bytes, 0).map_err(|error| format!("cannot read it: {error}"))?;
    let superblock = Superblock::from_bytes(&bytes).map_err(|error| error.to_string())?;
    if superblock.salt != salt {
        return Err("its salt is not the manifest's".to_owned());
    }
    if superblock.data_blocks != manifest.root.data_blocks {
        return Err(format!(
            "it covers {} blocks, the manifest says {}",
            superblock.data_blocks, manifest.root.data_blocks
        ));
    }
    Ok(format!("{} blocks", superblock.data_blocks))
}

fn compute(root: Region<'_>, manifest: &Manifest, salt: &[u8]) -> Result<Tree, String> {
    let bytes = manifest.root.data_blocks.checked_mul(BLOCK_BYTES).filter(|bytes| *bytes <= root.length());
    let bytes = bytes
        .ok_or_else(|| format!("{} blocks are more than the partition has", manifest.root.data_blocks))?;
    verity::hash(root.first(bytes), salt).map_err(|error| chain(&error))
}

fn stored_tree(partition: Region<'_>, computed: &Tree) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; computed.bytes().len()];
    partition.read_exact_at(&mut bytes, verity::HASH_START_BLOCK * BLOCK_BYTES)?;
    Ok(bytes)
}

/// Compares the recomputed root hash with the signed one; the stored tree helps to say which block is to blame.
fn same_root(tree: &Tree, root_hash: Sha256, stored: Option<&[u8]>) -> Result<String, String> {
    if tree.root_hash() == root_hash {
        return Ok(format!("{root_hash}, recomputed from {} blocks", tree.data_blocks()));
    }
    let place = match stored.and_then(|stored| verity::first_difference(tree, stored)) {
        Some(Difference::DataBlock(block)) => format!("; data block {block} differs first"),
        _ => String::new(),
    };
    Err(format!("the data has {}, the manifest says {root_hash}{place}", tree.root_hash()))
}

fn same_tree(tree: &Tree, root_hash: Sha256, stored: io::Result<Vec<u8>>) -> Result<String, String> {
    let stored = stored.map_err(|error| format!("cannot read it: {error}"))?;
    if stored == tree.bytes() {
        return Ok(format!("{} bytes", stored.len()));
    }
    if tree.root_hash() != root_hash {
        return Err("it is not the data's".to_owned());
    }
    let first =
        stored.iter().zip(tree.bytes()).position(|(stored, computed)| stored != computed).unwrap_or(0);
    let block = u64::try_from(first).unwrap_or(u64::MAX) / BLOCK_BYTES + verity::HASH_START_BLOCK;
    Err(format!("it is damaged in block {block} of its partition, and the data is sound"))
}
