//! What of `/proc` and `/sys` is closed to everyone but the VM's root: the table of hidden paths, by mode.
//!
//! A container's masks end where it mounts a procfs of its own. The kernel keeps the mode of such a file or folder with
//! what it stands for, not with the mount (`proc_notify_change` in fs/proc/generic.c, `__kernfs_setattr` in
//! fs/kernfs/inode.c), so that a change made here is one in each procfs and sysfs that anybody mounts. A container's root is
//! not the VM's, and has no power over a file of the VM's root.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use eci_policy::rules::hidden_path::HIDDEN;

/// Bits of the mode that are taken away.
const OTHERS: u32 = 0o077;

/// A path could not be closed.
#[derive(Debug, thiserror::Error)]
#[error("cannot close {path} to others than root")]
pub struct Error {
    path: &'static str,
    source: io::Error,
}

/// Closes each path that the kernel has.
///
/// # Errors
/// At the first that cannot be closed.
pub fn close() -> Result<(), Error> {
    for (path, mode) in modes() {
        if mode & OTHERS != 0 {
            fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS))
                .map_err(|source| Error { path, source })?;
        }
    }
    Ok(())
}

/// The hidden paths that the kernel has, with their permission bits.
#[must_use]
pub fn modes() -> Vec<(&'static str, u32)> {
    let mode = |path: &str| Some(Path::new(path).metadata().ok()?.permissions().mode() & 0o7777);
    HIDDEN.iter().filter_map(|hidden| Some((hidden.path, mode(hidden.path)?))).collect()
}

/// Those that are open to others.
#[must_use]
pub fn open(modes: &[(&'static str, u32)]) -> Vec<&'static str> {
    modes.iter().filter(|(_, mode)| mode & OTHERS != 0).map(|(path, _)| *path).collect()
}
