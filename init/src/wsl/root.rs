//! The verified root of a distro, and the mounts around it.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use eci_contract::manifest::VerityRoot;
use eci_contract::wsl::{DATA, HASH_TREE, ROOT_IMAGE};
use eci_sys::{dm, loop_device, mounts};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount_bind, mount_change, mount_remount, unmount,
};
use rustix::process::{chdir, pivot_root};

use crate::initramfs::switch::NEW_ROOT;
use crate::initramfs::verity::{self, Devices};

/// dm-verity's own answer to a block that is not as signed: an I/O error for whoever reads it. A panic would end the virtual
/// machine that all distros of the user share.
pub const OPTIONS: [&str; 0] = [];

/// Block size of the loop devices: that of the file system in the image, and of the tree.
const BLOCK_BYTES: u32 = 4096;

/// Why there is no verified root.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the archive cannot be opened.
    #[error("cannot open `{path}`")]
    Open {
        /// The file.
        path: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file of the archive cannot be made a block device.
    #[error("cannot make a loop device of `{path}`")]
    Loop {
        /// The file.
        path: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// dm-verity does not take the files.
    #[error(transparent)]
    Verity(#[from] verity::Error),
    /// The mapped device cannot be marked for removal.
    #[error("cannot have the verity device removed with its mount")]
    Remove(#[source] dm::Error),
    /// The mounts are not as they have to be.
    #[error("cannot {operation} `{target}`")]
    Mount {
        /// What was tried.
        operation: &'static str,
        /// Where.
        target: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Makes a mount namespace whose changes reach nobody.
///
/// # Errors
/// When the kernel refuses.
pub fn leave_mounts() -> Result<(), Error> {
    mounts::unshare_mounts().map_err(|source| Error::Mount { operation: "leave", target: "/", source })?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(failed("make private", "/"))
}

/// Name of this distro's mapped device: they are the whole kernel's, and the namespace's number is no other distro's.
///
/// # Errors
/// When `/proc` is not there.
pub fn device_name() -> Result<String, Error> {
    let path = "/proc/self/ns/pid";
    let namespace = fs::metadata(path).map_err(|source| Error::Open { path, source })?;
    Ok(format!("{}-{}", verity::DEVICE_NAME, namespace.ino()))
}

/// Activates dm-verity over the archive's two files, as the device `name`.
///
/// # Errors
/// When one is missing, or the kernel lacks loop devices or dm-verity.
pub fn activate(name: &str, root: &VerityRoot) -> Result<(), Error> {
    let (data, hash) = (block_device(ROOT_IMAGE)?, block_device(HASH_TREE)?);
    let devices = Devices {
        name: format!("`{ROOT_IMAGE}`"),
        data: number(&data, ROOT_IMAGE)?,
        hash: number(&hash, HASH_TREE)?,
    };
    // Of a distro that was killed before it had mounted it: numbers of namespaces come again. Mostly there is none.
    drop(dm::remove_when_unused(name));
    Ok(verity::activate(name, &devices, root, &OPTIONS, None)?)
}

/// Has the kernel remove the mapped device, and with it the loop devices, when the last mount of it is gone.
///
/// # Errors
/// When the kernel refuses.
pub fn remove_device_with_mount(name: &str) -> Result<(), Error> {
    dm::remove_when_unused(name).map_err(Error::Remove)
}

/// Mounts the distro's folder for the engine's data, which is made if it is missing.
///
/// # Errors
/// When it cannot be made or mounted.
pub fn bind_data() -> Result<(), Error> {
    const TARGET: &str = "/sysroot/var/lib/docker";
    let made = fs::DirBuilder::new().mode(0o710).recursive(true).create(DATA);
    made.map_err(|source| Error::Mount { operation: "make the folder", target: DATA, source })?;
    bind(DATA, TARGET, MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME)
}

/// Mounts a folder at another place, with these flags.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn bind(source: &str, target: &'static str, flags: MountFlags) -> Result<(), Error> {
    mount_bind(source, target).map_err(failed("bind a folder to", target))?;
    mount_remount(target, MountFlags::BIND | flags, c"").map_err(failed("set the flags of", target))
}

/// Makes the verified root the root; nothing of the distro but what was bound stays in sight.
///
/// # Errors
/// When the kernel refuses.
pub fn pivot() -> Result<(), Error> {
    chdir(NEW_ROOT).map_err(failed("enter", NEW_ROOT))?;
    // The old root comes to lie on the new one, from where it is let go of: pivot_root(2), "pivot_root(".", ".")".
    pivot_root(".", ".").map_err(failed("make the root", NEW_ROOT))?;
    unmount(".", UnmountFlags::DETACH).map_err(failed("let go of", "/"))?;
    chdir("/").map_err(failed("enter", "/"))
}

/// Becomes this program, without WSL's environment. Gives why not.
#[must_use]
pub fn execute(program: &str) -> io::Error {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Command::new(program).env_clear().exec()
}

fn block_device(path: &'static str) -> Result<File, Error> {
    let file = File::open(path).map_err(|source| Error::Open { path, source })?;
    loop_device::attach(file.as_fd(), BLOCK_BYTES).map_err(|source| Error::Loop { path, source })
}

fn number(device: &File, path: &'static str) -> Result<String, Error> {
    let number = device.metadata().map_err(|source| Error::Loop { path, source })?.rdev();
    Ok(format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number)))
}

fn failed(operation: &'static str, target: &'static str) -> impl Fn(rustix::io::Errno) -> Error {
    move |source| Error::Mount { operation, target, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corrupt_block_does_not_end_the_machine_of_all_distros() {
        assert!(!OPTIONS.iter().any(|option| option.starts_with("panic") || option.starts_with("restart")));
        assert!(!OPTIONS.contains(&"ignore_corruption"));
    }

    #[test]
    fn the_device_is_named_for_the_namespace() {
        let name = device_name().unwrap();
        let number = name.strip_prefix("eci-root-").unwrap();
        assert!(number.parse::<u64>().unwrap() > 0);
    }

    #[test]
    fn errors_name_the_file_and_the_mount() {
        let error = Error::Loop { path: ROOT_IMAGE, source: io::ErrorKind::NotFound.into() };
        assert_eq!(error.to_string(), "cannot make a loop device of `/usr/lib/eci/root.erofs`");
        let error = failed("let go of", "/")(rustix::io::Errno::BUSY);
        assert_eq!(error.to_string(), "cannot let go of `/`");
    }
}
