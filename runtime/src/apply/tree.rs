//! The engine's layers, id-mapped, and the trees built from them.
//!
//! One id-mapped mount of the folder of layers serves every layer, however many there are. overlayfs keeps its own
//! copies of the mounts that it uses, so ours goes away when the trees stand.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use eci_sys::fsuid::FilesystemIds;
use eci_sys::mounts::{self, MountAttributes};
use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

use super::error::{Error, call};
use super::scratch::{self, Scratch};
use crate::plan::ids::Range;
use crate::plan::root::{LAYERS, Tree};

/// Name of our work folder, beside dockerd's `work` in the folder of the writable layer.
const WORK: &str = "eci-work";

/// The folder of layers, id-mapped and attached.
#[derive(Debug)]
pub struct Layers {
    path: PathBuf,
    /// The same folder without the map.
    unmapped: OwnedFd,
    range: Range,
}

impl Layers {
    /// Maps the layers of `engine` (the engine's folder) into the map of `user_namespace`, which is `range`.
    ///
    /// # Errors
    /// The folder is missing or cannot be id-mapped.
    pub fn map(
        scratch: &mut Scratch,
        engine: BorrowedFd<'_>,
        user_namespace: BorrowedFd<'_>,
        range: Range,
    ) -> Result<Self, Error> {
        let named = Path::new(LAYERS);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let unmapped =
            openat2(engine, named, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
                .map_err(call("open", named))?;
        let mapped = scratch::clone(&unmapped, Path::new(""))?;
        let attributes = MountAttributes {
            set: mounts::NO_DEVICES,
            // The VM follows none there.
            clear: mounts::NO_LINKS,
            propagation: mounts::PRIVATE,
            id_map: Some(user_namespace),
        };
        mounts::set_attributes(mapped.as_fd(), &attributes).map_err(call("id-map", named))?;
        let path = scratch.attach(mapped.as_fd(), true)?;
        Ok(Self { path, unmapped, range })
    }

    /// Builds `tree` as a detached mount.
    ///
    /// # Errors
    /// A layer is missing, or the kernel refuses the overlay.
    pub fn build(&self, tree: &Tree) -> Result<OwnedFd, Error> {
        self.build_on(None, tree)
    }

    /// The same for a root filesystem, with a folder of the VM below the layers of an overlay. Device nodes can be opened on
    /// it, those of an image as well as those that were made: which ones, the rules for devices say, and PID 1 for the console.
    ///
    /// # Errors
    /// As [`Layers::build`].
    pub fn build_root(&self, lowest: Option<&Path>, tree: &Tree) -> Result<OwnedFd, Error> {
        let root = self.build_on(lowest, tree)?;
        let attributes = MountAttributes { clear: mounts::NO_DEVICES, ..MountAttributes::default() };
        mounts::set_attributes(root.as_fd(), &attributes).map_err(call("allow devices on", &self.path))?;
        Ok(root)
    }

    fn build_on(&self, lowest: Option<&Path>, tree: &Tree) -> Result<OwnedFd, Error> {
        match tree {
            Tree::Layer(layer) => scratch::clone(rustix::fs::CWD, &self.path.join(layer)),
            Tree::Overlay { lowers, upper } => {
                let lowers = lowers.iter().map(|lower| self.path.join(lower));
                let lowers: Vec<_> = lowers.chain(lowest.map(Path::to_owned)).collect();
                self.build_overlay(&lowers, upper.as_deref())
            }
        }
    }

    /// Unmounts the folder of layers.
    ///
    /// # Errors
    /// It is not mounted.
    pub fn detach(&self) -> Result<(), Error> {
        scratch::detach(&self.path)
    }

    fn build_overlay(&self, lowers: &[PathBuf], upper: Option<&str>) -> Result<OwnedFd, Error> {
        let failed = || call("mount an overlay of", &self.path);
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed())?;
        fsconfig_set_string(&context, "source", "overlay").map_err(failed())?;
        for lower in lowers {
            fsconfig_set_string(&context, "lowerdir+", lower).map_err(call("use as a layer", lower))?;
        }
        match upper {
            Some(upper) => self.set_writable(&context, upper)?,
            None => fsconfig_set_flag(&context, "ro").map_err(failed())?,
        }
        fsconfig_set_string(&context, "index", "off").map_err(failed())?;
        let ids = FilesystemIds::assume(self.range.base, self.range.base)
            .map_err(call("act as the container's root on", &self.path))?;
        fsconfig_create(&context).map_err(failed())?;
        drop(ids);
        let flags = MountAttrFlags::MOUNT_ATTR_NODEV;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(failed())
    }

    fn set_writable(&self, context: &OwnedFd, upper: &str) -> Result<(), Error> {
        let work = Path::new(upper).parent().unwrap_or(Path::new("")).join(WORK);
        match mkdirat(&self.unmapped, &work, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(call("create", &work)(errno)),
        }
        for (key, path) in [("upperdir", self.path.join(upper)), ("workdir", self.path.join(work))] {
            fsconfig_set_string(context, key, &path).map_err(call("use as a layer", &path))?;
        }
        Ok(())
    }
}
