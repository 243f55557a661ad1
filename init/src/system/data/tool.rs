//! The two programs of e2fsprogs that PID 1 runs itself.

use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

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

/// Why a program did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not in the image.
    #[error("cannot start `{program}`")]
    Start {
        /// Its path.
        program: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// It failed.
    #[error("`{program}` ended with {code}: {last}")]
    Failed {
        /// Its path.
        program: &'static str,
        /// Its exit code, or -1 for a signal.
        code: i32,
        /// The last line that it wrote.
        last: String,
    },
}

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

fn judge(program: &'static str, output: &Output, highest_good: i32) -> Result<(), Error> {
    let code = output.status.code().unwrap_or(-1);
    if (0..=highest_good).contains(&code) {
        return Ok(());
    }
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let last =
        text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no output").trim().to_owned();
    Err(Error::Failed { program, code, last })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn output(code: i32) -> Output {
        Output {
            status: ExitStatus::from_raw(code << 8),
            stdout: vec![],
            stderr: b"first\nlast words\n\n".to_vec(),
        }
    }

    #[test]
    fn mended_damage_is_fine_and_anything_more_is_not() {
        assert!((0..=3).all(|code| judge(FSCK, &output(code), MENDED).is_ok()));
        let error = judge(FSCK, &output(4), MENDED).unwrap_err();
        assert_eq!(error.to_string(), "`/usr/sbin/e2fsck` ended with 4: last words");
    }

    #[test]
    fn a_killed_program_failed() {
        let killed = Output { status: ExitStatus::from_raw(9), stdout: vec![], stderr: vec![] };
        let error = judge(MKFS, &killed, 0).unwrap_err();
        assert_eq!(error.to_string(), "`/usr/sbin/mkfs.ext4` ended with -1: no output");
    }
}
