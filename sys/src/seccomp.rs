//! System calls that a seccomp filter hands to this process: taking one, asking whether its caller still waits, answering
//! (`seccomp_unotify(2)`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes of a `struct seccomp_notif`, as the kernel fills it in.
pub const NOTIFICATION_BYTES: usize = size_of::<libc::seccomp_notif>();

/// Whether this kernel's structures have the sizes that this module was compiled with.
///
/// # Errors
/// That of `seccomp(2)`: `ENOSYS` or `EINVAL` where there are no notifications.
#[expect(unsafe_code, reason = "rustix has no seccomp")]
pub fn sizes_are_known() -> io::Result<bool> {
    let mut sizes = libc::seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
    // SAFETY: the kernel writes one `seccomp_notif_sizes` to `sizes`, a live local of that type.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_NOTIF_SIZES,
            0,
            (&raw mut sizes).cast::<libc::c_void>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let ours = (
        size_of::<libc::seccomp_notif>(),
        size_of::<libc::seccomp_notif_resp>(),
        size_of::<libc::seccomp_data>(),
    );
    Ok((
        usize::from(sizes.seccomp_notif),
        usize::from(sizes.seccomp_notif_resp),
        usize::from(sizes.seccomp_data),
    ) == ours)
}

/// Takes the next notification. Waits for one unless poll(2) said that there is one.
///
/// # Errors
/// `ENOENT` when its caller was killed meanwhile.
#[expect(unsafe_code, reason = "a listener is an ioctl interface")]
pub fn receive(listener: BorrowedFd<'_>) -> io::Result<[u8; NOTIFICATION_BYTES]> {
    let mut bytes = [0_u8; NOTIFICATION_BYTES];
    // SAFETY: `bytes` is a live local of a notification's size, and zeroed.
    unsafe { receive_at(listener, bytes.as_mut_ptr()) }.map(|()| bytes)
}

/// The same into memory of the caller's.
///
/// # Safety
/// `at` has room for [`NOTIFICATION_BYTES`], which are zero, and which nobody else reads or writes meanwhile.
///
/// # Errors
/// As [`receive`].
#[expect(unsafe_code, reason = "a listener is an ioctl interface")]
pub(crate) unsafe fn receive_at(listener: BorrowedFd<'_>, at: *mut u8) -> io::Result<()> {
    // SAFETY: the request writes one `seccomp_notif`, whose size is in the request's number, to `at`, which has that size
    // and is zeroed as the call requires (a duty of the caller's); the kernel asks for no alignment. The descriptor is
    // borrowed and stays open for the call, which for one of another kind gives an error.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), request(READ_WRITE, 0, NOTIFICATION_BYTES), at) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Answers notification `id`: the call gives 0, or fails with the number `error`.
///
/// # Errors
/// `ENOENT` when its caller was killed meanwhile.
#[expect(unsafe_code, reason = "a listener is an ioctl interface")]
pub fn answer(listener: BorrowedFd<'_>, id: u64, error: i32) -> io::Result<()> {
    let mut response = libc::seccomp_notif_resp { id, val: 0, error: -error, flags: 0 };
    // SAFETY: the request reads one `seccomp_notif_resp`, whose size is in the request's number, from `response`, a live
    // local of that type; the descriptor is borrowed and stays open for the call.
    let result = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            request(READ_WRITE, 1, size_of::<libc::seccomp_notif_resp>()),
            &raw mut response,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the caller of notification `id` still waits for its answer.
///
/// # Errors
/// When `listener` is none.
#[expect(unsafe_code, reason = "a listener is an ioctl interface")]
pub fn is_waiting(listener: BorrowedFd<'_>, id: u64) -> io::Result<bool> {
    // SAFETY: the request reads one `u64` from `id`, a live local; the descriptor is borrowed and stays open for the call.
    let result =
        unsafe { libc::ioctl(listener.as_raw_fd(), request(WRITE, 2, size_of::<u64>()), &raw const id) };
    if result == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        error => Err(error),
    }
}

/// The kernel writes to the argument and reads it.
const READ_WRITE: u32 = 3;
/// The kernel reads the argument.
const WRITE: u32 = 1;

/// An ioctl number: direction, size of the argument, the interface's letter, the request.
const fn request(direction: u32, number: u32, size: usize) -> libc::Ioctl {
    ((direction << 30) | ((size as u32) << 16) | ((b'!' as u32) << 8) | number) as libc::Ioctl
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn requests_have_the_numbers_of_the_kernel_s_header() {
        assert_eq!(request(READ_WRITE, 0, 80), 0xc050_2100);
        assert_eq!(request(READ_WRITE, 1, 24), 0xc018_2101);
        assert_eq!(request(WRITE, 2, 8), 0x4008_2102);
        assert_eq!(NOTIFICATION_BYTES, 80);
    }

    #[test]
    fn what_is_no_listener_gives_an_error() {
        let null = File::open("/dev/null").unwrap();
        assert!(receive(null.as_fd()).is_err());
        assert!(answer(null.as_fd(), 1, 1).is_err());
        assert!(is_waiting(null.as_fd(), 1).is_err());
    }
}
