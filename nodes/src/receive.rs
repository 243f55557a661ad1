//! A listener on its way from crun: one connection, one message, the *container process state* of the OCI runtime specification
//! with the descriptor beside it.
//!
//! crun connects when it begins and sends when the filter is in force, which for a container that was created is when it is
//! started. It may keep the connection for as long as the container runs: the message ends with its JSON.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use eci_contract::nodes::{Ground, VERSION};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::Deserialize;

/// Upper bound of a message in bytes. crun repeats the annotations of the bundle, which is 8 MiB at most; escaping makes them
/// up to twice as long.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// What is read at once.
const PART_BYTES: usize = 64 * 1024;
/// Name of the listener among the descriptors of the message.
const LISTENER: &str = "seccompFd";

/// Why a connection gave no listener.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read what crun sends")]
    Read(#[source] Errno),
    /// The message is not as expected.
    #[error("crun's message is not understood")]
    Parse(#[source] serde_json::Error),
    /// What `eci-runc` wrote is not in it.
    #[error("the message has no metadata of `eci-runc`'s")]
    Metadata(#[source] serde_json::Error),
    /// Of another version.
    #[error("`eci-runc` writes version {found}, not {VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
    /// It has another number of descriptors.
    #[error("the message does not have one descriptor, named `{LISTENER}`")]
    Descriptors,
    /// Longer than [`MAX_MESSAGE_BYTES`].
    #[error("the message has more than {MAX_MESSAGE_BYTES} bytes")]
    TooLong,
}

/// A connection, and what has come on it.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    text: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    is_done: bool,
}

/// What became of a connection.
#[derive(Debug)]
pub enum Progress {
    /// There is more to come.
    Open,
    /// It was closed without a message: the container was never started.
    Closed,
    /// The listener of a container's process.
    Listener(OwnedFd, Ground),
}

impl Connection {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, text: Vec::new(), descriptors: Vec::new(), is_done: false }
    }

    /// Whether there is nothing more to read: its listener came, it was closed, or it is not understood.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Reads what is there, without waiting.
    ///
    /// # Errors
    /// When it is not what crun sends.
    pub fn read(&mut self) -> Result<Progress, Error> {
        let progress = self.read_part();
        self.is_done = !matches!(progress, Ok(Progress::Open));
        progress
    }

    fn read_part(&mut self) -> Result<Progress, Error> {
        let mut part = vec![0; PART_BYTES];
        // Room for more than the one that is expected: more are refused, not cut off.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let length = match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut part)], &mut control, flags) {
            Ok(received) => received.bytes,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Progress::Open),
            Err(errno) => return Err(Error::Read(errno)),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        self.text.extend(part.get(..length).unwrap_or_default());
        match length {
            0 if self.text.is_empty() => Ok(Progress::Closed),
            0 => self.finish(),
            _ if self.text.len() > MAX_MESSAGE_BYTES => Err(Error::TooLong),
            _ if self.text.trim_ascii_end().ends_with(b"}") => match self.finish() {
                // A brace in the middle.
                Err(Error::Parse(error)) if error.is_eof() => Ok(Progress::Open),
                outcome => outcome,
            },
            _ => Ok(Progress::Open),
        }
    }

    fn finish(&mut self) -> Result<Progress, Error> {
        let ground = parse(&self.text)?;
        match (self.descriptors.pop(), self.descriptors.is_empty()) {
            (Some(listener), true) => Ok(Progress::Listener(listener, ground)),
            _ => Err(Error::Descriptors),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The parts of the message that matter; the state beside them is crun's business.
#[derive(Deserialize)]
struct Message {
    fds: Vec<String>,
    metadata: String,
}

fn parse(text: &[u8]) -> Result<Ground, Error> {
    let message: Message = serde_json::from_slice(text).map_err(Error::Parse)?;
    if message.fds != [LISTENER] {
        return Err(Error::Descriptors);
    }
    let ground: Ground = serde_json::from_str(&message.metadata).map_err(Error::Metadata)?;
    if ground.version == VERSION { Ok(ground) } else { Err(Error::Version { found: ground.version }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{IoSlice, Write};
    use std::os::unix::net::UnixStream;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    const MESSAGE: &str = r#"{"ociVersion": "0.2.0", "fds": ["seccompFd"], "pid": 7,
        "metadata": "{\"version\":1,\"root_device\":57}", "state": {"id": "c1", "annotations": {"a": "{}"}}}"#;

    fn pair() -> (UnixStream, Connection) {
        let (theirs, ours) = UnixStream::pair().unwrap();
        (theirs, Connection::new(ours.into()))
    }

    fn send(socket: &UnixStream, text: &str, descriptors: usize) {
        let null = std::fs::File::open("/dev/null").unwrap();
        let all = vec![null.as_fd(); descriptors];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&all));
        sendmsg(socket, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::empty()).unwrap();
    }

    #[test]
    fn a_message_in_pieces_gives_its_listener_before_the_connection_ends() {
        let (mut theirs, mut connection) = pair();
        assert!(matches!(connection.read(), Ok(Progress::Open)));
        // The first piece ends with a brace of its own.
        let at = MESSAGE.find("57}").unwrap() + 3;
        send(&theirs, &MESSAGE[..at], 1);
        assert!(matches!(connection.read(), Ok(Progress::Open)));
        theirs.write_all(&MESSAGE.as_bytes()[at..]).unwrap();
        let Ok(Progress::Listener(_, ground)) = connection.read() else { panic!("no listener") };
        assert_eq!(ground, Ground { version: 1, root_device: 57 });
    }

    #[test]
    fn a_container_that_is_never_started_sends_nothing() {
        let (theirs, mut connection) = pair();
        drop(theirs);
        assert!(matches!(connection.read(), Ok(Progress::Closed)));
    }

    #[test]
    fn what_is_not_a_container_s_listener_is_refused() {
        for (text, descriptors) in [
            (MESSAGE.to_owned(), 0),
            (MESSAGE.to_owned(), 2),
            (MESSAGE.replace(r#"["seccompFd"]"#, r#"["seccompFd", "seccompFd"]"#), 1),
            (MESSAGE.replace("seccompFd", "pidfd"), 1),
            (MESSAGE.replace(r#"\"version\":1"#, r#"\"version\":2"#), 1),
            (MESSAGE.replace("root_device", "root"), 1),
            ("{}".to_owned(), 1),
            ("}".to_owned(), 1),
        ] {
            let (theirs, mut connection) = pair();
            if descriptors == 0 {
                (&theirs).write_all(text.as_bytes()).unwrap();
            } else {
                send(&theirs, &text, descriptors);
            }
            assert!(connection.read().is_err(), "{text}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        assert_eq!(Error::Version { found: 2 }.to_string(), "`eci-runc` writes version 2, not 1");
        assert_eq!(
            Error::Descriptors.to_string(),
            "the message does not have one descriptor, named `seccompFd`"
        );
        assert_eq!(Error::TooLong.to_string(), "the message has more than 16777216 bytes");
        assert_eq!(Error::Read(Errno::IO).to_string(), "cannot read what crun sends");
    }
}
