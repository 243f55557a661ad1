//! Tells PID 1 that the gate serves: sd_notify(3), which is one datagram.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;

/// Why PID 1 was not told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket that `NOTIFY_SOCKET` names does not take the message.
    #[error("cannot write to the notify socket `{}`", .socket.display())]
    Send {
        /// `NOTIFY_SOCKET`.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Sends `READY=1`; without `NOTIFY_SOCKET` there is nobody to tell.
///
/// # Errors
/// [`Error::Send`].
pub fn ready() -> Result<(), Error> {
    let Some(socket) = env::var_os("NOTIFY_SOCKET").map(PathBuf::from) else { return Ok(()) };
    send(&socket, b"READY=1").map_err(|source| Error::Send { socket, source })
}

/// A name that starts with `@` is in the abstract namespace.
fn send(socket: &std::path::Path, message: &[u8]) -> io::Result<()> {
    let address = match socket.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message, &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_arrives_at_a_path_and_at_an_abstract_name() {
        let home = tempfile::tempdir().expect("temporary folder");
        let path = home.path().join("notify");
        let abstract_name = format!("@eci-gate-notify-{}", std::process::id());
        let bound =
            SocketAddr::from_abstract_name(abstract_name.trim_start_matches('@')).expect("an address");
        for (socket, receiver) in [
            (path.clone(), UnixDatagram::bind(&path).expect("bound")),
            (PathBuf::from(abstract_name), UnixDatagram::bind_addr(&bound).expect("bound")),
        ] {
            send(&socket, b"READY=1").expect("sent");
            let mut message = [0; 16];
            let length = receiver.recv(&mut message).expect("received");
            assert_eq!(&message[..length], b"READY=1");
        }
    }

    #[test]
    fn a_missing_socket_is_named() {
        let error = send(&PathBuf::from("/nonexistent/notify"), b"READY=1").expect_err("no such socket");
        let shown = Error::Send { socket: "/nonexistent/notify".into(), source: error }.to_string();
        assert_eq!(shown, "cannot write to the notify socket `/nonexistent/notify`");
    }
}
