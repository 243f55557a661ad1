//! The private mount namespace, and a small tmpfs in it that hides the appliance's own folder.
//!
//! The tmpfs lies over [`RUN_DIR`]: layers, trees and sources are attached there where a container's root may pass
//! (mode 0711) while crun works, the engine's and PID 1's sockets are out of sight, and everything goes away with
//! the namespace, which ends with crun. Only the container's own folder is carried over, at the same path, and the socket
//! that crun hands a listener to.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use eci_contract::paths::{CONTAINERS_DIR, RUN_DIR};
use eci_sys::mounts;
use rustix::fs::{CWD, Mode, mkdirat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_bind, mount_change,
    move_mount, open_tree, unmount,
};

use super::error::{Error, call};
use crate::plan::ids::Range;

/// Enters a mount namespace that sees what the VM mounts and shows it nothing.
///
/// # Errors
/// The namespace cannot be made.
pub fn enter_private_namespace() -> Result<(), Error> {
    let root = Path::new("/");
    mounts::unshare_mounts().map_err(call("leave the mount namespace of", root))?;
    mount_change(root, MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(call("stop propagation from", root))
}

/// The tmpfs over [`RUN_DIR`].
#[derive(Debug)]
pub struct Scratch {
    count: u32,
}

impl Scratch {
    /// Mounts it, with `container` (a folder below [`CONTAINERS_DIR`]) carried over, and with `socket`, which crun connects to.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn mount(container: &Path, socket: Option<&Path>) -> Result<Self, Error> {
        let carried = clone(CWD, container)?;
        let socket = socket.map(|path| clone(CWD, path).map(|mount| (path, mount))).transpose()?;
        let run = Path::new(RUN_DIR);
        let failed = || call("mount a tmpfs on", run);
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed())?;
        for (key, value) in [("source", "eci"), ("mode", "0711"), ("size", "1m")] {
            fsconfig_set_string(&context, key, value).map_err(failed())?;
        }
        fsconfig_create(&context).map_err(failed())?;
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let tmpfs = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(failed())?;
        attach(tmpfs.as_fd(), run)?;
        for folder in [Path::new(CONTAINERS_DIR), container] {
            make_folder(folder)?;
        }
        attach(carried.as_fd(), container)?;
        if let Some((path, mount)) = socket {
            make_file(path)?;
            attach(mount.as_fd(), path)?;
        }
        Ok(Self { count: 0 })
    }

    /// Attaches a detached mount at a path of its own, and gives the path.
    ///
    /// # Errors
    /// It cannot be attached.
    pub fn attach(&mut self, mount: BorrowedFd<'_>, is_folder: bool) -> Result<PathBuf, Error> {
        let path = self.next_path();
        if is_folder {
            make_folder(&path)?;
        } else {
            make_file(&path)?;
        }
        attach(mount, &path)?;
        Ok(path)
    }

    /// Gives the namespace that `namespace` is a descriptor of a path that stays good over exec.
    ///
    /// # Errors
    /// It cannot be bound.
    pub fn bind_namespace(&mut self, namespace: &OwnedFd) -> Result<PathBuf, Error> {
        let path = self.next_path();
        make_file(&path)?;
        mount_bind(format!("/proc/self/fd/{}", namespace.as_raw_fd()), &path)
            .map_err(call("bind a namespace to", &path))?;
        Ok(path)
    }

    /// Makes a file with this content that belongs to the root of `range`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn file(&mut self, content: &str, range: Range) -> Result<PathBuf, Error> {
        let path = self.next_path();
        fs::write(&path, content).map_err(call("write", &path))?;
        chown(&path, Some(range.base), Some(range.base)).map_err(call("change the owner of", &path))?;
        Ok(path)
    }

    /// Makes an empty folder that belongs to the root of `range`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn folder(&mut self, range: Range) -> Result<PathBuf, Error> {
        let path = self.next_path();
        mkdirat(CWD, &path, Mode::from_raw_mode(0o755)).map_err(call("create", &path))?;
        chown(&path, Some(range.base), Some(range.base)).map_err(call("change the owner of", &path))?;
        Ok(path)
    }

    fn next_path(&mut self) -> PathBuf {
        self.count += 1;
        Path::new(RUN_DIR).join(self.count.to_string())
    }
}

/// Takes the tmpfs away again, so that a failed start can reach what is below it.
///
/// # Errors
/// Nothing is mounted there.
pub fn uncover() -> Result<(), Error> {
    let run = Path::new(RUN_DIR);
    unmount(run, UnmountFlags::DETACH).map_err(call("unmount", run))
}

/// Unmounts what was attached at `path`; users that the kernel still has keep it.
///
/// # Errors
/// Nothing is mounted there.
pub fn detach(path: &Path) -> Result<(), Error> {
    unmount(path, UnmountFlags::DETACH).map_err(call("unmount", path))
}

/// A detached copy of the mount at `path`, from there down, without what is mounted below.
///
/// # Errors
/// The path cannot be opened.
pub fn clone(folder: impl AsFd, path: &Path) -> Result<OwnedFd, Error> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(folder.as_fd(), path, flags).map_err(call("clone the mount at", path))
}

/// Attaches a detached mount at `path`.
///
/// # Errors
/// The path does not exist or is of another kind.
pub fn attach(mount: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
    move_mount(mount, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(call("mount on", path))
}

fn make_folder(path: &Path) -> Result<(), Error> {
    mkdirat(CWD, path, Mode::from_raw_mode(0o711)).map_err(call("create", path))
}

fn make_file(path: &Path) -> Result<(), Error> {
    fs::File::create_new(path).map(drop).map_err(call("create", path))
}
