//! Loop devices: a file as a block device.
//!
//! Format: `struct loop_config` of `include/uapi/linux/loop.h`; the call is there since Linux 5.8.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Gives the number of a device that is free, or a new one.
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
/// Size of `struct loop_config`.
const CONFIG_BYTES: usize = 304;
/// Where the size of a block and the flags are in it.
const BLOCK_SIZE_AT: usize = 4;
const FLAGS_AT: usize = 60;
/// `LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR`: the device lets go of the file when nobody has it open any more.
const FLAGS: u32 = 1 | 4;
/// Others on this kernel take free devices, too.
const ATTEMPTS: usize = 16;

/// Makes a read-only block device with blocks of `block_size` bytes of a file. It is one until its descriptor, and whatever was
/// made of it, is gone.
///
/// # Errors
/// When the kernel has no loop devices, or none is free.
#[expect(unsafe_code, reason = "loop devices are made by ioctls")]
pub fn attach(file: BorrowedFd<'_>, block_size: u32) -> io::Result<File> {
    let control = File::options().read(true).write(true).open("/dev/loop-control")?;
    let mut config = [0_u8; CONFIG_BYTES];
    let descriptor = u32::try_from(file.as_raw_fd()).expect("an open descriptor is not negative");
    for (at, value) in [(0, descriptor), (BLOCK_SIZE_AT, block_size), (FLAGS_AT, FLAGS)] {
        config[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    for _ in 0..ATTEMPTS {
        // SAFETY: the request takes no argument; `control` keeps the descriptor open for the call.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let device = File::open(format!("/dev/loop{number}"))?;
        // SAFETY: the kernel reads `struct loop_config` at the pointer, whose size `config` has; it is alive until the call
        // returns and has no pointers in it. Both descriptors are open for the call.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, config.as_ptr()) } == 0 {
            return Ok(device);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(error);
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}
