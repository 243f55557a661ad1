//! The socket on which services say that they are ready, as `sd_notify(3)` defines it.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt::set_socket_passcred,
};

/// Where the socket is. Only root can reach it: its folder has mode 0700.
pub const PATH: &str = "/run/eci/notify.sock";

/// Longest message in bytes; `sd_notify` messages of ours are under 100.
const MAX_MESSAGE_BYTES: usize = 4096;

/// What a service said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// `READY=1`.
    pub ready: bool,
    /// `X_ECI_ADDRESS=`: the network client's address with prefix length, empty when it lost it.
    pub address: Option<String>,
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

    /// The next message, with the process id that the kernel vouches for; `None` when there is none.
    #[must_use]
    pub fn receive(&self) -> Option<(u32, Message)> {
        let mut bytes = [0; MAX_MESSAGE_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&self.socket, &mut parts, &mut control, RecvFlags::DONTWAIT).ok()?;
        let sender = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmCredentials(credentials) => Some(credentials.pid),
            _ => None,
        })?;
        let pid = u32::try_from(sender.as_raw_nonzero().get()).ok()?;
        let text = String::from_utf8_lossy(bytes.get(..received.bytes).unwrap_or_default());
        Some((pid, parse(&text)))
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
            Some(("X_ECI_ADDRESS", address)) => message.address = Some(address.to_owned()),
            _ => {}
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_and_address_are_understood_and_the_rest_is_ignored() {
        let message = parse("STATUS=up\nREADY=1\nX_ECI_ADDRESS=10.0.2.15/24\n");
        assert_eq!(message, Message { ready: true, address: Some("10.0.2.15/24".into()) });
        assert_eq!(parse("READY=0\nSTOPPING=1\nrubbish"), Message::default());
    }
}
