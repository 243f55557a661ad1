//! Putting a staged update into the slot that is not booted.

use std::fs::{self, File};
use std::path::Path;

use eci_contract::disk::{BootCount, Slot};
use eci_contract::manifest::Manifest;

use super::Error;
use super::stage::PARTITIONS;
use crate::image::digest::{Sha256, from_hex};
use crate::image::disk::{self, Partition};
use crate::image::manifest;
use crate::image::verity::{self, BLOCK_BYTES};
use crate::instance::artifacts::Artifacts;
use crate::instance::home::{Home, Lock, UpdateLock};
use crate::instance::own_disk::{self, OwnDisk, failed, place_files, remove_folder};
use crate::ui::Ui;

/// Puts the staged update in, if there is one, and gives its version. `built` is the folder that the instance boots while it has no
/// disk of its own. Cut off at any moment, it is done again by the next call.
///
/// # Errors
/// [`Error`]; the instance boots what it booted before.
pub fn apply(
    home: &Home,
    held: &Lock,
    _updating: &UpdateLock,
    built: &Path,
    ui: &Ui,
) -> Result<Option<String>, Error> {
    let next = home.next();
    if !next.exists() {
        return Ok(None);
    }
    let stage = ui.stage("update");
    let path = next.join(manifest::FILE);
    let bytes = fs::read(&path).map_err(failed("read", &path))?;
    let update =
        manifest::parse(&bytes).map_err(|source| Error::Manifest { folder: next.clone(), source })?;
    let own = match OwnDisk::of(home) {
        Some(own) => own,
        None => OwnDisk::make(home, held, &Artifacts::check(built)?)?,
    };
    let slot = free_slot(&own)?;
    // Whatever is in the slot is overwritten from here on.
    own.change(|table| table.set_count(slot, BootCount::NEVER))?;
    write(&own, slot, &next, &update)?;
    place_files(&next, &home.slot(slot), &update)?;
    own.change(|table| {
        table.set_uuids(slot, disk::slot_uuids(root_hash(&update)))?;
        table.set_count(slot.other(), BootCount::SECOND)?;
        table.set_count(slot, BootCount::ON_TRIAL)
    })?;
    remove_folder(&next)?;
    stage.done(&format!("version {} in slot {slot}, on trial", update.version));
    Ok(Some(update.version))
}

/// The slot that does not hold the version to fall back to.
fn free_slot(own: &OwnDisk) -> Result<Slot, Error> {
    let none = || own_disk::Error::NoSlot { path: own.path().to_owned() };
    Ok(own_disk::proven(&own.table()?).ok_or_else(none)?.other())
}

/// Writes the three partitions and reads them back.
fn write(own: &OwnDisk, slot: Slot, next: &Path, update: &Manifest) -> Result<(), Error> {
    let file = own.open()?;
    let table = own.table()?;
    let [root_name, ..] = slot.names();
    let mut root = None;
    for (name, content) in slot.names().into_iter().zip(PARTITIONS) {
        let problem = |problem| Error::Partition { path: own.path().to_owned(), name, problem };
        let mut entries = table.entries.values().filter(|entry| entry.name == name);
        let partition = entries.next().map(disk::partition).ok_or_else(|| problem("is not there"))?;
        let path = next.join(content);
        let content = File::open(&path).map_err(failed("read", &path))?;
        if content.metadata().map_err(failed("read", &path))?.len() > partition.length {
            return Err(problem("is smaller than the update's"));
        }
        disk::fill(&file, &partition, content, own.path())?;
        root = root.or(Some(partition));
    }
    file.sync_all().map_err(failed("write", own.path()))?;
    let missing =
        || Error::Partition { path: own.path().to_owned(), name: root_name, problem: "is not there" };
    read_back(own, slot, &file, &root.ok_or_else(missing)?, update)
}

/// Computes the root hash from what is on the disk now.
fn read_back(
    own: &OwnDisk,
    slot: Slot,
    file: &File,
    root: &Partition,
    update: &Manifest,
) -> Result<(), Error> {
    let salt = from_hex(&update.root.salt).expect("a parsed manifest has a salt");
    let wanted = root_hash(update);
    let found = verity::hash(root.region(file).first(update.root.data_blocks * BLOCK_BYTES), &salt);
    let found = found.map_or_else(|error| error.to_string(), |tree| tree.root_hash().to_string());
    if found == wanted.to_string() {
        return Ok(());
    }
    Err(Error::ReadBack { path: own.path().to_owned(), slot, wanted: wanted.to_string(), found })
}

fn root_hash(manifest: &Manifest) -> Sha256 {
    manifest.root.root_hash.parse().expect("a parsed manifest has a root hash")
}
