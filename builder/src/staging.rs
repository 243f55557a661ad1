//! Artifacts are written beside their place and renamed into it, so that no half-written one ever stands there.
//!
//! An interrupted run leaves a folder that is named for its process (`.NAME.staging-PID`); the next run that makes one of
//! the same prefix removes those whose process is gone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

/// Why staging failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target has no parent folder or no name.
    #[error("`{}` is not a place to write to", .path.display())]
    BadTarget {
        /// The path as given.
        path: PathBuf,
    },
    /// A folder cannot be made.
    #[error("cannot make the folder `{}`", .path.display())]
    Create {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A finished file cannot be renamed into place.
    #[error("cannot put `{}` in place", .path.display())]
    Place {
        /// The final path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder's place has something else.
    #[error("`{}` is no folder, and one comes in its place: move it away", .path.display())]
    NotAFolder {
        /// The final path.
        path: PathBuf,
    },
    /// The folder to be replaced has what was not made for it.
    #[error("`{}` would be lost: its folder is replaced as a whole, and this was not made for it: move it out", .path.display())]
    InTheWay {
        /// What would be lost.
        path: PathBuf,
    },
}

/// A folder of this process, removed with everything in it when it is dropped.
#[derive(Debug)]
pub struct WorkFolder {
    path: PathBuf,
}

impl WorkFolder {
    /// Makes the empty folder `PREFIX-PID` in `parent`, and removes those that dead processes left there.
    ///
    /// # Errors
    /// [`Error::Create`].
    pub fn inside(parent: &Path, prefix: &str) -> Result<Self, Error> {
        let prefix = format!("{prefix}-");
        remove_abandoned(parent, &prefix);
        let path = parent.join(format!("{prefix}{}", process::id()));
        // A folder of our own process id can only be left from an earlier process of that number.
        drop(fs::remove_dir_all(&path));
        make(&path)?;
        Ok(Self { path })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        // Best effort: what stays is named for its process, and removed by the next run.
        drop(fs::remove_dir_all(&self.path));
    }
}

/// A folder beside `target` in which files, and folders of files, are finished before any of them appears in `target`.
#[derive(Debug)]
pub struct Staging {
    target: PathBuf,
    folder: WorkFolder,
}

impl Staging {
    /// Makes an empty staging folder on the same file system as `target`, and `target` itself.
    ///
    /// # Errors
    /// [`Error::BadTarget`] and [`Error::Create`].
    pub fn beside(target: &Path) -> Result<Self, Error> {
        let bad = || Error::BadTarget { path: target.to_owned() };
        let name = target.file_name().ok_or_else(bad)?.to_string_lossy().into_owned();
        let parent = match target.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Err(bad()),
        };
        make(target)?;
        let folder = WorkFolder::inside(parent, &format!(".{name}.staging"))?;
        Ok(Self { target: target.to_owned(), folder })
    }

    /// Where to write a file of this name.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Flushes every staged file to disk and renames it into the target folder. A folder comes in the place of one of that name, which is
    /// removed when all is in place. Nothing is changed where that one has names that the staged one has not.
    ///
    /// # Errors
    /// [`Error::NotAFolder`] and [`Error::InTheWay`] before anything is changed; [`Error::Place`]: what was placed before the failing one
    /// stays, each whole.
    pub fn place(self) -> Result<(), Error> {
        let mut names = Vec::new();
        let folder = self.folder.path();
        for entry in fs::read_dir(folder).map_err(cannot_place(folder))? {
            let entry = entry.map_err(cannot_place(folder))?;
            names.push(entry.file_name());
        }
        names.sort();
        for name in &names {
            let staged = folder.join(name);
            refuse_losses(&staged, &self.target.join(name))?;
            flush(&staged).map_err(cannot_place(&staged))?;
        }
        for name in &names {
            let (staged, place) = (folder.join(name), self.target.join(name));
            let renamed = if staged.is_dir() && place.is_dir() {
                exchange(&staged, &place)
            } else {
                fs::rename(staged, &place)
            };
            renamed.map_err(cannot_place(&place))?;
        }
        // What was there before goes with the staging folder, so what is there now comes first.
        fs::File::open(&self.target).and_then(|target| target.sync_all()).map_err(cannot_place(&self.target))
    }
}

