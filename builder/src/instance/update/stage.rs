//! Checking an update and laying it beside the instance's disk, in the folder `next`.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use eci_contract::disk::Slot;
use eci_contract::manifest::Manifest;

use super::Error;
use super::judge::{Verdict, judge};
use crate::image::assemble::KEY_FILE;
use crate::image::signature::PublicKey;
use crate::image::verify::{self, Expected};
use crate::image::{disk, manifest};
use crate::instance::artifacts::Artifacts;
use crate::instance::home::{Home, UpdateLock};
use crate::instance::own_disk::{OwnDisk, copy_files, failed, put_in_place, remove_folder};
use crate::staging::WorkFolder;
use crate::ui::Ui;

/// Files of a staged update with the contents of its three partitions, in the order of [`Slot::names`].
pub(super) const PARTITIONS: [&str; 3] = ["root", "verity", "signature"];

/// What an instance runs, and whose updates it takes.
#[derive(Debug)]
pub struct Present {
    /// Images that booted well; the first is the one that it boots.
    proven: Vec<Manifest>,
    key: PublicKey,
}

impl Present {
    /// Looks at the instance. `built` is the folder that it boots while it has no disk of its own.
    ///
    /// # Errors
    /// [`Error`].
    pub fn of(home: &Home, built: &Path) -> Result<Self, Error> {
        let Some(own) = OwnDisk::of(home) else {
            let artifacts = Artifacts::check(built)?;
            return Ok(Self { key: anchor(&artifacts)?, proven: vec![artifacts.manifest] });
        };
        let mut slots = own.table()?.counts();
        slots.retain(|(_, count)| count.successful);
        slots.sort_by_key(|(_, count)| std::cmp::Reverse(count.priority));
        let artifacts =
            slots.into_iter().map(|(slot, _)| own.artifacts(slot)).collect::<Result<Vec<_>, _>>()?;
        let none = || crate::instance::own_disk::Error::NoSlot { path: own.path().to_owned() };
        let key = anchor(artifacts.first().ok_or_else(none)?)?;
        Ok(Self { key, proven: artifacts.into_iter().map(|artifacts| artifacts.manifest).collect() })
    }
}

/// The key that signed what the instance runs.
fn anchor(artifacts: &Artifacts) -> Result<PublicKey, Error> {
    let none = || Error::NoAnchor { folder: artifacts.folder.clone() };
    let read = |name: &str| fs::read(artifacts.folder.join(name)).map_err(|_| none());
    let key = PublicKey::read(&artifacts.folder.join(KEY_FILE)).map_err(|_| none())?;
    let holds = key.verifies(&read(manifest::FILE)?, &read(manifest::SIGNATURE_FILE)?);
    holds.then_some(key).ok_or_else(none)
}

/// Checks the image in `folder` and stages it, in place of one that was staged before.
///
/// # Errors
/// [`Error`]; what was staged before is still there, but for an error of the last steps.
pub fn stage(
    home: &Home,
    _updating: &UpdateLock,
    present: &Present,
    folder: &Path,
    ui: &Ui,
) -> Result<Verdict, Error> {
    let stage = ui.stage("check");
    let image = Artifacts::check(folder)?;
    let bytes = trusted(&image, present, ui)?;
    let update =
        manifest::parse(&bytes).map_err(|source| Error::Manifest { folder: folder.to_owned(), source })?;
    let verdict = judge(&update, &present.proven)?;
    stage.done(&format!("{} {}, signed by {}", update.name, update.version, present.key.id()));
    let next = home.next();
    if verdict == Verdict::BringIn {
        let stage = ui.stage("copy");
        let work = WorkFolder::inside(home.root(), ".next")?;
        copy(&image, work.path())?;
        remove_folder(&next)?;
        put_in_place(work.path(), &next)?;
        stage.done("");
    } else {
        remove_folder(&next)?;
    }
    Ok(verdict)
}

/// Everything of the image, recomputed; gives the bytes of its manifest.
fn trusted(image: &Artifacts, present: &Present, ui: &Ui) -> Result<Vec<u8>, Error> {
    let flavour = present.proven.first().map_or(image.manifest.flavour, |manifest| manifest.flavour);
    let expected = Expected { key: present.key, certificate: None, flavour };
    let path = image.folder.join(manifest::FILE);
    let mut failed = Vec::new();
    for artifact in [&path, &image.disk] {
        let report = verify::verify(artifact, &expected, ui)?;
        let fails = report.checks.iter().filter(|check| check.verdict == verify::Verdict::Fails);
        failed.extend(fails.map(|check| format!("{}: {}: {}", check.subject, check.check, check.detail)));
        if failed.is_empty() && !report.holds() {
            failed.push(format!("{}: nothing could be checked", artifact.display()));
        }
    }
    let bytes = fs::read(&path).map_err(failed_reading(&path))?;
    if failed.is_empty() && signed_on_disk(&image.disk)? != bytes {
        failed.push("the disk image has another manifest than the one beside it".to_owned());
    }
    if failed.is_empty() { Ok(bytes) } else { Err(Error::Untrusted { folder: image.folder.clone(), failed }) }
}

fn signed_on_disk(path: &Path) -> Result<Vec<u8>, Error> {
    let (file, [.., signature]) = slot_a(path)?;
    let signed = crate::image::signature_partition::read(signature.region(&file));
    Ok(signed.ok().flatten().map(|signed| signed.manifest).unwrap_or_default())
}

/// The three partitions of an image's slot A.
fn slot_a(path: &Path) -> Result<(File, [disk::Partition; 3]), Error> {
    let file = File::open(path).map_err(failed_reading(path))?;
    let table = disk::read(&file, path)?;
    let named = |name| {
        let missing = Error::Partition { path: path.to_owned(), name, problem: "is not there" };
        table.named(name).cloned().ok_or(missing)
    };
    let [root, verity, signature] = Slot::A.names();
    let partitions = [named(root)?, named(verity)?, named(signature)?];
    Ok((file, partitions))
}

fn copy(image: &Artifacts, to: &Path) -> Result<(), Error> {
    let Artifacts { manifest, folder, disk, .. } = image;
    copy_files(folder, to, manifest)?;
    let (file, partitions) = slot_a(disk)?;
    for (name, partition) in PARTITIONS.into_iter().zip(partitions) {
        let path = to.join(name);
        let mut out = File::create(&path).map_err(failed("make", &path))?;
        // Root and tree are zeros from some block on, where the disk has a hole; the manifest says where.
        let content = partition.region(&file).first(length(name, manifest, partition.length));
        io::copy(&mut content.reader(), &mut out).map_err(failed("write", &path))?;
        out.sync_all().map_err(failed("write", &path))?;
    }
    Ok(())
}

/// Bytes of a partition that are not all zeros.
fn length(name: &str, manifest: &Manifest, room: u64) -> u64 {
    let root = &manifest.root;
    let bytes = root.data_blocks.saturating_mul(u64::from(root.data_block_size));
    if name == PARTITIONS[0] { bytes.min(room) } else { room }
}

fn failed_reading(path: &Path) -> impl FnOnce(io::Error) -> crate::instance::own_disk::Error {
    failed("read", path)
}
