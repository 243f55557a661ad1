//! What outlives this program: descriptors that PID 1 keeps for its next start, and lets go of by itself when the last process of a
//! listener has ended.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use eci_service::store;
pub use eci_service::store::Error;

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
    store::put(&what.name(), file)
}

/// Has PID 1 let go of it.
///
/// # Errors
/// PID 1 cannot be told.
pub fn remove(what: Kept) -> io::Result<()> {
    store::remove(&what.name())
}

/// Takes what earlier processes of this program have left; nothing at its first start. What has a name that it did not give is
/// closed.
///
/// # Errors
/// It is not there as the environment says.
pub fn take() -> Result<Vec<(Kept, OwnedFd)>, Error> {
    let left = store::take()?.into_iter();
    Ok(left.filter_map(|(name, file)| Some((Kept::parse(&name)?, file))).collect())
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
}
