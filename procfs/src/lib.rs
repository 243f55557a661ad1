//! Keeps `/proc/{cpuinfo,loadavg,meminfo,stat}` and `/sys/devices/system/cpu/online` of containers true to their limits.
//!
//! `eci-runc` makes a folder with these files for each container, on a tmpfs that holds nothing else, and mounts them over the
//! kernel's. A read(2) of one waits until this program has written what holds now: a fanotify permission event on the
//! whole tmpfs. Nothing is told about containers that come and go, and nothing is kept that a restart would miss.
//!
//! Why not FUSE, as lxcfs: a file system whose program has died, or hangs, keeps its readers for ever. Here they read the figures of
//! the last time. And no process of the VM ever enters a namespace of a container's: its cgroup tells everything.
//!
//! Invariants: every event is answered, and always by "go on"; this program opens no file of that tmpfs for reading, for it would
//! wait for itself; no answer depends on anything but the file, the cgroup and the
//! kernel's own figures. A container can cause no line of the log: it could fill it.
//!
//! In reading order: [`serve`] (events), [`container`] (the figures of one), [`cgroup`] (limits and use); [`cpus`],
//! [`memory`], [`load`] and [`time`] are pure: a figure's text from numbers.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::convert::Infallible;

pub mod cgroup;
pub mod container;
pub mod cpus;
pub mod load;
pub mod memory;
pub mod serve;
pub mod time;

pub use serve::Error;

/// Serves for ever.
///
/// # Errors
/// When it cannot start, or events cannot be read.
pub fn run() -> Result<Infallible, Error> {
    serve::run()
}
