//! Announcing to the gate: one line there, one line back. Nothing waits here: whoever polls calls.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use eci_contract::link::{MAX_REQUEST_BYTES, Reply};
use eci_contract::ports::Announcement;

/// A connection to the gate.
#[derive(Debug)]
pub struct Gate {
    stream: UnixStream,
    received: Vec<u8>,
}

/// What came of looking for the gate's answer.
#[derive(Debug)]
pub enum Answer {
    /// It has answered.
    Reply(Reply),
    /// Not all of it is there yet.
    Incomplete,
    /// The gate is gone, or talks of something else.
    Lost,
}

impl Gate {
    /// Connects and announces. The line is short, so that the kernel takes it at once.
    ///
    /// # Errors
    /// What connecting or writing gave.
    pub fn announce(socket: &Path, announcement: &Announcement) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        let mut line = serde_json::to_vec(announcement)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Takes in what the gate has written so far.
    pub fn answer(&mut self) -> Answer {
        let mut buffer = [0; 512];
        let length = match self.stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Answer::Incomplete,
            Ok(length @ 1..) => length,
            Ok(0) | Err(_) => return Answer::Lost,
        };
        self.received.extend(buffer.iter().take(length));
        let line = self.received.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if line.len() == self.received.len() {
            return if line.len() > MAX_REQUEST_BYTES { Answer::Lost } else { Answer::Incomplete };
        }
        serde_json::from_slice(line).map_or(Answer::Lost, Answer::Reply)
    }

    /// Says that the port is not wanted any more. The gate closes its end when that is done.
    pub fn leave(&self) {
        // A gate that is gone has nothing to be told.
        drop(self.stream.shutdown(Shutdown::Write));
    }
}

impl AsFd for Gate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
