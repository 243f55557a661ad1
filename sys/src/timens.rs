//! Time namespaces.

use std::fs;
use std::io;

/// Gives this process's children, and what it executes, a time namespace in which the boot was `uptime` whole seconds later
/// (time_namespaces(7)). It belongs to the caller's user namespace, so a container below cannot change it.
///
/// # Errors
/// The error of `unshare(2)`, or of writing the offset.
#[expect(unsafe_code, reason = "rustix marks unshare as unsafe whatever the flag")]
pub fn unshare_boot_time(uptime: i64) -> io::Result<()> {
    // SAFETY: `CLONE_NEWTIME` takes no pointers and leaves memory and descriptors alone; the calling process itself stays
    // where it is.
    let result = unsafe { libc::unshare(libc::CLONE_NEWTIME) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    fs::write("/proc/self/timens_offsets", format!("boottime -{uptime} 0\n"))
}
