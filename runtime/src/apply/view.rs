//! What paths of a bundle really open: looked at once, in the private mount namespace, before anything is mounted.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use eci_contract::paths::ENGINE_DATA;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags, fstat, openat, statx};

use super::error::{Error, call};
use crate::plan::mountinfo::{self, Mount};
use crate::plan::place::{Opened, Table};

/// An opened path (`O_PATH`), and what the kernel says of it.
#[derive(Debug)]
pub struct Source {
    /// The descriptor.
    pub file: OwnedFd,
    /// Mount and real path.
    pub opened: Opened,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// Device and inode.
    pub identity: (u64, u64),
}

impl Source {
    /// Opens `path`, links and all: what counts is where it ends.
    ///
    /// # Errors
    /// It cannot be opened or asked about.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file =
            openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(call("open", path))?;
        let real = real_path(&file, path)?;
        let status = fstat(&file).map_err(call("stat", path))?;
        let extended =
            statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map_err(call("stat", path))?;
        Ok(Self {
            opened: Opened { mount: extended.stx_mnt_id, path: real },
            is_folder: FileType::from_raw_mode(status.st_mode) == FileType::Directory,
            identity: (status.st_dev, status.st_ino),
            file,
        })
    }
}

/// The mount table and the engine's folder.
#[derive(Debug)]
pub struct View {
    mounts: Vec<Mount>,
    /// The engine's folder.
    pub engine: Source,
}

impl View {
    /// Reads the table.
    ///
    /// # Errors
    /// `/proc` or the engine's folder cannot be read.
    pub fn take() -> Result<Self, Error> {
        let path = Path::new("/proc/self/mountinfo");
        // A folder that was renamed to what is no text stays in there as bytes.
        let text = fs::read(path).map_err(call("read", path))?;
        Ok(Self {
            mounts: mountinfo::parse(&String::from_utf8_lossy(&text)),
            engine: Source::open(Path::new(ENGINE_DATA))?,
        })
    }

    /// The table, to locate sources with.
    #[must_use]
    pub fn table(&self) -> Table<'_> {
        Table { mounts: &self.mounts, engine: &self.engine.opened }
    }
}

/// The path that the kernel has for an open file.
///
/// # Errors
/// `/proc` has no such link, or the path is not text.
pub fn real_path(file: impl AsFd, named: &Path) -> Result<String, Error> {
    let link = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let real = fs::read_link(link).map_err(call("find the real path of", named))?;
    real.into_os_string().into_string().map_err(|path| Error::NotText { path: path.into() })
}
