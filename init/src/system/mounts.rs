//! The file systems of the second stage, as data.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::Path;

use eci_contract::paths::PROCFS_DIR;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount};

use crate::handover::Platform;
use crate::wsl::choices::{Part, left_out};

/// One mount: a new one, or new flags for one that came from the first stage.
pub struct MountRow {
    kind: Kind,
    /// Where.
    pub target: &'static str,
    /// Flags it has from now on.
    pub flags: MountFlags,
    options: &'static CStr,
    /// Why it is there, and why these flags.
    pub why: &'static str,
}

enum Kind {
    New(&'static str),
    /// Came from the first stage; its flags are set on the mount, not on the file system.
    Inherited,
}

const STRICT: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// All mounts but the data disk, in order. No devpts and no mqueue: only containers use those, and they bring their own.
pub const MOUNTS: &[MountRow] = &[
    MountRow {
        kind: Kind::New("tmpfs"),
        target: "/dev/shm",
        flags: STRICT.union(MountFlags::RDONLY),
        options: c"mode=0555,size=4k",
        why: "empty; without it the engine answers `--ipc host` before the runtime can say why it is refused",
    },
    MountRow {
        kind: Kind::Inherited,
        target: "/dev",
        flags: MountFlags::RDONLY.union(MountFlags::NOSUID).union(MountFlags::NOEXEC),
        options: c"",
        why: "device nodes must open, so no nodev; read-only instead: the kernel adds nodes by a mount of its own",
    },
    MountRow {
        kind: Kind::Inherited,
        target: "/proc",
        flags: STRICT,
        options: c"",
        why: "the engine reads it and sets network sysctls through it",
    },
    MountRow {
        kind: Kind::Inherited,
        target: "/sys",
        flags: STRICT,
        options: c"",
        why: "the engine sets bridge options through it",
    },
    MountRow {
        kind: Kind::New("cgroup2"),
        target: "/sys/fs/cgroup",
        flags: STRICT,
        options: c"nsdelegate,memory_recursiveprot",
        why: "limits and devices of containers; a container's own cgroup namespace is a boundary",
    },
    MountRow {
        kind: Kind::New("securityfs"),
        target: "/sys/kernel/security",
        flags: STRICT,
        options: c"",
        why: "lockdown is read there, and AppArmor's parser loads Docker's profile there",
    },
    MountRow {
        kind: Kind::Inherited,
        target: "/run",
        flags: STRICT,
        options: c"",
        why: "sockets and state that a boot starts without",
    },
    MountRow {
        kind: Kind::New("tmpfs"),
        target: PROCFS_DIR,
        flags: STRICT,
        options: c"mode=0711,size=64m",
        why: "files that containers read instead of `/proc/meminfo` and its like, alone: who reads one is waited for",
    },
    MountRow {
        kind: Kind::New("tmpfs"),
        target: "/tmp",
        flags: STRICT,
        options: c"mode=1777,size=25%",
        why: "short-lived mount points of containerd; the engine keeps its temporary files on the data disk",
    },
];

/// Links in `/dev` that programs expect and devtmpfs lacks: crun reads the limits of `docker update` from one.
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Folders on `/run` that programs expect, all with mode 0700.
pub const RUN_FOLDERS: &[&str] = &["/run/eci/engine"];

/// Why a mount is not as it has to be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error("cannot {operation} `{target}`")]
    Mount {
        /// `mount` or `set the flags of`.
        operation: &'static str,
        /// Mount point.
        target: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A folder could not be made.
    #[error("cannot make the folder `{path}`")]
    Folder {
        /// Its path.
        path: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A link in `/dev` could not be made.
    #[error("cannot make the link `{link}`")]
    Link {
        /// Its path.
        link: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Standard descriptors could not be moved.
    #[error("cannot put `/dev/null` in the place of the console")]
    Console {
        /// What the kernel said.
        source: io::Error,
    },
}

/// Makes every row of [`MOUNTS`] so, and then [`RUN_FOLDERS`].
///
/// # Errors
/// When one cannot be.
pub fn mount_all(platform: Platform) -> Result<(), Error> {
    let failed = |operation, target| {
        move |source: rustix::io::Errno| Error::Mount { operation, target, source: source.into() }
    };
    for (target, link) in DEVICE_LINKS {
        // WSL has made them: `/dev` is the same in every mount of it.
        if !fs::read_link(link).is_ok_and(|found| found == Path::new(target)) {
            symlink(target, link).map_err(|source| Error::Link { link, source })?;
        }
    }
    let rows = MOUNTS.iter().filter(|row| left_out(platform, Part::Mount(row.target)).is_none());
    for MountRow { kind, target, flags, options, .. } in rows {
        match kind {
            Kind::New(fstype) => {
                make_folder(target)?;
                mount(*fstype, *target, *fstype, *flags, *options).map_err(failed("mount", target))?;
            }
            Kind::Inherited => mount_remount(*target, MountFlags::BIND | *flags, *options)
                .map_err(failed("set the flags of", target))?,
        }
    }
    for path in RUN_FOLDERS {
        let made = fs::DirBuilder::new().mode(0o700).create(path);
        made.map_err(|source| Error::Folder { path, source })?;
    }
    // Containers' mounts must not travel back here; what the engine mounts must reach them.
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    mount_change("/", shared).map_err(failed("share", "/"))
}

/// The root and sysfs have their mount points; devtmpfs starts without.
fn make_folder(path: &'static str) -> Result<(), Error> {
    match fs::create_dir(path) {
        Err(source) if !fs::metadata(path).is_ok_and(|found| found.is_dir()) => {
            Err(Error::Folder { path, source })
        }
        _ => Ok(()),
    }
}

/// Puts `/dev/null` where the kernel opened the console.
///
/// # Errors
/// When it cannot be opened.
pub fn leave_console() -> Result<(), Error> {
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|source| Error::Console { source })?;
    let console = |err: rustix::io::Errno| Error::Console { source: err.into() };
    rustix::stdio::dup2_stdin(&null).map_err(console)?;
    rustix::stdio::dup2_stdout(&null).map_err(console)?;
    rustix::stdio::dup2_stderr(&null).map_err(console)
}

/// The mounts of this process, as `proc_pid_mountinfo(5)` describes them. Names of folders that are no text have another character in place
/// of what is none.
///
/// # Errors
/// When procfs is not there.
pub fn mountinfo() -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read("/proc/self/mountinfo")?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_writable_mount_is_nosuid_nodev_and_noexec() {
        for row in MOUNTS {
            let writable = !row.flags.contains(MountFlags::RDONLY);
            assert!(!writable || row.flags.contains(STRICT), "{}", row.target);
            assert!(!row.why.is_empty());
        }
    }

    #[test]
    fn errors_name_the_mount_point() {
        let error =
            Error::Mount { operation: "mount", target: "/tmp", source: io::ErrorKind::NotFound.into() };
        assert_eq!(error.to_string(), "cannot mount `/tmp`");
    }
}
