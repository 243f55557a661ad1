//! The loop: new connections, listeners that come on them, their notifications, and children that have ended.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::net::UnixListener;

use eci_contract::paths::NODES_SOCKET;
use eci_service::confine::confine;
use eci_service::log::{self, Level};
use eci_sys::seccomp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::confine::KEPT;
use crate::receive::{Connection, Progress};
use crate::session::Session;

/// Why this program cannot start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's notifications have another form.
    #[error("this kernel's seccomp notifications are not the ones that this program knows")]
    Sizes,
    /// The kernel has none.
    #[error("this kernel has no seccomp notifications")]
    NoNotifications(#[source] io::Error),
    /// The socket cannot be made.
    #[error("cannot listen on `{NODES_SOCKET}`")]
    Listen(#[source] io::Error),
    /// Capabilities cannot be given up.
    #[error("cannot give up capabilities")]
    Confine(#[source] Errno),
    /// PID 1 could not be told.
    #[error("cannot report readiness")]
    Notify(#[source] io::Error),
    /// poll(2) failed.
    #[error("cannot wait for events")]
    Poll(#[source] Errno),
}

/// Serves for ever.
///
/// # Errors
/// See [`Error`].
pub fn run() -> Result<Infallible, Error> {
    if !seccomp::sizes_are_known().map_err(Error::NoNotifications)? {
        return Err(Error::Sizes);
    }
    let socket = listen().map_err(Error::Listen)?;
    confine(KEPT).map_err(Error::Confine)?;
    eci_service::ready().map_err(Error::Notify)?;
    let mut server = Server { socket, connections: Vec::new(), sessions: Vec::new() };
    loop {
        server.turn()?;
    }
}

/// Binds the socket. Its folder is root's alone.
fn listen() -> io::Result<UnixListener> {
    match fs::remove_file(NODES_SOCKET) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixListener::bind(NODES_SOCKET)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

struct Server {
    socket: UnixListener,
    connections: Vec<Connection>,
    sessions: Vec<Session>,
}

/// What poll(2) is asked about.
#[derive(Clone, Copy)]
enum Source {
    Socket,
    Connection(usize),
    Listener(usize),
    Process(usize),
}

impl Server {
    /// Waits for something to happen and does one step for each that did: no session is served twice before another.
    fn turn(&mut self) -> Result<(), Error> {
        for (source, flags) in self.wait()? {
            match source {
                Source::Socket => self.accept(),
                Source::Connection(index) => self.read(index),
                Source::Process(index) => {
                    if let Some(session) = self.sessions.get_mut(index) {
                        session.finish();
                    }
                }
                Source::Listener(index) => {
                    let Some(session) = self.sessions.get_mut(index) else { continue };
                    if flags.contains(PollFlags::IN) {
                        session.take(now_ms());
                    } else {
                        session.end();
                    }
                }
            }
        }
        self.connections.retain(|connection| !connection.is_done());
        self.sessions.retain(|session| !session.is_over());
        Ok(())
    }

    fn wait(&self) -> Result<Vec<(Source, PollFlags)>, Error> {
        let mut sources = vec![Source::Socket];
        let mut polled = vec![PollFd::new(&self.socket, PollFlags::IN)];
        for (index, connection) in self.connections.iter().enumerate() {
            sources.push(Source::Connection(index));
            polled.push(PollFd::new(connection, PollFlags::IN));
        }
        let now = now_ms();
        let mut wait = None;
        for (index, session) in self.sessions.iter().enumerate() {
            if let Some(process) = session.process() {
                sources.push(Source::Process(index));
                polled.push(PollFd::from_borrowed_fd(process, PollFlags::IN));
            }
            let Some(listener) = session.listener() else { continue };
            // A listener without flags still tells that its container has ended.
            let flags = match session.wait_ms(now) {
                Some(0) => PollFlags::IN,
                Some(ms) => {
                    wait = Some(wait.map_or(ms, |other: u64| other.min(ms)));
                    PollFlags::empty()
                }
                None => PollFlags::empty(),
            };
            sources.push(Source::Listener(index));
            polled.push(PollFd::from_borrowed_fd(listener, flags));
        }
        match poll(&mut polled, wait.map(to_time).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::Poll(errno)),
        }
        let happened = sources.into_iter().zip(polled).map(|(source, fd)| (source, fd.revents()));
        Ok(happened.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn accept(&mut self) {
        // Out of descriptors, or a crun that is gone: it sees that by itself.
        if let Ok((socket, _)) = self.socket.accept() {
            self.connections.push(Connection::new(socket.into()));
        }
    }

    fn read(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        match connection.read() {
            Ok(Progress::Listener(listener, ground)) => self.sessions.push(Session::new(listener, ground)),
            Ok(Progress::Open | Progress::Closed) => {}
            Err(error) => log::failure(Level::Error, "a container's listener was not taken", &error),
        }
    }
}

/// Milliseconds of a clock that nobody sets.
fn now_ms() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or(0) * 1000 + nanoseconds.unwrap_or(0) / 1_000_000
}

fn to_time(ms: u64) -> Timespec {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_failed() {
        for (error, text) in [
            (Error::Listen(io::ErrorKind::NotFound.into()), "cannot listen on `/run/eci/nodes.sock`"),
            (Error::Confine(Errno::PERM), "cannot give up capabilities"),
            (Error::Poll(Errno::NOMEM), "cannot wait for events"),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn times_keep_their_milliseconds() {
        assert_eq!(to_time(2_005), Timespec { tv_sec: 2, tv_nsec: 5_000_000 });
    }
}
