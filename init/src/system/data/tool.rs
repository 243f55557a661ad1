//! The two programs of e2fsprogs that PID 1 runs itself.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::system::program::{Error, judge};

const MKFS: &str = "/usr/sbin/mkfs.ext4";
const FSCK: &str = "/usr/sbin/e2fsck";

/// `nodiscard`: mke2fs would discard the marker too. `lazy_itable_init`: tables are zeroed while the engine starts.
/// A journal of 64 MiB instead of 1 GiB, one percent kept for the engine itself when containers fill the disk, and a
/// file system that turns read-only at the first sign of damage.
const MKFS_OPTIONS: [&str; 12] = [
    "-q",
    "-F",
    "-L",
    "eci-data",
    "-m",
    "1",
    "-e",
    "remount-ro",
    "-J",
    "size=64",
    "-E",
    "nodiscard,lazy_itable_init=1",
];

/// e2fsck's exit code is a sum; up to this one all damage was mended (1) and a restart, which a file system that is
/// not mounted does not need, would be advised (2).
const MENDED: i32 = 3;

/// Makes an ext4 file system over the whole device.
///
/// # Errors
/// When mkfs fails.
pub fn mkfs(device: &Path) -> Result<(), Error> {
    judge(MKFS, &run(MKFS, &MKFS_OPTIONS, device)?, 0)
}

/// Replays the journal and mends what can be mended without a decision.
///
/// # Errors
/// When there is damage that needs one.
pub fn check(device: &Path) -> Result<(), Error> {
    judge(FSCK, &run(FSCK, &["-p"], device)?, MENDED)
}

fn run(program: &'static str, options: &[&str], device: &Path) -> Result<Output, Error> {
    let mut command = Command::new(program);
    command.args(options).arg(device).env_clear().env("PATH", "/usr/sbin:/usr/bin").stdin(Stdio::null());
    command.output().map_err(|source| Error::Start { program, source })
}
