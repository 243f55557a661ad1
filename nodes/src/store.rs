//! What outlives this program: descriptors that PID 1 keeps for its next start, by systemd's protocol
//! (`sd_pid_notify_with_fds(3)`, `sd_listen_fds(3)`). PID 1 lets go of a listener by itself when the last process of it has ended.

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

/// What a descriptor is for; its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The socket that crun connects to: who comes while this program does not run waits.
    Socket,
    /// The memory for notifications.
    Notifications,
    /// A container's listener.
    Listener {
        /// Where its notifications are.
        slot: usize,
        /// The root filesystem that its nodes may be on.
        root_device: u64,
    },
}

impl Kept {
    fn name(self) -> String {
        match self {
            Self::Socket => "socket".to_owned(),
            Self::Notifications => "notifications".to_owned(),
            Self::Listener { slot, root_device } => format!("listener-{slot}-{root_device}"),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        match name {
            "socket" => Some(Self::Socket),
            "notifications" => Some(Self::Notifications),
            name => {
                let (slot, root_device) = name.strip_prefix("listener-")?.split_once('-')?;
                Some(Self::Listener { slot: slot.parse().ok()?, root_device: root_device.parse().ok()? })
            }
        }
    }
}

/// Leaves `file` with PID 1, in place of what has that name there.
///
/// # Errors
/// PID 1 does not take it.
pub fn put(what: Kept, file: BorrowedFd<'_>) -> io::Result<()> {
    remove(what)?;
    let files = [file];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&files));
    send(&format!("FDSTORE=1\nFDNAME={}", what.name()), &mut control)
}

/// Has PID 1 let go of it.
///
/// # Errors
/// PID 1 cannot be told.
pub fn remove(what: Kept) -> io::Result<()> {
    send(&format!("FDSTOREREMOVE=1\nFDNAME={}", what.name()), &mut SendAncillaryBuffer::default())
}

/// Without `NOTIFY_SOCKET` there is nobody to tell.
fn send(text: &str, control: &mut SendAncillaryBuffer<'_, '_, '_>) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    sendmsg(&socket, &[IoSlice::new(text.as_bytes())], control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes what earlier processes of this program have left; nothing at its first start. What has a name that it did not give is
/// closed.
///
/// # Errors
/// It is not there as the environment says.
pub fn take() -> Result<Vec<(Kept, OwnedFd)>, Error> {
    let text = |name| env::var(name).unwrap_or_default();
    // The variables are another program's when they name another process.
    if text("LISTEN_PID") != std::process::id().to_string() {
        return Ok(Vec::new());
    }
    let kinds = read_names(&text("LISTEN_FDS"), &text("LISTEN_FDNAMES"))?;
    let files = take_inherited((FIRST..).take(kinds.len())).map_err(Error::Take)?;
    Ok(kinds.into_iter().zip(files).filter_map(|(kind, file)| Some((kind?, file))).collect())
}

fn read_names(count: &str, names: &str) -> Result<Vec<Option<Kept>>, Error> {
    let count: usize = count.parse().map_err(|_| Error::Count)?;
    let kinds: Vec<_> = if count == 0 { Vec::new() } else { names.split(':').map(Kept::parse).collect() };
    if kinds.len() == count { Ok(kinds) } else { Err(Error::Count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_carries_what_its_descriptor_is_for() {
        let most = Kept::Listener { slot: usize::MAX, root_device: u64::MAX };
        for kept in [Kept::Socket, Kept::Notifications, Kept::Listener { slot: 3, root_device: 57 }, most] {
            assert_eq!(Kept::parse(&kept.name()), Some(kept));
            assert!(kept.name().len() <= 60, "PID 1 takes no longer name");
        }
        for other in [
            "",
            "stored",
            "listener",
            "listener-",
            "listener-1",
            "listener-1-",
            "listener--1-2",
            "listener-x-2",
        ] {
            assert_eq!(Kept::parse(other), None, "{other}");
        }
    }

    #[test]
    fn number_and_names_have_to_fit() {
        let kinds = read_names("3", "socket:stored:listener-0-57").unwrap();
        assert_eq!(kinds, [Some(Kept::Socket), None, Some(Kept::Listener { slot: 0, root_device: 57 })]);
        assert_eq!(read_names("0", "").unwrap(), []);
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
