//! Reading the kernel's log, in which PID 1's own records are, too.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::system::ring::Ring;

/// One record is at most this long (`CONSOLE_EXT_LOG_MAX` in the kernel).
const MAX_RECORD_BYTES: usize = 8192;
/// Records taken in one go, so that a chatty kernel does not starve the loop.
const BATCH: usize = 256;

/// An open `/dev/kmsg`, at its oldest record.
#[derive(Debug)]
pub struct KernelLog {
    file: File,
}

impl KernelLog {
    /// Opens it.
    ///
    /// # Errors
    /// When there is no `/dev/kmsg`.
    pub fn open() -> io::Result<Self> {
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
        Ok(Self { file: File::options().read(true).custom_flags(flags).open("/dev/kmsg")? })
    }

    /// Moves what is there into the ring.
    pub fn drain(&mut self, ring: &mut Ring) {
        for line in self.records().take(BATCH).filter_map(|record| line(&record)) {
            ring.push_line(&line);
        }
    }

    /// What the kernel itself has said, in order: no process can write such a record.
    pub fn of_the_kernel(&mut self) -> impl Iterator<Item = String> {
        self.records().filter_map(|record| kernel_text(&record).map(str::to_owned))
    }

    /// The records that are there now.
    fn records(&mut self) -> impl Iterator<Item = String> {
        let mut buffer = vec![0; MAX_RECORD_BYTES];
        std::iter::from_fn(move || {
            loop {
                match self.file.read(&mut buffer) {
                    Ok(length) if length > 0 => {
                        let record = buffer.get(..length).unwrap_or_default();
                        return Some(String::from_utf8_lossy(record).into_owned());
                    }
                    // EPIPE: the kernel dropped records before we came; the next read continues after them.
                    Err(err) if err.kind() == io::ErrorKind::BrokenPipe => {}
                    _ => return None,
                }
            }
        })
    }
}

impl AsFd for KernelLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// `6,339,5140900,-;text` (`Documentation/ABI/testing/dev-kmsg`) as `[    5.140900] text`.
fn line(record: &str) -> Option<String> {
    let (header, body) = record.split_once(';')?;
    let micros: u64 = header.split(',').nth(2)?.parse().ok()?;
    let text = body.lines().next()?;
    Some(stamped(micros, text))
}

/// The text of a record whose facility, the upper bits of its first number, is the kernel's, 0. The kernel gives another one to what
/// processes write (`devkmsg_emit` in `kernel/printk/printk.c`).
fn kernel_text(record: &str) -> Option<&str> {
    let (header, body) = record.split_once(';')?;
    let priority: u32 = header.split(',').next()?.parse().ok()?;
    (priority < 8).then(|| body.lines().next().unwrap_or_default())
}

/// A line with the time since power-on before it, as `dmesg` prints it.
#[must_use]
pub fn stamped(micros: u64, text: &str) -> String {
    format!("[{:5}.{:06}] {text}", micros / 1_000_000, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_becomes_the_line_that_dmesg_prints() {
        let record = "6,339,5140900,-;NET: Registered\n SUBSYSTEM=net\n";
        assert_eq!(line(record).unwrap(), "[    5.140900] NET: Registered");
    }

    #[test]
    fn only_the_kernel_speaks_for_itself() {
        assert_eq!(kernel_text("6,339,5140900,-;integrity: x\n"), Some("integrity: x"));
        assert_eq!(kernel_text("14,339,5140900,-;integrity: x\n"), None);
        assert_eq!(kernel_text("x,1,1,-;y"), None);
    }

    #[test]
    fn what_is_no_record_is_left_out() {
        assert_eq!(line("no semicolon"), None);
        assert_eq!(line("6,1;short header"), None);
    }
}
