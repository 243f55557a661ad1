//! What a service writes, taken from its pipe into the log line by line.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::clock;
use crate::kernel_log::stamped;
use crate::system::ring::Ring;

/// A longer line is cut into pieces. dockerd's longest are stack traces of about 4 KiB.
const MAX_LINE_BYTES: usize = 8192;

/// The reading end, and the beginning of a line whose end has not come.
#[derive(Debug)]
pub struct Output {
    pipe: File,
    partial: Vec<u8>,
    last_line: String,
}

impl Output {
    /// A pipe: our end, which never blocks, and the service's.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        Ok((Self { pipe: File::from(read), partial: Vec::new(), last_line: String::new() }, write))
    }

    /// Moves what is there into the log, under the service's name. False when the service closed its end.
    pub fn drain(&mut self, name: &str, ring: &mut Ring) -> bool {
        let mut buffer = [0; 4096];
        match self.pipe.read(&mut buffer) {
            Ok(0) => {
                self.flush(name, ring);
                false
            }
            Ok(length) => {
                for byte in buffer.get(..length).unwrap_or_default() {
                    match byte {
                        b'\n' => self.flush(name, ring),
                        byte => self.partial.push(*byte),
                    }
                    if self.partial.len() >= MAX_LINE_BYTES {
                        self.flush(name, ring);
                    }
                }
                true
            }
            Err(err) => matches!(err.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }

    /// The last whole line: where a service ends by itself, mostly the reason.
    #[must_use]
    pub fn last_line(&self) -> &str {
        &self.last_line
    }

    fn flush(&mut self, name: &str, ring: &mut Ring) {
        if !self.partial.is_empty() {
            let text = String::from_utf8_lossy(&self.partial);
            ring.push_line(&stamped(clock::boot_ms() * 1000, &format!("{name}: {text}")));
            self.last_line = text.into_owned();
            self.partial.clear();
        }
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_are_whole_named_and_bounded() {
        let (mut output, write) = Output::new().unwrap();
        let mut write = File::from(write);
        let mut ring = Ring::new();
        write.write_all(b"one\nhal").unwrap();
        assert!(output.drain("engine", &mut ring));
        write.write_all(b"f\n").unwrap();
        assert!(output.drain("engine", &mut ring));
        write.write_all(&[b'x'; 3000]).unwrap();
        drop(write);
        assert!(output.drain("engine", &mut ring));
        assert!(!output.drain("engine", &mut ring));
        let text = String::from_utf8(ring.read(0, usize::MAX).0).unwrap();
        let lines: Vec<_> = text.lines().map(|line| line.split_once("] ").unwrap().1).collect();
        assert_eq!(lines[..2], ["engine: one", "engine: half"]);
        assert_eq!(lines[2].len(), "engine: ".len() + 3000);
        assert_eq!(output.last_line().len(), 3000);
    }
}
