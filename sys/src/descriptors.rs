//! Which descriptors the next program, or a forked child, keeps, and those that the program before has left.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// Held while descriptors are taken, so that none is taken twice.
static TAKING: Mutex<()> = Mutex::new(());

/// Takes descriptors that the program before this one has left open for it, by their numbers. They are closed on exec from then
/// on; a program that makes any inheritable itself takes none afterwards.
///
/// # Errors
/// `EBADF` for a number that is none of an inherited descriptor; those before it are closed.
#[expect(unsafe_code, reason = "numbers of inherited descriptors come in the environment")]
pub fn take_inherited(numbers: impl IntoIterator<Item = i32>) -> io::Result<Vec<OwnedFd>> {
    let _taking = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let take = |number| {
        // SAFETY: the call takes numbers only, and for one that is not open gives an error.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        if number <= 2 || flags < 0 || flags & libc::FD_CLOEXEC != 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        // SAFETY: as above. The standard library and this project open everything close-on-exec, and what a program has made
        // inheritable comes after (a duty of the caller's): nobody in this process owns this descriptor or relies on it.
        if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it is open, and nobody owns it: an owned one is close-on-exec, as this one is from now on, so that it
        // is not taken again. The lock keeps two callers from finding the same one.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    };
    numbers.into_iter().map(take).collect()
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::IntoRawFd;

    #[test]
    fn only_what_is_inherited_is_taken_and_once() {
        let own = File::open("/dev/null").unwrap();
        assert!(take_inherited([own.as_raw_fd()]).is_err(), "what is close-on-exec has an owner here");
        for number in [-1, 0, 2, 1_000_000] {
            assert!(take_inherited([number]).is_err(), "{number}");
        }
        rustix::io::fcntl_setfd(&own, rustix::io::FdFlags::empty()).unwrap();
        let number = own.into_raw_fd();
        let taken = take_inherited([number]).unwrap();
        assert_eq!(taken[0].as_raw_fd(), number);
        assert!(take_inherited([number]).is_err());
    }
}
