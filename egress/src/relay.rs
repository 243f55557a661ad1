//! Bytes both ways between two sockets, until both directions have ended.
//!
//! Invariant: each direction has one buffer, and reads no more while that is full; whatever the two do, it ends when no byte comes for a quarter of an hour.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::request::MOST_BYTES;
use super::response::{Head, closing};

/// How long nothing may come from either side. Registries assemble a manifest's answer or a layer's commit for minutes, and Go keeps idle
/// connections for 90 s.
const IDLE: Duration = Duration::from_secs(900);
/// A direction's buffer: a pipe's worth.
const BUFFER: usize = 64 * 1024;

/// What goes to a side before what comes from the other.
#[derive(Debug, Default)]
pub struct First {
    /// To the client.
    pub to_client: Vec<u8>,
    /// To the server.
    pub to_server: Vec<u8>,
}

/// What is done with what the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// Nothing: it is a tunnel.
    AsTheyCome,
    /// The first is told to be the last.
    Closing,
}

/// Joins them to the end.
///
/// # Errors
/// One of them broke, or nothing came for too long.
pub fn join(client: &TcpStream, server: &TcpStream, first: First, answers: Answers) -> io::Result<()> {
    for stream in [client, server] {
        stream.set_nonblocking(true)?;
        // Bytes are passed on as they come; waiting for more helps nobody.
        stream.set_nodelay(true)?;
    }
    let mut up = Lane::new(client, server, first.to_server, Answers::AsTheyCome);
    let mut down = Lane::new(server, client, first.to_client, answers);
    let mut last = Instant::now();
    while !(up.has_ended() && down.has_ended()) {
        let moved = up.advance()? | down.advance()?;
        if moved {
            last = Instant::now();
            continue;
        }
        let Some(left) = IDLE.checked_sub(last.elapsed()) else { return Err(io::ErrorKind::TimedOut.into()) };
        wait(client, up.wants_in(), down.wants_out(), server, down.wants_in(), up.wants_out(), left)?;
    }
    Ok(())
}

fn wait(
    client: &TcpStream,
    client_in: bool,
    client_out: bool,
    server: &TcpStream,
    server_in: bool,
    server_out: bool,
    left: Duration,
) -> io::Result<()> {
    let flags = |reads: bool, writes: bool| {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, reads);
        flags.set(PollFlags::OUT, writes);
        flags
    };
    let sides = [(client, flags(client_in, client_out)), (server, flags(server_in, server_out))];
    // A side of which nothing is wanted would wake us at once when it hangs up.
    let wanted = sides.into_iter().filter(|(_, flags)| !flags.is_empty());
    let mut wanted: Vec<_> = wanted.map(|(side, flags)| PollFd::new(side, flags)).collect();
    let left = Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    };
    match poll(&mut wanted, Some(&left)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// One direction.
struct Lane<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    /// What was read and not yet written.
    buffer: Vec<u8>,
    /// A head has to be whole before any of it is written.
    holds_head: bool,
    from_ended: bool,
    to_ended: bool,
}

impl<'a> Lane<'a> {
    fn new(from: &'a TcpStream, to: &'a TcpStream, first: Vec<u8>, answers: Answers) -> Self {
        let holds_head = answers == Answers::Closing;
        Self { from, to, buffer: first, holds_head, from_ended: false, to_ended: false }
    }

    fn has_ended(&self) -> bool {
        self.to_ended
    }

    fn wants_in(&self) -> bool {
        let most = if self.holds_head { MOST_BYTES + 1 } else { BUFFER };
        !self.from_ended && self.buffer.len() < most
    }

    fn wants_out(&self) -> bool {
        !self.to_ended && !self.holds_head && !self.buffer.is_empty()
    }

    /// Reads and writes what can be at once; whether anything was.
    fn advance(&mut self) -> io::Result<bool> {
        let mut moved = false;
        if self.wants_in() {
            let mut part = [0; 16 * 1024];
            match unless_blocked(self.from.read(&mut part))? {
                Some(0) => {
                    self.from_ended = true;
                    moved = true;
                }
                Some(length) => {
                    self.buffer.extend_from_slice(part.get(..length).unwrap_or_default());
                    moved = true;
                }
                None => {}
            }
        }
        if self.holds_head {
            match closing(&self.buffer) {
                Head::Whole(bytes) => (self.buffer, self.holds_head) = (bytes, false),
                Head::Bad => return Err(io::ErrorKind::InvalidData.into()),
                Head::Partial if self.from_ended => return Err(io::ErrorKind::UnexpectedEof.into()),
                Head::Partial => return Ok(moved),
            }
        }
        if self.wants_out() {
            if let Some(length) = unless_blocked(self.to.write(&self.buffer))? {
                self.buffer.drain(..length);
                moved = true;
            }
        }
        if self.from_ended && self.buffer.is_empty() && !self.to_ended {
            self.to_ended = true;
            // One that is closed already needs to hear no end.
            drop(self.to.shutdown(Shutdown::Write));
            moved = true;
        }
        Ok(moved)
    }
}

fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(None)
        }
        result => result.map(Some),
    }
}
