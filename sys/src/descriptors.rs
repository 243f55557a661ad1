//! Which descriptors the next program, or a forked child, keeps.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Marks every descriptor from `first` on as closed on exec.
///
/// # Errors
/// The error of `close_range(2)`: `ENOSYS` before Linux 5.11.
#[expect(unsafe_code, reason = "rustix has no close_range")]
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: the call takes numbers only, and with this flag closes nothing now: no owned descriptor becomes
    // invalid in this process.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes every descriptor but the standard ones and those of `kept`, in a forked child that uses no other from then on.
///
/// Owners of the others are left behind with numbers of nothing: the child must end without dropping them, as one of
/// [`crate::child::start`] does.
///
/// # Errors
/// The error of `close_range(2)`: `ENOSYS` before Linux 5.9.
#[expect(unsafe_code, reason = "rustix has no close_range")]
pub fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<_> = kept.iter().map(|fd| fd.as_raw_fd().unsigned_abs()).filter(|fd| *fd > 2).collect();
    kept.sort_unstable();
    let mut first: libc::c_uint = 3;
    for end in kept.into_iter().map(Some).chain([None]) {
        let last = end.map_or(libc::c_uint::MAX, |fd| fd.saturating_sub(1));
        if first <= last {
            // SAFETY: the call takes numbers only. That owned descriptors are closed under their owners is what the
            // function is for, and its documentation says what the caller must not do then.
            if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        first = end.map_or(libc::c_uint::MAX, |fd| fd.saturating_add(1));
    }
    Ok(())
}
