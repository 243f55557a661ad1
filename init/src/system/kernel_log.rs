//! Reading the kernel's log (PID 1's own records included) into the ring.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::ring::Ring;

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
        let mut buffer = vec![0; MAX_RECORD_BYTES];
        for _ in 0..BATCH {
            match self.file.read(&mut buffer) {
                Ok(length) if length > 0 => {
                    let record = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
                    if let Some(line) = line(&record) {
                        ring.push_line(&line);
                    }
                }
                // EPIPE: the kernel dropped records before we came; the next read continues after them.
                Err(err) if err.kind() == io::ErrorKind::BrokenPipe => {}
                _ => return,
            }
        }
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
    fn what_is_no_record_is_left_out() {
        assert_eq!(line("no semicolon"), None);
        assert_eq!(line("6,1;short header"), None);
    }
}
