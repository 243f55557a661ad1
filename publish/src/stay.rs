//! From start to end: announce, report, and stay until a signal comes. The gate may be started anew meanwhile; it is told
//! again.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use eci_contract::link::Reply;
use eci_contract::paths::PORTS_SOCKET;
use eci_contract::ports::Announcement;
use eci_service::confine::confine;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::gate::{Answer, Gate};

/// How long the first answer may take. The engine gives up after 16 s, without words.
const ANSWER_DEADLINE: Duration = Duration::from_secs(14);
/// How long letting go may take: the engine, and with it its user, waits.
const LEAVE_DEADLINE: Duration = Duration::from_secs(5);
/// Pause before a gate that is not there is looked for again: a restart takes it a moment.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Pause before a gate that could not publish again is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Why the port is not published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process cannot be set up.
    #[error("cannot give up what publishing a port does not need")]
    Confine(#[source] io::Error),
    /// Signals cannot be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] Errno),
    /// poll(2) failed.
    #[error("cannot wait for the gate")]
    Poll(#[source] io::Error),
    /// Nobody answered.
    #[error("the gate to the host did not answer within {} s", ANSWER_DEADLINE.as_secs())]
    Late,
    /// The gate or the host said no.
    #[error("{reason}")]
    Refused {
        /// Their words.
        reason: String,
    },
}

/// A process that waits for its end.
#[derive(Debug)]
pub struct Stay {
    signals: SignalFd,
    socket: &'static Path,
}

/// Whom a wait ended for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    Signal,
    Gate,
    Nobody,
}

impl Stay {
    /// Blocks the signals that end it and gives up all capabilities.
    ///
    /// # Errors
    /// [`Error::Signals`] and [`Error::Confine`].
    pub fn begin() -> Result<Self, Error> {
        let mut ending = SigSet::empty();
        ending.add(Signal::SIGINT);
        ending.add(Signal::SIGTERM);
        ending.thread_block().map_err(Error::Signals)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&ending, flags).map_err(Error::Signals)?;
        confine(&[]).map_err(|errno| Error::Confine(errno.into()))?;
        Ok(Self { signals, socket: Path::new(PORTS_SOCKET) })
    }

    /// Has the port published. `None` when a signal came first.
    ///
    /// # Errors
    /// [`Error::Late`] and [`Error::Refused`].
    pub fn publish(&self, announcement: &Announcement) -> Result<Option<Gate>, Error> {
        let deadline = Instant::now() + ANSWER_DEADLINE;
        while Instant::now() < deadline {
            match self.ask(announcement, deadline)? {
                Asked::Published(gate) => return Ok(Some(gate)),
                Asked::Refused(reason) => return Err(Error::Refused { reason }),
                Asked::Ended => return Ok(None),
                Asked::Nobody => {
                    if self.wait(None::<&Gate>, LOOK_AGAIN)? == Woken::Signal {
                        return Ok(None);
                    }
                }
            }
        }
        Err(Error::Late)
    }

    /// Stays until a signal comes, and lets go of the port.
    ///
    /// # Errors
    /// [`Error::Poll`].
    pub fn keep(&self, mut gate: Gate, announcement: &Announcement) -> Result<(), Error> {
        loop {
            // The gate says nothing more until it ends.
            if self.wait(Some(&gate), Duration::MAX)? == Woken::Signal {
                return self.leave(gate);
            }
            match self.publish_again(announcement)? {
                Some(again) => gate = again,
                None => return Ok(()),
            }
        }
    }

    /// Asks until it is published. What is against it is in the gate's log. `None` when a signal came first.
    fn publish_again(&self, announcement: &Announcement) -> Result<Option<Gate>, Error> {
        loop {
            let pause = match self.ask(announcement, Instant::now() + ANSWER_DEADLINE)? {
                Asked::Published(gate) => return Ok(Some(gate)),
                Asked::Ended => return Ok(None),
                Asked::Refused(_) => ASK_AGAIN,
                Asked::Nobody => LOOK_AGAIN,
            };
            if self.wait(None::<&Gate>, pause)? == Woken::Signal {
                return Ok(None);
            }
        }
    }

    fn ask(&self, announcement: &Announcement, deadline: Instant) -> Result<Asked, Error> {
        let Ok(mut gate) = Gate::announce(self.socket, announcement) else { return Ok(Asked::Nobody) };
        loop {
            match gate.answer() {
                Answer::Reply(Reply::Ok) => return Ok(Asked::Published(gate)),
                Answer::Reply(Reply::Error(reason)) => return Ok(Asked::Refused(reason)),
                Answer::Reply(Reply::Status(_) | Reply::Evidence(_)) | Answer::Lost => {
                    return Ok(Asked::Nobody);
                }
                Answer::Incomplete => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.wait(Some(&gate), left)? {
                Woken::Gate => {}
                Woken::Nobody => return Ok(Asked::Nobody),
                Woken::Signal => {
                    self.leave(gate)?;
                    return Ok(Asked::Ended);
                }
            }
        }
    }

    /// Waits until the gate has let go as well; a second signal changes nothing.
    fn leave(&self, mut gate: Gate) -> Result<(), Error> {
        gate.leave();
        let deadline = Instant::now() + LEAVE_DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut readable = [PollFd::new(&gate, PollFlags::IN)];
            if wait_for(&mut readable, left)? == 0
                || !matches!(gate.answer(), Answer::Incomplete | Answer::Reply(_))
            {
                return Ok(());
            }
        }
    }

    fn wait(&self, gate: Option<&impl AsFd>, longest: Duration) -> Result<Woken, Error> {
        let mut waited = vec![PollFd::new(&self.signals, PollFlags::IN)];
        waited.extend(gate.map(|gate| PollFd::new(gate, PollFlags::IN)));
        wait_for(&mut waited, longest)?;
        let woken = |index: usize| waited.get(index).is_some_and(|one| !one.revents().is_empty());
        Ok(match (woken(0), woken(1)) {
            (true, _) => Woken::Signal,
            (_, true) => Woken::Gate,
            _ => Woken::Nobody,
        })
    }
}

/// What asking the gate came to.
#[derive(Debug)]
enum Asked {
    Published(Gate),
    Refused(String),
    /// It is not there, or is gone.
    Nobody,
    /// A signal came.
    Ended,
}

/// How many became ready.
fn wait_for(waited: &mut [PollFd<'_>], longest: Duration) -> Result<usize, Error> {
    // Longer than poll(2) takes is for ever.
    let longest = Timespec::try_from(longest).ok();
    match poll(waited, longest.as_ref()) {
        // The signals that end this are read elsewhere; others mean nothing.
        Err(rustix::io::Errno::INTR) => Ok(0),
        outcome => outcome.map_err(|errno| Error::Poll(errno.into())),
    }
}

#[cfg(test)]
mod tests;
