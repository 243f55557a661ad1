//! An instance's own disk, which it has from its first update on: two slots, and in a folder for each what boots it.
//!
//! An instance that was never updated has none, and boots the folder of a build.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use eci_contract::disk::{BootCount, Slot};
use eci_contract::manifest::Manifest;
use eci_slots::Table;

use super::artifacts::{self, Artifacts};
use super::home::{Home, Lock};
use crate::image::assemble::KEY_FILE;
use crate::image::{disk, manifest};
use crate::staging;

/// Bytes of a sector of our images.
const SECTOR: u64 = disk::SECTOR;

/// Why an own disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be copied.
    #[error("cannot copy the image")]
    Copy(#[from] disk::Error),
    /// Its partition table cannot be read or changed.
    #[error("the disk `{}`", .path.display())]
    Table {
        /// The disk.
        path: PathBuf,
        /// What is wrong.
        source: eci_slots::Error,
    },
    /// No slot may be booted.
    #[error("no slot of the disk `{}` may be booted", .path.display())]
    NoSlot {
        /// The disk.
        path: PathBuf,
    },
    /// What boots a slot cannot be used.
    #[error(transparent)]
    Artifacts(#[from] artifacts::Error),
    /// A file operation failed.
    #[error("cannot {operation} `{}`", .path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The disk.
#[derive(Clone, Debug)]
pub struct OwnDisk {
    home: Home,
    path: PathBuf,
}

/// A slot that is to be booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Which.
    pub slot: Slot,
    /// Its boot counting bits before the boot.
    pub count: BootCount,
}

impl OwnDisk {
    /// The instance's own disk, if it has one.
    #[must_use]
    pub fn of(home: &Home) -> Option<Self> {
        let path = home.own_disk();
        path.exists().then(|| Self { home: home.clone(), path })
    }

    /// Makes it, a copy of the image that the instance has booted so far, in slot A.
    ///
    /// # Errors
    /// [`Error`]; there is no own disk then.
    pub fn make(home: &Home, _held: &Lock, from: &Artifacts) -> Result<Self, Error> {
        place_files(&from.folder, &home.slot(Slot::A), &from.manifest)?;
        let path = home.own_disk();
        let image = File::open(&from.disk).map_err(failed("read", &from.disk))?;
        let beside = path.with_extension("new");
        remove_file(&beside)?;
        disk::rewrite(&image, Vec::new(), &beside)?;
        File::open(&beside).and_then(|file| file.sync_all()).map_err(failed("write", &beside))?;
        put_in_place(&beside, &path)?;
        Ok(Self { home: home.clone(), path })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it, to read and write.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(&self) -> Result<File, Error> {
        File::options().read(true).write(true).open(&self.path).map_err(failed("open", &self.path))
    }

    /// Its partition table.
    ///
    /// # Errors
    /// [`Error`].
    pub fn table(&self) -> Result<Table, Error> {
        Table::read(&self.open()?, SECTOR).map_err(|source| self.table_error(source))
    }

    /// Changes its partition table.
    ///
    /// # Errors
    /// [`Error`]; the table says what it said before, or what `change` made of it.
    pub fn change(
        &self,
        change: impl FnOnce(&mut Table) -> Result<(), eci_slots::Error>,
    ) -> Result<(), Error> {
        let changed = eci_slots::table::change(&self.open()?, SECTOR, change);
        changed.map_err(|source| self.table_error(source))
    }

    /// The slot that the initramfs will choose, by the same rule.
    ///
    /// # Errors
    /// [`Error::NoSlot`], and when the table cannot be read.
    pub fn chosen(&self) -> Result<Chosen, Error> {
        let chosen = eci_slots::choose(&self.table()?.counts());
        let none = || Error::NoSlot { path: self.path.clone() };
        chosen.map(|(slot, count)| Chosen { slot, count }).ok_or_else(none)
    }

    /// What boots a slot, checked against its manifest.
    ///
    /// # Errors
    /// [`Error::Artifacts`].
    pub fn artifacts(&self, slot: Slot) -> Result<Artifacts, Error> {
        Ok(Artifacts::check_slot(&self.home.slot(slot), &self.path)?)
    }

    fn table_error(&self, source: eci_slots::Error) -> Error {
        Error::Table { path: self.path.clone(), source }
    }
}

/// Puts a copy of what boots an image in the place of a folder. Who looks in between finds no folder.
pub(super) fn place_files(from: &Path, folder: &Path, manifest: &Manifest) -> Result<(), Error> {
    let parent = folder.parent().unwrap_or(folder);
    let beside = folder.with_extension("new");
    fs::create_dir_all(parent).map_err(failed("make", parent))?;
    remove_folder(&beside)?;
    remove_folder(folder)?;
    fs::create_dir(&beside).map_err(failed("make", &beside))?;
    copy_files(from, &beside, manifest)?;
    put_in_place(&beside, folder)
}

/// Renames what is finished to its name, and has the disk keep that: what comes after may rely on it, whenever the power goes.
pub(super) fn put_in_place(finished: &Path, path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(path);
    let sync = |folder: &Path| File::open(folder).and_then(|folder| folder.sync_all());
    if finished.is_dir() {
        sync(finished).map_err(failed("write", finished))?;
    }
    fs::rename(finished, path).map_err(failed("put in place", path))?;
    sync(parent).map_err(failed("write", parent))
}

/// Copies what boots an image, and whose it is, from one folder to another.
pub(super) fn copy_files(from: &Path, to: &Path, manifest: &Manifest) -> Result<(), Error> {
    let names = [&manifest.kernel.file, &manifest.initrd.file].map(String::as_str);
    for name in names.into_iter().chain([manifest::FILE, manifest::SIGNATURE_FILE, KEY_FILE]) {
        let (from, to) = (from.join(name), to.join(name));
        fs::copy(&from, &to).map_err(failed("copy", &from))?;
        File::open(&to).and_then(|file| file.sync_all()).map_err(failed("write", &to))?;
    }
    Ok(())
}

/// The proven slot that goes before the other.
pub(super) fn proven(table: &Table) -> Option<Slot> {
    let proven = table.counts().into_iter().filter(|(_, count)| count.successful);
    proven.max_by_key(|(_, count)| count.priority).map(|(slot, _)| slot)
}

/// Removes a file, if it is there.
pub(super) fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes a folder, if it is there. Cut off at any moment, it is whole or gone.
pub(super) fn remove_folder(folder: &Path) -> Result<(), Error> {
    staging::discard(folder).map_err(failed("remove", folder))
}

pub(super) fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { operation, path, source }
}
