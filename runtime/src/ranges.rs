//! Id ranges: handed out to one user namespace at a time.
//!
//! Invariant: a range is in use while a file of its name exists, and the file is written before anything uses the
//! range. It lists the containers of that user namespace. Whatever dies in between, a range is handed out again only
//! when its file is gone, or when neither a container folder nor a process is left of those that it lists.
//! Allocation goes round (next-fit), so that a range rests as long as possible before somebody else gets it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::plan::ids::{Range, SIZE};

/// First host id of the first range, as in Docker Desktop.
pub const FIRST: u32 = 100_000;
/// No range starts above: the last ids of the 32-bit space stay clear, -1 among them.
const LAST: u32 = u32::MAX - 2 * SIZE + 1;

/// Why a range could not be had or given back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the store cannot be used.
    #[error("cannot {operation} `{}`", .path.display())]
    Store {
        /// What was to be done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Every range is taken.
    #[error("every id range is in use")]
    Exhausted,
}

/// The store, locked against every other runtime process until dropped.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    _lock: fs::File,
}

/// What is left of the containers of a range.
pub trait Traces {
    /// Whether the folder of container `id` exists.
    fn has_folder(&self, id: &str) -> bool;
    /// Whether a process has an id in the range. "Yes" when it cannot be known.
    fn has_process(&self, range: Range) -> bool;
}

impl Store {
    /// Opens the store in `folder`, which is made when missing, and waits for the lock.
    ///
    /// # Errors
    /// The folder or the lock file cannot be used.
    pub fn lock(folder: &Path) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(store_error("create", folder))?;
        let path = folder.join("lock");
        let lock = fs::File::create(&path).map_err(store_error("open", &path))?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|errno| store_error("lock", &path)(errno.into()))?;
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    /// Hands out a range to container `owner`.
    ///
    /// # Errors
    /// The store cannot be read or written, or every range is taken.
    pub fn allocate(&self, owner: &str, traces: &impl Traces) -> Result<Range, Error> {
        let cursor_path = self.folder.join("cursor");
        let cursor =
            fs::read_to_string(&cursor_path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(FIRST);
        let range = next_free(cursor, |range| self.is_free(range, traces)).ok_or(Error::Exhausted)?;
        self.write(&self.path(range), owner)?;
        self.write(&cursor_path, &after(range.base).to_string())?;
        Ok(range)
    }

    /// Lists container `owner` as one more user of a range that is in use.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn share(&self, range: Range, owner: &str) -> Result<(), Error> {
        let mut owners = self.owners(range);
        owners.push(owner.to_owned());
        self.write(&self.path(range), &owners.join("\n"))
    }

    /// Takes container `owner` off the list, and frees the range when it was the last and no process is left.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn release(&self, range: Range, owner: &str, traces: &impl Traces) -> Result<(), Error> {
        let path = self.path(range);
        if !path.exists() {
            return Ok(());
        }
        let owners: Vec<String> = self.owners(range).into_iter().filter(|listed| listed != owner).collect();
        if owners.is_empty() && !traces.has_process(range) {
            return fs::remove_file(&path).map_err(store_error("remove", &path));
        }
        self.write(&path, &owners.join("\n"))
    }

    /// Frees every range that is booked for nobody: no folder is left of its containers, and no process.
    ///
    /// # Errors
    /// The store cannot be read or changed.
    pub fn release_unused(&self, traces: &impl Traces) -> Result<(), Error> {
        for entry in fs::read_dir(&self.folder).map_err(store_error("read", &self.folder))? {
            let name = entry.map_err(store_error("read", &self.folder))?.file_name();
            // Beside the ranges there are the lock, the cursor, and what a killed process was about to write.
            let Some(base) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            let range = Range { base };
            if self.is_free(range, traces) {
                let path = self.path(range);
                fs::remove_file(&path).map_err(store_error("remove", &path))?;
            }
        }
        Ok(())
    }

    fn is_free(&self, range: Range, traces: &impl Traces) -> bool {
        !self.path(range).exists()
            || (!self.owners(range).iter().any(|owner| traces.has_folder(owner))
                && !traces.has_process(range))
    }

    fn owners(&self, range: Range) -> Vec<String> {
        let text = fs::read_to_string(self.path(range)).unwrap_or_default();
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    fn path(&self, range: Range) -> PathBuf {
        self.folder.join(range.base.to_string())
    }

    /// Writes beside and renames: a reader, or the next process after a crash, sees the old text or the new.
    fn write(&self, path: &Path, text: &str) -> Result<(), Error> {
        let beside = self.folder.join("new");
        fs::write(&beside, text).map_err(store_error("write", &beside))?;
        fs::rename(&beside, path).map_err(store_error("replace", path))
    }
}