fn cannot_place(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Place { path, source }
}

/// Refuses a staged folder in whose place there is something that it would not replace, but take away.
fn refuse_losses(staged: &Path, place: &Path) -> Result<(), Error> {
    if !staged.is_dir() {
        return Ok(());
    }
    match fs::symlink_metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot_place(place)(error)),
        Ok(there) if !there.is_dir() => return Err(Error::NotAFolder { path: place.to_owned() }),
        Ok(_) => {}
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(place).map_err(cannot_place(place))? {
        entries.push(entry.map_err(cannot_place(place))?.file_name());
    }
    entries.sort();
    for name in entries {
        let (made, there) = (staged.join(&name), place.join(&name));
        if there.is_dir() != made.is_dir() || !made.exists() {
            return Err(Error::InTheWay { path: there });
        }
    }
    Ok(())
}

/// Has two folders change places, at once where the file system can.
fn exchange(staged: &Path, place: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, staged, CWD, place, RenameFlags::EXCHANGE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => exchange_by_steps(staged, place),
        exchanged => Ok(exchanged?),
    }
}

/// The same by three renames. A cut leaves the older one beside its place, where no other run removes it.
fn exchange_by_steps(staged: &Path, place: &Path) -> io::Result<()> {
    let aside = place.with_extension("before");
    fs::rename(place, &aside)?;
    fs::rename(staged, place).inspect_err(|_| {
        // Best effort: the error that is returned says what is wrong.
        drop(fs::rename(&aside, place));
    })?;
    fs::rename(aside, staged)
}

fn flush(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            flush(&entry?.path())?;
        }
    }
    fs::File::open(path)?.sync_all()
}

fn make(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| Error::Create { path: path.to_owned(), source })
}

