//! A container's uptime starts with the container.
//!
//! Why: `/proc/uptime` and sysinfo(2) would tell how long the VM runs, and programs that ask how long they run would be told
//! wrong. Only the clock that counts from the boot is shifted; the date and CLOCK_MONOTONIC stay as they are. crun 1.21
//! makes a time namespace when it has left the VM's user namespace, and then may not set the clock: so it is made here,
//! and crun is executed in it.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

use eci_sys::timens;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustix::time::{ClockId, clock_gettime};

use super::error::{Error, call};

/// What this process executes has been up for no time.
///
/// # Errors
/// The kernel refuses the namespace or the clock.
pub fn start() -> Result<(), Error> {
    let path = PathBuf::from("/proc/self/timens_offsets");
    timens::unshare_boot_time(clock_gettime(ClockId::Boottime).tv_sec)
        .map_err(call("shift the clock by", &path))
}

/// What this process executes has been up as long as process `pid` says.
///
/// # Errors
/// The process has ended, or the kernel refuses.
pub fn join(pid: u32) -> Result<(), Error> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/time"));
    let namespace = File::open(&path).map_err(call("open", &path))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Time)).map_err(call("join", &path))
}
