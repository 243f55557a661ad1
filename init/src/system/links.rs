//! Volumes and layers are mounts of their own on which no link is followed, by the engine and by whoever else is root in the VM.
//!
//! Why: the engine reads, fills and empties both as root and by names, while containers that it does not know of may put links in its way: one that
//! shares a volume, or that was handed a folder of another's root filesystem (`SCM_RIGHTS`), paused and ended ones included. Containers
//! follow links as everywhere: the runtime takes this off what they get.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;

use eci_contract::paths::{ENGINE_LAYER_NAMES, ENGINE_LAYERS, ENGINE_VOLUMES};
use eci_sys::mounts::{MountAttributes, NO_LINKS, PRIVATE, SHARED, set_attributes};
use rustix::mount::mount_bind;

/// A folder of the engine's that is mounted on itself.
struct Folder {
    path: &'static str,
    /// As the engine makes it.
    mode: u32,
    follows_links: bool,
    why: &'static str,
}

/// In this order: the last is on the one before.
const FOLDERS: &[Folder] = &[
    Folder {
        path: ENGINE_VOLUMES,
        mode: 0o701,
        follows_links: false,
        why: "a new volume is filled with what the image has at its place",
    },
    Folder {
        path: ENGINE_LAYERS,
        mode: 0o710,
        follows_links: false,
        why: "a commit reads a container's layer, and a build the layers of its stages",
    },
    Folder {
        path: ENGINE_LAYER_NAMES,
        mode: 0o700,
        follows_links: true,
        why: "the engine's own links, short names of layers for overlays of many; no container sees them",
    },
];

/// Why links would be followed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} `{path}`, where {why}")]
pub struct Error {
    operation: &'static str,
    path: &'static str,
    why: &'static str,
    source: io::Error,
}

/// Mounts the folders on themselves. The data disk is there.
///
/// # Errors
/// When a folder cannot be made, or mounted so.
pub fn follow_none() -> Result<(), Error> {
    FOLDERS.iter().try_for_each(mount_on_itself)
}

fn mount_on_itself(folder: &Folder) -> Result<(), Error> {
    let Folder { path, mode, follows_links, why } = folder;
    let failed = |operation| move |source| Error { operation, path, why, source };
    let made = fs::DirBuilder::new().mode(*mode).recursive(true).create(path);
    made.map_err(failed("make the folder"))?;
    mount_bind(*path, *path).map_err(io::Error::from).map_err(failed("mount"))?;
    let root = File::open(path).map_err(failed("open"))?;
    let (set, clear) = if *follows_links { (0, NO_LINKS) } else { (NO_LINKS, 0) };
    // With peers of its own: what is mounted here must not be mounted on what it covers as well.
    for propagation in [PRIVATE, SHARED] {
        let attributes = MountAttributes { set, clear, propagation, ..MountAttributes::default() };
        set_attributes(root.as_fd(), &attributes).map_err(failed("follow no links in"))?;
    }
    Ok(())
}
