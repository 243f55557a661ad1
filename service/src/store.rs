//! What outlives a service: descriptors that PID 1 keeps for its next start, by systemd's protocol
//! (`sd_pid_notify_with_fds(3)`, `sd_listen_fds(3)`), each under a name.

use std::env;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use eci_sys::descriptors::take_inherited;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Number of the first descriptor that is passed.
const FIRST: i32 = 3;

/// Why what an earlier process left cannot be taken up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Number and names do not fit.
    #[error("`LISTEN_FDS` and `LISTEN_FDNAMES` do not say how many descriptors there are")]
    Count,
    /// They are not there.
    #[error("descriptors that were kept are not there")]
    Take(#[source] io::Error),
}

/// Leaves `file` with PID 1, in place of what has that name there. A name has 60 bytes at most, and no colon.
///
/// # Errors
/// PID 1 does not take it.
pub fn put(name: &str, file: BorrowedFd<'_>) -> io::Result<()> {
    remove(name)?;
    let files = [file];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&files));
    send(&format!("FDSTORE=1\nFDNAME={name}"), &mut control)
}

/// Has PID 1 let go of it.
///
/// # Errors
/// PID 1 cannot be told.
pub fn remove(name: &str) -> io::Result<()> {
    send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &mut SendAncillaryBuffer::default())
}

/// Without `NOTIFY_SOCKET` there is nobody to tell.
fn send(text: &str, control: &mut SendAncillaryBuffer<'_, '_, '_>) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    sendmsg(&socket, &[IoSlice::new(text.as_bytes())], control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes what earlier processes of this service have left, each with its name; nothing at its first start.
///
/// # Errors
/// It is not there as the environment says.
pub fn take() -> Result<Vec<(String, OwnedFd)>, Error> {
    let text = |name| env::var(name).unwrap_or_default();
    // The variables are another program's when they name another process.
    if text("LISTEN_PID") != std::process::id().to_string() {
        return Ok(Vec::new());
    }
    let names = read_names(&text("LISTEN_FDS"), &text("LISTEN_FDNAMES"))?;
    let files = take_inherited((FIRST..).take(names.len())).map_err(Error::Take)?;
    Ok(names.into_iter().zip(files).collect())
}

fn read_names(count: &str, names: &str) -> Result<Vec<String>, Error> {
    let count: usize = count.parse().map_err(|_| Error::Count)?;
    let names: Vec<_> = if count == 0 { Vec::new() } else { names.split(':').map(str::to_owned).collect() };
    if names.len() == count { Ok(names) } else { Err(Error::Count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_names_have_to_fit() {
        assert_eq!(read_names("3", "socket:stored:x").unwrap(), ["socket", "stored", "x"]);
        assert_eq!(read_names("0", "").unwrap(), [""; 0]);
        for (count, names) in [("", ""), ("2", "socket"), ("1", "socket:socket"), ("-1", "socket")] {
            assert!(read_names(count, names).is_err(), "{count} {names}");
        }
    }

    #[test]
    fn errors_say_what_is_missing() {
        assert_eq!(
            Error::Count.to_string(),
            "`LISTEN_FDS` and `LISTEN_FDNAMES` do not say how many descriptors there are"
        );
        let error = Error::Take(io::ErrorKind::NotFound.into());
        assert_eq!(error.to_string(), "descriptors that were kept are not there");
    }
}
