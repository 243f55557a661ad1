//! Keys of the kernel's key service, as far as it takes data from a process by way of one.

use std::ffi::CStr;
use std::io;

/// Adds a key of type `user` to this thread's keyring, where a call of this thread that names the key finds it (keyrings(7)). It is gone
/// when the thread ends or executes a program. Gives its serial number.
///
/// # Errors
/// The error of `add_key(2)`: `EDQUOT` for more than a user may keep.
#[expect(unsafe_code, reason = "neither rustix nor nix has add_key")]
pub fn add_to_thread(description: &CStr, payload: &[u8]) -> io::Result<i32> {
    // SAFETY: both strings end in NUL, and the payload is as long as is said; the kernel copies all three before it returns.
    let key = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"user".as_ptr(),
            description.as_ptr(),
            payload.as_ptr(),
            payload.len(),
            libc::KEY_SPEC_THREAD_KEYRING,
        )
    };
    i32::try_from(key).ok().filter(|key| *key > 0).ok_or_else(io::Error::last_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_this_thread_has_a_number() {
        match add_to_thread(c"eci:test", b"payload") {
            Ok(key) => assert!(key > 0),
            // Where a container's filter forbids the call, or the kernel does not have it.
            Err(error) => {
                assert!([Some(libc::EPERM), Some(libc::ENOSYS)].contains(&error.raw_os_error()), "{error}");
            }
        }
        // A description is needed.
        assert!(add_to_thread(c"", b"payload").is_err());
    }
}
