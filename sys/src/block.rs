//! Block devices and the ext4 file system on them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `_IOR(0x12, 114, size_t)`.
const BLKGETSIZE64: libc::Ioctl = 0x8008_1272;
/// `_IOW('f', 16, __u64)`.
const EXT4_IOC_RESIZE_FS: libc::Ioctl = 0x4008_6610;

/// Size of a block device in bytes.
///
/// # Errors
/// When the descriptor is not a block device.
#[expect(unsafe_code, reason = "the size of a block device comes from an ioctl")]
pub fn size(device: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes = 0_u64;
    // SAFETY: the kernel writes one u64 at the pointer, which is `bytes`, alive and exclusively borrowed until
    // the call returns. `device` keeps the descriptor open.
    match unsafe { libc::ioctl(device.as_raw_fd(), BLKGETSIZE64, &raw mut bytes) } {
        0 => Ok(bytes),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Grows the mounted ext4 file system that `root` (any open folder of it) belongs to. The kernel does it under its
/// journal, so a power cut at any point leaves the old or the new size.
///
/// # Errors
/// When the file system is not ext4, or the device is smaller than `blocks` file system blocks.
#[expect(unsafe_code, reason = "online resize is an ioctl of ext4")]
pub fn grow_ext4(root: BorrowedFd<'_>, blocks: u64) -> io::Result<()> {
    // SAFETY: the kernel reads one u64 at the pointer, which is `blocks`, alive until the call returns. `root`
    // keeps the descriptor open.
    match unsafe { libc::ioctl(root.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const blocks) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_not_a_block_device_has_no_size() {
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert!(size(file.as_fd()).is_err());
        assert!(grow_ext4(file.as_fd(), 1).is_err());
    }
}
