//! Mount attributes and the private mount namespace: the calls that rustix has not.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What to change on a mount. Flags are `MOUNT_ATTR_*` bits, propagation is one of `MS_PRIVATE`, `MS_SLAVE`,
/// `MS_SHARED` or 0 for no change.
#[derive(Clone, Copy, Debug, Default)]
pub struct MountAttributes<'fd> {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub clear: u64,
    /// Propagation type.
    pub propagation: u64,
    /// User namespace whose map the mount gets. Only a detached mount without a map takes one.
    pub id_map: Option<BorrowedFd<'fd>>,
}

/// Read-only mount.
pub const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
/// Set-user-id bits and file capabilities are ignored.
pub const NO_SUID: u64 = libc::MOUNT_ATTR_NOSUID;
/// Device nodes cannot be opened.
pub const NO_DEVICES: u64 = libc::MOUNT_ATTR_NODEV;
/// Files cannot be executed.
pub const NO_EXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
/// `MOUNT_ATTR_NOSYMFOLLOW`: links are not followed there.
pub const NO_LINKS: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;
/// Access times are not kept.
pub const NO_ATIME: u64 = libc::MOUNT_ATTR_NOATIME;
/// Propagation: neither to nor from.
pub const PRIVATE: u64 = libc::MS_PRIVATE;
/// Propagation: from the source only.
pub const SLAVE: u64 = libc::MS_SLAVE;
/// Propagation: both ways.
pub const SHARED: u64 = libc::MS_SHARED;

/// Changes the mount that `mount` is the root of; mounts below it stay as they are.
///
/// # Errors
/// The error of `mount_setattr(2)`: `EINVAL` when the file system cannot be id-mapped.
#[expect(unsafe_code, reason = "rustix has no mount_setattr")]
pub fn set_attributes(mount: BorrowedFd<'_>, attributes: &MountAttributes<'_>) -> io::Result<()> {
    let mut request: libc::mount_attr = zeroed_request();
    request.attr_set = attributes.set;
    request.attr_clr = attributes.clear;
    request.propagation = attributes.propagation;
    if let Some(namespace) = attributes.id_map {
        request.attr_set |= libc::MOUNT_ATTR_IDMAP;
        request.userns_fd = u64::try_from(namespace.as_raw_fd()).expect("an open descriptor is not negative");
    }
    // SAFETY: the path is a NUL-terminated literal, `request` is a live `mount_attr` of exactly the size passed and
    // the kernel only reads it; both descriptors are borrowed and so stay open for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const request,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Moves this process into a mount namespace of its own, a copy of the present one.
///
/// # Errors
/// The error of `unshare(2)`.
#[expect(unsafe_code, reason = "rustix marks unshare as unsafe whatever the flag")]
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: `CLONE_NEWNS` takes no pointers and leaves memory and descriptors alone; that other threads would
    // stay behind is a matter of meaning, not of memory.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn zeroed_request() -> libc::mount_attr {
    libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: 0, userns_fd: 0 }
}
