//! A container's own folder, from `create` to `delete`.
//!
//! It holds the bundle that crun gets (`bundle/config.json`), the mount point of the root filesystem (`root`), the range
//! (`range`), the device number of that filesystem (`device`, for the gate), who made it (`birth`), and what its figures are
//! counted from (`figures.json`). The folder is on a tmpfs: it does not outlive the VM's boot, as no container does.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use eci_contract::paths::{CONTAINERS_DIR, PROCFS_DIR, RANGES_DIR};

use crate::leftovers::{self, Birth};
use crate::plan::ids::Range;
use crate::processes;
use crate::ranges::{self, Store, Traces};

/// Mode of folders that a container's root passes through on the way to its mounts: no listing, no reading.
const PASS_THROUGH: u32 = 0o711;

/// Why a container's folder could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be used.
    #[error("cannot {operation} `{}`", .path.display())]
    Folder {
        /// What was to be done.
        operation: &'static str,
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The container is there already.
    #[error("container `{id}` exists already")]
    Exists {
        /// Its id.
        id: String,
    },
    /// Its range.
    #[error(transparent)]
    Ranges(#[from] ranges::Error),
}

/// The folder of a container.
#[derive(Debug)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// The folder.
    pub folder: PathBuf,
}

/// Where the range of a new container comes from.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// One of its own.
    New,
    /// Another container's, whose user namespace it joins.
    Shared(Range),
}

impl Container {
    /// Names the folder of container `id`, which need not exist.
    #[must_use]
    pub fn named(id: &str) -> Self {
        Self { id: id.to_owned(), folder: Path::new(CONTAINERS_DIR).join(id) }
    }

    /// Mount point of the root filesystem.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// The bundle that crun gets.
    #[must_use]
    pub fn bundle(&self) -> PathBuf {
        self.folder.join("bundle")
    }

    /// Folder of the files that `eci-procfs` keeps for it, on a file system of their own.
    #[must_use]
    pub fn figures(&self) -> PathBuf {
        Path::new(PROCFS_DIR).join(&self.id)
    }

    /// Makes the folder and books the range, as one step under the lock. What a crashed predecessor of the same id
    /// left is given back first, and what others have abandoned.
    ///
    /// # Errors
    /// The container exists, or folder or range cannot be had.
    pub fn establish(&self, wanted: Wanted, birth: &Birth) -> Result<Range, Error> {
        let store = Store::lock(Path::new(RANGES_DIR))?;
        let containers = Path::new(CONTAINERS_DIR);
        leftovers::sweep(&self.id, |left| left.dissolve_locked(&store))
            .map_err(folder_error("read", containers))?;
        if self.folder.exists() {
            if birth.state().exists() {
                return Err(Error::Exists { id: self.id.clone() });
            }
            if let Some(predecessor) = Birth::read(self) {
                predecessor.clear_cgroup();
            }
            self.dissolve_locked(&store)?;
        }
        // Of containers whose folder went, but whose range did not: the one who took them away was killed in between.
        store.release_unused(&SystemTraces)?;
        for folder in [self.folder.clone(), self.root(), self.bundle()] {
            DirBuilder::new()
                .recursive(true)
                .mode(PASS_THROUGH)
                .create(&folder)
                .map_err(folder_error("create", &folder))?;
        }
        birth.write(self).map_err(folder_error("write to", &self.folder))?;
        let range = match wanted {
            Wanted::New => store.allocate(&self.id, &SystemTraces)?,
            Wanted::Shared(range) => {
                store.share(range, &self.id)?;
                range
            }
        };
        let path = self.range_file();
        fs::write(&path, range.to_map()).map_err(folder_error("write", &path))?;
        Ok(range)
    }

    /// Writes down which file system is its root: the gate has the kernel refresh that one after a copy into the container.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_device(&self, device: u64) -> Result<(), Error> {
        let path = self.folder.join("device");
        fs::write(&path, device.to_string()).map_err(folder_error("write", &path))
    }

    /// Removes the folder and gives the range back; the range stays booked while a process of it lives.
    ///
    /// # Errors
    /// The folder or the store cannot be changed.
    pub fn dissolve(&self) -> Result<(), Error> {
        if !self.folder.exists() {
            return Ok(());
        }
        self.dissolve_locked(&Store::lock(Path::new(RANGES_DIR))?)
    }

    fn dissolve_locked(&self, store: &Store) -> Result<(), Error> {
        let range = fs::read_to_string(self.range_file()).ok().and_then(|text| Range::from_map(&text));
        match fs::remove_dir_all(self.figures()) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(folder_error("remove", &self.figures())(source));
            }
            _ => {}
        }
        fs::remove_dir_all(&self.folder).map_err(folder_error("remove", &self.folder))?;
        match range {
            Some(range) => Ok(store.release(range, &self.id, &SystemTraces)?),
            None => Ok(()),
        }
    }

    fn range_file(&self) -> PathBuf {
        self.folder.join("range")
    }
}

struct SystemTraces;

impl Traces for SystemTraces {
    fn has_folder(&self, id: &str) -> bool {
        Container::named(id).folder.exists()
    }

    fn has_process(&self, range: Range) -> bool {
        processes::any_in(range).unwrap_or(true)
    }
}

fn folder_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Folder { operation, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_of_a_container_is_below_its_folder() {
        let container = Container::named("c1");
        assert!(container.root().starts_with(&container.folder));
        assert!(container.bundle().starts_with("/run/eci/containers/c1"));
    }

    #[test]
    fn errors_name_the_container() {
        assert_eq!(Error::Exists { id: "c1".to_owned() }.to_string(), "container `c1` exists already");
    }
}
