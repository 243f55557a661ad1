//! What of `/proc` and `/sys` is closed to everyone but the VM's root: the table of hidden paths, by mode.
//!
//! A container's masks end where it mounts a procfs of its own. The kernel keeps the mode of such a file or folder with
//! what it stands for, not with the mount (`proc_notify_change` in fs/proc/generic.c, `__kernfs_setattr` in
//! fs/kernfs/inode.c), so that a change made here is one in each procfs and sysfs that anybody mounts. A container's root is
//! not the VM's, and has no power over a file of the VM's root.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use eci_policy::rules::hidden_path::HIDDEN;

/// Bits of the mode that are taken away.
const OTHERS: u32 = 0o077;

/// Where the kernel has its tree of devices. What else of `/sys` names hardware links into it.
const DEVICES: &str = "/sys/devices";
/// Its folders that stay open: figures of processors and memory, which programs read, and devices of no hardware.
const OPEN_DEVICES: [&str; 2] = ["system", "virtual"];
/// Settings of the kernel, whose modes it changes for nobody (`proc_sys_setattr` in fs/proc/proc_sysctl.c): masks alone hide one.
const SETTINGS: &str = "/proc/sys/";

/// A path could not be closed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tree of devices cannot be read.
    #[error("cannot read `{DEVICES}`")]
    Devices {
        /// What the kernel said.
        source: io::Error,
    },
    /// The mode cannot be changed.
    #[error("cannot close {path} to others than root")]
    Close {
        /// The path.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Closes each path that the kernel has.
///
/// # Errors
/// At the first that cannot be closed.
pub fn close() -> Result<(), Error> {
    for (path, mode) in modes().map_err(|source| Error::Devices { source })? {
        if mode & OTHERS != 0 {
            fs::set_permissions(&path, Permissions::from_mode(mode & !OTHERS))
                .map_err(|source| Error::Close { path, source })?;
        }
    }
    Ok(())
}

/// The hidden paths that the kernel has, with their permission bits: those of the table, and whatever else hardware is found in, which
/// one platform calls `pci0000:00` and the next `platform`.
///
/// # Errors
/// When the tree of devices cannot be read.
pub fn modes() -> io::Result<Vec<(String, u32)>> {
    let closable = HIDDEN.iter().filter(|hidden| !hidden.path.starts_with(SETTINGS));
    let mut paths: BTreeSet<String> = closable.map(|hidden| hidden.path.to_owned()).collect();
    for entry in fs::read_dir(DEVICES)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !OPEN_DEVICES.contains(&&*name) {
            paths.insert(format!("{DEVICES}/{name}"));
        }
    }
    let mode = |path: &str| Some(Path::new(path).metadata().ok()?.permissions().mode() & 0o7777);
    Ok(paths.into_iter().filter_map(|path| mode(&path).map(|mode| (path, mode))).collect())
}

/// Those that are open to others.
#[must_use]
pub fn open(modes: &[(String, u32)]) -> Vec<&str> {
    modes.iter().filter(|(_, mode)| mode & OTHERS != 0).map(|(path, _)| path.as_str()).collect()
}
