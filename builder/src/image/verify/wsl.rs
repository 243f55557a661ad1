//! Checks of a distro for WSL: its members and nothing else, and each of them what the signed manifest says.

use std::io::Write;
use std::path::Path;

use eci_contract::manifest::Manifest;

use super::super::digest::Sha256;
use super::super::region::Region;
use super::super::wsl::{self, Opened};
use super::{Error, Expected, Report, chain, disk, files};
use crate::rootfs::initrd;

/// Checks an archive and gives its manifest's bytes, if that is to be believed.
pub(super) fn distro(
    subject: &str,
    path: &Path,
    expected: &Expected,
    report: &mut Report,
) -> Result<Option<Vec<u8>>, Error> {
    let opened = match wsl::open(path) {
        Ok(opened) => opened,
        Err(error) => {
            report.add(subject, "members", Err(chain(&error)));
            return Ok(None);
        }
    };
    report.add(subject, "members", Ok(format!("{}, as they are made", wsl::members::MEMBERS.len())));
    let Some(manifest) = files::manifest(subject, &opened.manifest, &opened.signature, expected, report)
    else {
        report.skip(subject, "root file system", "its digests are in the manifest, and that is not trusted");
        return Ok(None);
    };
    report.add(subject, "name", same_name(&opened, &manifest));
    report.add(subject, "PID 1 and key", same_stage(&opened, &manifest));
    let mut tree = tempfile::tempfile().map_err(Error::Scratch)?;
    tree.write_all(&opened.tree).map_err(Error::Scratch)?;
    if let Some(root) = &opened.root {
        let region = |file| Region::whole(file).map_err(Error::Scratch);
        let root = region(root.as_file())?;
        report.add(subject, "sizes", same_sizes(root.length(), &manifest));
        disk::root_and_tree(subject, root, region(&tree)?, &manifest, report);
    }
    Ok(Some(opened.manifest))
}

fn same_name(opened: &Opened, manifest: &Manifest) -> Result<String, String> {
    let name = opened.parts().map_or("", |parts| parts.name);
    if name == manifest.name { Ok(name.to_owned()) } else { Err(format!("`{name}`")) }
}

/// The initrd is made of the same program and the same key, and the manifest has its digest.
fn same_stage(opened: &Opened, manifest: &Manifest) -> Result<String, String> {
    let initrd = initrd::archive(&opened.init, &opened.key).ok_or("PID 1 is larger than 4 GiB")?;
    let digest = Sha256::of(&[&initrd]).to_string();
    if digest == manifest.initrd.sha256 {
        Ok("those of the initrd".to_owned())
    } else {
        Err(format!("they make an initrd with sha256 {digest}, the manifest says {}", manifest.initrd.sha256))
    }
}

fn same_sizes(root: u64, manifest: &Manifest) -> Result<String, String> {
    let blocks = manifest.root.data_blocks;
    if Some(root) == blocks.checked_mul(4096) {
        Ok(format!("{blocks} blocks"))
    } else {
        Err(format!("the root has {root} bytes, the manifest says {blocks} blocks"))
    }
}
