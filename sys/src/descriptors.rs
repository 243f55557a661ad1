//! Which descriptors the next program gets.

use std::io;

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
