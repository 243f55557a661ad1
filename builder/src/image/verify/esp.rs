//! Checks of the EFI system partition: it holds the unified kernel image that the manifest names, and nothing else.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use eci_contract::disk::{ESP_NAME, ESP_TYPE};
use eci_contract::manifest::Manifest;

use super::super::digest::Sha256;
use super::super::disk::{self, Partition, Table};
use super::super::esp::{self, Esp};
use super::super::region::Region;
use super::super::secure_boot::Certificate;
use super::super::uki;
use super::{Expected, Report, chain, files};

/// Checks the partition of a disk whose slots hold the manifest `trusted`, beside who signed its root hash.
pub(super) fn check(
    subject: &str,
    file: &File,
    table: &Table,
    trusted: Option<&(Manifest, Option<Certificate>)>,
    expected: &Expected,
    report: &mut Report,
) {
    let subject = format!("{subject} EFI system partition");
    let Some((manifest, signer)) = trusted else {
        report.skip(&subject, "all", "its digest is in the manifest, and that is not trusted");
        return;
    };
    let Some(partition) = table.named(ESP_NAME) else {
        report.add(&subject, "partitions", Err(format!("there is no single `{ESP_NAME}`")));
        return;
    };
    let root_hash: Sha256 = manifest.root.root_hash.parse().expect("a parsed manifest has a root hash");
    report.add(&subject, "partition types and UUIDs", identity(partition, root_hash));
    let region = partition.region(file);
    let image = esp::read_file(region).map_err(|error| format!("cannot read it: {error}"));
    let outcome = image.as_ref().map_err(Clone::clone);
    let outcome = outcome.and_then(|image| files::uki_digest(image, &manifest.uki));
    let (Ok(image), true) = (image, report.add(&subject, "unified kernel image", outcome)) else { return };
    files::signature(&subject, &image, signer.as_ref(), expected, report);
    report.add(&subject, "kernel and initrd in it", parts(&image, manifest));
    report.add(&subject, "rest of the partition", rest(&image, manifest, root_hash, partition, region));
}

fn identity(partition: &Partition, root_hash: Sha256) -> Result<String, String> {
    let uuid = disk::esp_uuid(root_hash);
    if partition.kind.to_string() != ESP_TYPE {
        return Err(format!("it has the type {}, not {ESP_TYPE}", partition.kind));
    }
    if partition.uuid != uuid {
        return Err(format!("it has the UUID {}, not {uuid}", partition.uuid));
    }
    Ok("as the root hash has them".to_owned())
}

fn parts(image: &[u8], manifest: &Manifest) -> Result<String, String> {
    let parts = uki::read(image).map_err(|error| chain(&error))?;
    for (name, part, named) in
        [("kernel", parts.linux, &manifest.kernel), ("initrd", parts.initrd, &manifest.initrd)]
    {
        let digest = Sha256::of(&[part]).to_string();
        if digest != named.sha256 {
            return Err(format!("its {name} has sha256 {digest}, the manifest says {}", named.sha256));
        }
    }
    Ok("the manifest's".to_owned())
}

/// Compares the partition with the one that a build makes around the image.
fn rest(
    image: &[u8],
    manifest: &Manifest,
    root_hash: Sha256,
    partition: &Partition,
    region: Region<'_>,
) -> Result<String, String> {
    let place = (partition.start, partition.length);
    let made = Esp::new(manifest.architecture, image, disk::esp_volume(root_hash), place);
    let made = made.map_err(|error| error.to_string())?;
    match first_difference(made.reader(), region.reader()) {
        Ok(None) => Ok(format!("/{} and nothing else", esp::boot_path(manifest.architecture))),
        Ok(Some(at)) => Err(format!("byte {at} of it is not as it was built")),
        Err(error) => Err(format!("cannot read it: {error}")),
    }
}

/// Position of the first byte that differs; the shorter of the two ends there.
pub(super) fn first_difference(one: impl Read, two: impl Read) -> io::Result<Option<u64>> {
    let (mut one, mut two) = (BufReader::with_capacity(1 << 16, one), BufReader::with_capacity(1 << 16, two));
    let mut position = 0;
    loop {
        let (left, right) = (one.fill_buf()?, two.fill_buf()?);
        let count = left.len().min(right.len());
        if left[..count] != right[..count] {
            let index = left.iter().zip(right).position(|(left, right)| left != right).unwrap_or(0);
            return Ok(Some(position + u64::try_from(index).unwrap_or(u64::MAX)));
        }
        if count == 0 {
            return Ok((left.len() != right.len()).then_some(position));
        }
        one.consume(count);
        two.consume(count);
        position += u64::try_from(count).unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_found_across_buffers() {
        let one = vec![1; 100_000];
        let mut two = one.clone();
        let differ = |one: &[u8], two: &[u8]| first_difference(one, two).expect("memory reads");
        assert_eq!(differ(&one, &two), None);
        two[99_999] = 2;
        assert_eq!(differ(&one, &two), Some(99_999));
        assert_eq!(differ(&one, &one[..70_000]), Some(70_000));
        let pieces = (&one[..7]).chain(&one[7..]);
        assert_eq!(first_difference(pieces, one.as_slice()).expect("memory reads"), None);
    }
}
