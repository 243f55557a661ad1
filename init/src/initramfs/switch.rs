//! The file systems of the first stage, and leaving it for the verified root.

use std::convert::Infallible;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use eci_sys::dm;
use rustix::fs::Mode;
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{chdir, chroot};

use super::verity;

/// Where the new root is mounted until it is the root.
pub const NEW_ROOT: &str = "/sysroot";
/// The second stage, on the verified root.
pub const SECOND_STAGE: &str = "/usr/sbin/init";

/// A pseudo file system of the first stage. All of them move into the new root.
struct Pseudo {
    fstype: &'static str,
    target: &'static str,
    flags: MountFlags,
    options: &'static CStr,
}

const STRICT: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

const PSEUDO: [Pseudo; 4] = [
    Pseudo {
        fstype: "devtmpfs",
        target: "/dev",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        options: c"mode=0755",
    },
    Pseudo { fstype: "proc", target: "/proc", flags: STRICT, options: c"" },
    Pseudo { fstype: "sysfs", target: "/sys", flags: STRICT, options: c"" },
    Pseudo { fstype: "tmpfs", target: "/run", flags: STRICT, options: c"mode=0755,size=20%" },
];

/// Why the first stage could not leave.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A mount failed.
    #[error("cannot mount {fstype} on `{target}`")]
    Mount {
        /// File system type.
        fstype: &'static str,
        /// Mount point.
        target: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The verity device is gone.
    #[error("cannot find the verity device")]
    Device(#[from] dm::Error),
    /// A step of the switch failed.
    #[error("cannot switch to the new root: {step}")]
    Switch {
        /// Which step.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Mounts `/dev`, `/proc`, `/sys` and `/run`, and lets the log speak without limit.
///
/// # Errors
/// When the kernel lacks one of them.
pub fn mount_pseudo() -> Result<(), Error> {
    mount_pseudo_below("")?;
    // The default drops all but ten records in five seconds, and the command line that could say otherwise is sealed.
    drop(fs::write("/proc/sys/kernel/printk_devkmsg", "on\n"));
    rustix::process::umask(Mode::from_raw_mode(0o022));
    Ok(())
}

/// Mounts the same four below `root`.
///
/// # Errors
/// When the kernel lacks one of them.
pub fn mount_pseudo_below(root: &str) -> Result<(), Error> {
    for Pseudo { fstype, target, flags, options } in &PSEUDO {
        let place = format!("{root}{target}");
        // An initramfs may lack the folder; mount says so if this did not help.
        drop(fs::create_dir_all(&place));
        mount(*fstype, &place, *fstype, *flags, *options).map_err(|source| Error::Mount {
            fstype,
            target,
            source: source.into(),
        })?;
    }
    Ok(())
}

/// Mounts the verified device `name` read-only at [`NEW_ROOT`].
///
/// # Errors
/// When there is no such device, or no EROFS on it.
pub fn mount_root(name: &str) -> Result<(), Error> {
    let device = verity::device_path(name)?;
    drop(fs::create_dir_all(NEW_ROOT));
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount(device, NEW_ROOT, "erofs", flags, c"").map_err(|source| Error::Mount {
        fstype: "erofs",
        target: NEW_ROOT,
        source: source.into(),
    })
}

/// Moves the pseudo file systems over, empties the initramfs, and executes the second stage. Does not return.
///
/// # Errors
/// When a step fails.
pub fn switch_root() -> Result<Infallible, Error> {
    let step = |step| move |source: rustix::io::Errno| Error::Switch { step, source: source.into() };
    for Pseudo { target, .. } in &PSEUDO {
        mount_move(*target, format!("{NEW_ROOT}{target}")).map_err(step("move a pseudo file system"))?;
    }
    chdir(NEW_ROOT).map_err(step("enter it"))?;
    // The program and the key are all that the initramfs holds; its memory is better used by containers.
    for path in ["/init", "/etc/eci/image.pub"] {
        drop(fs::remove_file(Path::new(path)));
    }
    mount_move(".", "/").map_err(step("move it over the old one"))?;
    chroot(".").map_err(step("make it the root"))?;
    chdir("/").map_err(step("enter the root"))?;
    let source = Command::new(SECOND_STAGE).env_clear().exec();
    Err(Error::Switch { step: "execute /usr/sbin/init", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pseudo_file_system_is_at_least_nosuid_and_noexec() {
        for pseudo in &PSEUDO {
            assert!(pseudo.flags.contains(MountFlags::NOSUID | MountFlags::NOEXEC), "{}", pseudo.target);
        }
    }

    #[test]
    fn errors_name_the_mount_and_the_step() {
        let source = || io::ErrorKind::NotFound.into();
        let error = Error::Mount { fstype: "erofs", target: NEW_ROOT, source: source() };
        assert_eq!(error.to_string(), "cannot mount erofs on `/sysroot`");
        let error = Error::Switch { step: "enter it", source: source() };
        assert_eq!(error.to_string(), "cannot switch to the new root: enter it");
    }
}
