//! What every service of the VM does for PID 1: [`confine`] (gives up what it does not need), [`ready`] (says that it serves),
//! [`log`] (a line for the log that PID 1 keeps), [`store`] (what PID 1 keeps for its next start).

pub mod confine;
pub mod log;
pub mod store;

use std::io;

/// Sends `READY=1` as sd_notify(3) defines it; without `NOTIFY_SOCKET` there is nobody to tell.
///
/// # Errors
/// When the socket does not take it.
pub fn ready() -> io::Result<()> {
    sd_notify::notify(&[sd_notify::NotifyState::Ready])
}
