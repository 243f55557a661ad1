//! The loop: new connections, listeners that come on them, their notifications, and children that have ended.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

use eci_contract::nodes::{Ground, VERSION};
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
use crate::slots::Slots;
use crate::store::{self, Kept};

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
    /// There is no memory for notifications.
    #[error("cannot make memory for notifications")]
    Memory(#[source] io::Error),
    /// PID 1 does not keep what the next process needs.
    #[error("cannot leave descriptors with PID 1")]
    Keep(#[source] io::Error),
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
    // Without what was left this one serves whoever comes.
    let left = store::take().unwrap_or_else(|error| {
        log::failure(Level::Error, "listeners of running containers are lost", &error);
        Vec::new()
    });
    let mut server = Server::over(left)?;
    confine(KEPT).map_err(Error::Confine)?;
    server.sessions.iter_mut().for_each(|session| session.take_up(&server.slots));
    eci_service::ready().map_err(Error::Notify)?;
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
    slots: Slots,
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
    /// Takes up what an earlier process has left, and makes what it has not.
    fn over(left: Vec<(Kept, OwnedFd)>) -> Result<Self, Error> {
        let (mut socket, mut slots, mut listeners) = (None, None, Vec::new());
        for (kept, file) in left {
            match kept {
                Kept::Socket => socket = Some(UnixListener::from(file)),
                Kept::Notifications => slots = Slots::over(file).ok(),
                Kept::Listener { slot, root_device } => listeners.push((slot, root_device, file)),
            }
        }
        let socket = match socket {
            Some(socket) => socket,
            None => {
                let socket = listen().map_err(Error::Listen)?;
                store::put(Kept::Socket, socket.as_fd()).map_err(Error::Keep)?;
                socket
            }
        };
        let slots = match slots {
            Some(slots) => slots,
            None => {
                let slots = Slots::new().map_err(Error::Memory)?;
                store::put(Kept::Notifications, slots.file()).map_err(Error::Keep)?;
                slots
            }
        };
        let mut server = Self { socket, slots, connections: Vec::new(), sessions: Vec::new() };
        for (slot, root_device, listener) in listeners {
            if is_listener(&listener) && server.slots.take_up(slot) {
                let ground = Ground { version: VERSION, root_device };
                server.sessions.push(Session::new(listener, ground, Some(slot)));
            } else {
                let_go_of(Kept::Listener { slot, root_device });
            }
        }
        Ok(server)
    }

    /// Waits for something to happen and does one step for each that did: no session is served twice before another.
    fn turn(&mut self) -> Result<(), Error> {
        for (source, flags) in self.wait()? {
            match source {
                Source::Socket => self.accept(),
                Source::Connection(index) => self.read(index),
                Source::Process(index) => {
                    if let Some(session) = self.sessions.get_mut(index) {
                        session.finish(&self.slots);
                    }
                }
                Source::Listener(index) => {
                    let Some(session) = self.sessions.get_mut(index) else { continue };
                    if flags.contains(PollFlags::IN) {
                        session.take(now_ms(), &self.slots);
                    } else {
                        session.end();
                    }
                }
            }
        }
        self.connections.retain(|connection| !connection.is_done());
        if self.sessions.iter().any(Session::is_over) {
            self.let_go();
        }
        Ok(())
    }

    /// Forgets the sessions that are over.
    fn let_go(&mut self) {
        let (over, open) = mem::take(&mut self.sessions).into_iter().partition(Session::is_over);
        self.sessions = open;
        for session in over {
            if let Some(kept) = session.kept() {
                // PID 1 sees by itself that it has no process any more, but maybe after another has got the slot.
                let_go_of(kept);
            }
            if let Some(slot) = session.slot() {
                self.slots.release(slot);
            }
        }
    }

    /// Serves a new listener, and leaves it with PID 1 for the next process: before the first answer, so that a caller is
    /// never served by one and unknown to the next.
    fn add(&mut self, listener: OwnedFd, ground: Ground) {
        let session = Session::new(listener, ground, self.slots.claim());
        if let (Some(kept), Some(listener)) = (session.kept(), session.listener()) {
            if let Err(error) = store::put(kept, listener) {
                log::failure(Level::Warn, "a container's listener is not kept for a restart", &error);
            }
        }
        self.sessions.push(session);
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
            Ok(Progress::Listener(listener, ground)) => self.add(listener, ground),
            Ok(Progress::Open | Progress::Closed) => {}
            Err(error) => log::failure(Level::Error, "a container's listener was not taken", &error),
        }
    }
}

/// Has PID 1 let go of a listener that is not served any more.
fn let_go_of(kept: Kept) {
    if let Err(error) = store::remove(kept) {
        log::failure(Level::Warn, "a listener that nobody serves is kept", &error);
    }
}

/// Whether the kernel knows it as one: what it does not know by that it could go on calling readable.
fn is_listener(file: &OwnedFd) -> bool {
    seccomp::is_waiting(file.as_fd(), 0).is_ok()
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
    use std::fs::File;

    use eci_sys::notifications::Notifications;

    #[test]
    fn errors_say_what_failed() {
        for (error, text) in [
            (Error::Listen(io::ErrorKind::NotFound.into()), "cannot listen on `/run/eci/nodes.sock`"),
            (Error::Memory(io::ErrorKind::OutOfMemory.into()), "cannot make memory for notifications"),
            (Error::Keep(io::ErrorKind::NotFound.into()), "cannot leave descriptors with PID 1"),
            (Error::Confine(Errno::PERM), "cannot give up capabilities"),
            (Error::Poll(Errno::NOMEM), "cannot wait for events"),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn what_was_left_is_taken_up_but_what_is_no_listener() {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixListener::bind(folder.path().join("socket")).unwrap();
        let memory = Notifications::new(3).unwrap().file().try_clone_to_owned().unwrap();
        let null = OwnedFd::from(File::open("/dev/null").unwrap());
        let listener = Kept::Listener { slot: 1, root_device: 57 };
        let left = vec![(listener, null), (Kept::Notifications, memory), (Kept::Socket, socket.into())];
        let mut server = Server::over(left).unwrap();
        assert!(server.sessions.is_empty());
        assert!(server.socket.local_addr().unwrap().as_pathname().unwrap().starts_with(folder.path()));
        assert_eq!([(); 4].map(|()| server.slots.claim()), [Some(0), Some(1), Some(2), None]);
    }

    #[test]
    fn times_keep_their_milliseconds() {
        assert_eq!(to_time(2_005), Timespec { tv_sec: 2, tv_nsec: 5_000_000 });
    }
}
