//! The socket on which services say that they are ready and leave descriptors for their next start, as `sd_notify(3)` defines
//! it.
//!
//! Who speaks is what the kernel says (`SCM_CREDENTIALS`). A process with CAP_SYS_ADMIN in the VM may have it say another; nothing
//! comes of that for it, for such a process could hand a service the same by the service's own socket.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg, sockopt::set_socket_passcred,
};

/// Where the socket is. Only root can reach it: its folder has mode 0700.
pub const PATH: &str = "/run/eci/notify.sock";

/// Longest message in bytes; `sd_notify` messages of ours are under 100.
const MAX_MESSAGE_BYTES: usize = 4096;

/// Most descriptors of one message; services of ours send one. Of a message with more, none is taken.
const MAX_DESCRIPTORS: usize = 4;

/// Room for who sent a message.
const CREDENTIALS_BYTES: usize = rustix::cmsg_space!(ScmCredentials(1));
/// Room for that and what came along.
const CREDENTIALS_AND_DESCRIPTORS_BYTES: usize =
    rustix::cmsg_space!(ScmCredentials(1), ScmRights(MAX_DESCRIPTORS));

/// What a service said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// `READY=1`.
    pub ready: bool,
    /// `X_ECI_ADDRESS=`: the network client's address with prefix length, empty when it lost it.
    pub address: Option<String>,
    /// `FDSTORE=1` or `FDSTOREREMOVE=1`.
    pub descriptors: Option<Descriptors>,
    /// `FDNAME=`: the name of the descriptors.
    pub name: Option<String>,
}

/// What is to be done with descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptors {
    /// Those that came along are kept for the next start.
    Store,
    /// Those of that name are let go of.
    Remove,
}

/// The bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: UnixDatagram,
}

impl Listener {
    /// Binds the socket and asks the kernel for senders' credentials.
    ///
    /// # Errors
    /// When `/run/eci` is not there.
    pub fn bind() -> io::Result<Self> {
        drop(std::fs::remove_file(PATH));
        let socket = UnixDatagram::bind(PATH)?;
        socket.set_nonblocking(true)?;
        set_socket_passcred(&socket, true)?;
        Ok(Self { socket })
    }

    /// The next message, with the process id that the kernel vouches for, and the descriptors that came along if that process
    /// `may_store` any; `None` when there is none. Others never get into this process: to close one may take as long as a file
    /// system wants.
    #[must_use]
    pub fn receive(&self, may_store: impl Fn(u32) -> bool) -> Option<(u32, Message, Vec<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); CREDENTIALS_BYTES];
        let (sender, ..) = self.read(RecvFlags::PEEK, &mut space)?;
        let mut more_space = [MaybeUninit::uninit(); CREDENTIALS_AND_DESCRIPTORS_BYTES];
        let takes = sender.is_some_and(may_store);
        let space = if takes { more_space.as_mut_slice() } else { space.as_mut_slice() };
        let (sender, message, descriptors) = self.read(RecvFlags::empty(), space)?;
        Some((sender?, message, descriptors))
    }

    fn read(
        &self,
        flags: RecvFlags,
        space: &mut [MaybeUninit<u8>],
    ) -> Option<(Option<u32>, Message, Vec<OwnedFd>)> {
        let mut bytes = [0; MAX_MESSAGE_BYTES];
        let mut control = RecvAncillaryBuffer::new(space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = flags | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.socket, &mut parts, &mut control, flags).ok()?;
        let (mut sender, mut descriptors) = (None, Vec::new());
        for message in control.drain() {
            match message {
                RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.pid),
                RecvAncillaryMessage::ScmRights(files) => descriptors.extend(files),
                _ => {}
            }
        }
        // The room is rounded up.
        if received.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > MAX_DESCRIPTORS {
            descriptors.clear();
        }
        let sender = sender.and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok());
        let text = String::from_utf8_lossy(bytes.get(..received.bytes).unwrap_or_default());
        Some((sender, parse(&text), descriptors))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn parse(text: &str) -> Message {
    let mut message = Message::default();
    for line in text.lines() {
        match line.split_once('=') {
            Some(("READY", "1")) => message.ready = true,
            Some(("FDSTORE", "1")) => message.descriptors = Some(Descriptors::Store),
            Some(("FDSTOREREMOVE", "1")) => message.descriptors = Some(Descriptors::Remove),
            Some(("FDNAME", name)) => message.name = Some(name.to_owned()),
            Some(("X_ECI_ADDRESS", address)) => message.address = Some(address.to_owned()),
            _ => {}
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::IoSlice;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    #[test]
    fn readiness_and_address_are_understood_and_the_rest_is_ignored() {
        let message = parse("STATUS=up\nREADY=1\nX_ECI_ADDRESS=10.0.2.15/24\n");
        let expected = Message { ready: true, address: Some("10.0.2.15/24".into()), ..Message::default() };
        assert_eq!(message, expected);
        assert_eq!(parse("READY=0\nSTOPPING=1\nrubbish"), Message::default());
    }

    #[test]
    fn descriptors_come_from_whom_may_store_them_and_not_too_many() {
        let (theirs, socket) = UnixDatagram::pair().unwrap();
        set_socket_passcred(&socket, true).unwrap();
        let listener = Listener { socket };
        let file = std::fs::File::open("/dev/null").unwrap();
        let send = |count: usize| {
            let files = vec![file.as_fd(); count];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&files));
            let text = [IoSlice::new(b"FDSTORE=1\nFDNAME=x")];
            sendmsg(&theirs, &text, &mut control, SendFlags::empty()).unwrap();
        };
        let own = std::process::id();
        for (sent, may_store, taken) in [
            (1, true, 1),
            (1, false, 0),
            (MAX_DESCRIPTORS, true, MAX_DESCRIPTORS),
            (MAX_DESCRIPTORS + 1, true, 0),
            (MAX_DESCRIPTORS + 4, true, 0),
        ] {
            send(sent);
            let (sender, message, files) = listener.receive(|pid| may_store && pid == own).unwrap();
            assert_eq!((sender, message.name.as_deref(), files.len()), (own, Some("x"), taken));
            assert!(listener.receive(|_| true).is_none(), "what was looked at is taken");
        }
    }

    #[test]
    fn descriptors_are_stored_and_removed_by_name() {
        let message = |descriptors, name: &str| Message {
            descriptors: Some(descriptors),
            name: Some(name.to_owned()),
            ..Message::default()
        };
        assert_eq!(parse("FDSTORE=1\nFDNAME=listener-1-57"), message(Descriptors::Store, "listener-1-57"));
        assert_eq!(parse("FDNAME=x\nFDSTOREREMOVE=1\n"), message(Descriptors::Remove, "x"));
        assert_eq!(parse("FDSTORE=0\nFDSTOREREMOVE=yes"), Message::default());
    }
}