/// The first free range from `cursor` on, going round once.
fn next_free(cursor: u32, is_free: impl Fn(Range) -> bool) -> Option<Range> {
    let start = if (FIRST..=LAST).contains(&cursor) && (cursor - FIRST) % SIZE == 0 { cursor } else { FIRST };
    let mut base = start;
    loop {
        if is_free(Range { base }) {
            return Some(Range { base });
        }
        base = after(base);
        if base == start {
            return None;
        }
    }
}

/// The range after `base`, the first after the last.
fn after(base: u32) -> u32 {
    base.checked_add(SIZE).filter(|next| *next <= LAST).unwrap_or(FIRST)
}

fn store_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Store { operation, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Left {
        folders: Vec<&'static str>,
        processes: Vec<u32>,
    }

    impl Traces for Left {
        fn has_folder(&self, id: &str) -> bool {
            self.folders.contains(&id)
        }
        fn has_process(&self, range: Range) -> bool {
            self.processes.contains(&range.base)
        }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::lock(folder.path()).unwrap();
        (folder, store)
    }

    #[test]
    fn the_first_two_containers_get_the_documented_ranges() {
        let (_folder, store) = store();
        assert_eq!(store.allocate("a", &Left::default()).unwrap().base, 100_000);
        assert_eq!(store.allocate("b", &Left::default()).unwrap().base, 165_536);
    }

    #[test]
    fn a_freed_range_rests_before_it_is_handed_out_again() {
        let (_folder, store) = store();
        let first = store.allocate("a", &Left::default()).unwrap();
        store.release(first, "a", &Left::default()).unwrap();
        assert_ne!(store.allocate("b", &Left::default()).unwrap(), first);
        assert!(!store.path(first).exists());
    }

    #[test]
    fn a_shared_range_is_free_when_the_last_container_gives_it_back() {
        let (_folder, store) = store();
        let range = store.allocate("a", &Left::default()).unwrap();
        store.share(range, "b").unwrap();
        store.release(range, "a", &Left::default()).unwrap();
        assert!(store.path(range).exists());
        store.release(range, "b", &Left::default()).unwrap();
        assert!(!store.path(range).exists());
    }

    #[test]
    fn a_range_with_a_process_or_a_folder_is_never_handed_out_again() {
        let (_folder, store) = store();
        let range = store.allocate("a", &Left::default()).unwrap();
        assert!(!store.is_free(range, &Left { folders: vec!["a"], processes: vec![] }));
        assert!(!store.is_free(range, &Left { folders: vec![], processes: vec![range.base] }));
        assert!(store.is_free(range, &Left::default()));
        store.release(range, "a", &Left { folders: vec![], processes: vec![range.base] }).unwrap();
        assert!(store.path(range).exists());
    }

    #[test]
    fn what_is_booked_for_nobody_is_released_and_nothing_else() {
        let (_folder, store) = store();
        let ranges = ["a", "b", "c", "d"].map(|owner| store.allocate(owner, &Left::default()).unwrap());
        store.share(ranges[3], "e").unwrap();
        let left = Left { folders: vec!["b", "e"], processes: vec![ranges[2].base] };
        store.release_unused(&left).unwrap();
        assert_eq!(ranges.map(|range| store.path(range).exists()), [false, true, true, true]);
        store.release_unused(&Left::default()).unwrap();
        assert_eq!(ranges.map(|range| store.path(range).exists()), [false; 4]);
        assert_ne!(store.allocate("f", &Left::default()).unwrap(), ranges[0], "the cursor is kept");
    }

    #[test]
    fn allocation_goes_round_and_keeps_clear_of_both_ends() {
        assert_eq!(after(LAST - (LAST - FIRST) % SIZE), FIRST);
        assert_eq!(next_free(7, |_| true), Some(Range { base: FIRST }));
        assert_eq!(next_free(FIRST + SIZE, |range| range.base == FIRST), Some(Range { base: FIRST }));
        assert_eq!(next_free(FIRST, |_| false), None);
        assert!(u64::from(LAST) + u64::from(SIZE) <= (1 << 32) - u64::from(SIZE));
    }

    #[test]
    fn errors_name_operation_and_file() {
        let error = Store::lock(Path::new("/proc/nothing/here")).unwrap_err();
        assert_eq!(error.to_string(), "cannot create `/proc/nothing/here`");
        assert_eq!(Error::Exhausted.to_string(), "every id range is in use");
    }
}
