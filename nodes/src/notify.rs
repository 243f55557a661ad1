//! Tells PID 1 that listeners are taken: sd_notify(3), which is one datagram.

use std::env;
use std::io;
use std::os::unix::net::UnixDatagram;

/// Sends `READY=1`; without `NOTIFY_SOCKET` there is nobody to tell.
///
/// # Errors
/// When the socket does not take it.
pub fn ready() -> io::Result<()> {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    UnixDatagram::unbound()?.send_to(b"READY=1", socket).map(drop)
}