/// Takes a folder away at once, if it is there: who looks sees all of it or nothing. What a cut leaves, the
/// next call takes away.
///
/// # Errors
/// What the system said; the folder is there then, or is not.
pub fn discard(folder: &Path) -> io::Result<()> {
    let bad = || io::Error::from(io::ErrorKind::InvalidInput);
    let (parent, name) = (folder.parent().ok_or_else(bad)?, folder.file_name().ok_or_else(bad)?);
    // Not the name of a folder that is being made in its place.
    let prefix = format!(".{}.gone-", name.to_string_lossy());
    remove_abandoned(parent, &prefix);
    if folder.is_file() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let aside = parent.join(format!("{prefix}{}", process::id()));
    match fs::rename(folder, &aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    fs::File::open(parent)?.sync_all()?;
    fs::remove_dir_all(aside)
}

/// Removes folders of processes that no longer exist; best effort, for they only take space.
fn remove_abandoned(parent: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(prefix)) else { continue };
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_appear_only_when_placed_and_replace_older_ones() {
        let home = tempfile::tempdir().expect("temporary folder");
        let target = home.path().join("out");
        fs::create_dir(&target).expect("out");
        fs::write(target.join("a"), "old").expect("old artifact");
        let staging = Staging::beside(&target).expect("staging");
        fs::write(staging.path("a"), "new").expect("staged file");
        assert_eq!(fs::read_to_string(target.join("a")).expect("still there"), "old");
        staging.place().expect("placed");
        assert_eq!(fs::read_to_string(target.join("a")).expect("placed"), "new");
        assert_eq!(fs::read_dir(home.path()).expect("listing").count(), 1, "no staging folder is left");
    }

    fn stage_folder(target: &Path, text: &str) -> Staging {
        let staging = Staging::beside(target).expect("staging");
        fs::create_dir(staging.path("apple")).expect("folder");
        fs::write(staging.path("apple").join("disk"), text).expect("staged file");
        fs::write(staging.path("a"), text).expect("staged file");
        staging
    }

    fn entries(path: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("entry").file_name();
        let names = fs::read_dir(path).expect("listing").map(name);
        let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_appears_whole_in_the_place_of_an_older_one() {
        let home = tempfile::tempdir().expect("temporary folder");
        let target = home.path().join("out");
        for made in ["old", "new"] {
            stage_folder(&target, made).place().expect("placed");
            assert_eq!(fs::read_to_string(target.join("apple/disk")).expect("placed"), made);
        }
        assert_eq!(
            (entries(home.path()), entries(&target)),
            (vec!["out".into()], vec!["a".into(), "apple".into()])
        );
        assert_eq!(entries(&target.join("apple")), ["disk"]);
    }

    #[test]
    fn the_older_folder_is_there_until_all_is_in_place() {
        let home = tempfile::tempdir().expect("temporary folder");
        let (staged, place) = (home.path().join("staged"), home.path().join("place"));
        let text = |folder: &Path| fs::read_to_string(folder.join("disk")).expect("there");
        for (made, folder) in [("new", &staged), ("old", &place)] {
            fs::create_dir(folder).expect("folder");
            fs::write(folder.join("disk"), made).expect("file");
        }
        exchange(&staged, &place).expect("exchanged");
        assert_eq!((text(&staged), text(&place)), ("old".into(), "new".into()));
        exchange_by_steps(&staged, &place).expect("exchanged");
        assert_eq!((text(&staged), text(&place)), ("new".into(), "old".into()));
        fs::remove_dir_all(&staged).expect("removed");
        exchange_by_steps(&staged, &place).expect_err("nothing is staged");
        assert_eq!((entries(home.path()), text(&place)), (vec!["place".into()], "old".into()));
    }

    #[test]
    fn what_was_not_made_is_refused_by_name_and_nothing_is_changed() {
        let home = tempfile::tempdir().expect("temporary folder");
        let target = home.path().join("out");
        let refused = |text: &str| {
            let error = stage_folder(&target, "new").place().expect_err("refused").to_string();
            assert_eq!(error, format!("`{}/{text}", target.display()));
            assert_eq!(fs::read_to_string(target.join("a")).expect("still there"), "old");
        };
        stage_folder(&target, "old").place().expect("placed");
        fs::create_dir(target.join("apple/state")).expect("folder");
        fs::write(target.join("apple/state/data.raw"), "data").expect("file");
        refused(
            "apple/state` would be lost: its folder is replaced as a whole, and this was not made for it: move it out",
        );
        assert_eq!(entries(&target.join("apple")), ["disk", "state"]);

        fs::remove_dir_all(target.join("apple")).expect("removed");
        fs::write(target.join("apple"), "file").expect("file");
        refused("apple` is no folder, and one comes in its place: move it away");
        discard(&target.join("apple")).expect_err("no folder");
        assert_eq!(fs::read_to_string(target.join("apple")).expect("still there"), "file");
    }

    #[test]
    fn a_staging_folder_of_a_dead_process_is_removed() {
        let home = tempfile::tempdir().expect("temporary folder");
        // Process ids end at 4194304 on Linux, so no process has this one.
        let abandoned = home.path().join(".out.staging-4194999");
        fs::create_dir(&abandoned).expect("abandoned folder");
        drop(Staging::beside(&home.path().join("out")).expect("staging"));
        assert!(!abandoned.exists());
    }

    #[test]
    fn a_folder_is_discarded_whole_with_what_a_cut_left_of_another() {
        let home = tempfile::tempdir().expect("temporary folder");
        let (next, cut) = (home.path().join("next"), home.path().join(".next.gone-4194999"));
        for folder in [&next, &cut] {
            fs::create_dir(folder).expect("folder");
            fs::write(folder.join("root"), "").expect("file");
        }
        // One that is made for its place stays.
        let made = WorkFolder::inside(home.path(), ".next").expect("made");
        fs::write(made.path().join("root"), "").expect("file");
        discard(&next).expect("there");
        discard(&next).expect("gone already");
        assert!(made.path().join("root").exists());
        drop(made);
        assert_eq!(fs::read_dir(home.path()).expect("listing").count(), 0);
    }
}
