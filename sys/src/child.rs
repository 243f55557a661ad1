//! A forked child of a process with one thread.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `run` in a forked child, which ends with the code that it gives. Gives the child's process id; the caller waits
/// for it.
///
/// # Errors
/// `EBUSY` when this process has more than one thread, else that of `fork(2)`.
#[expect(
    unsafe_code,
    reason = "work that may be killed, or that changes who it is, needs a process of its own"
)]
pub fn start(run: impl FnOnce() -> i32) -> io::Result<i32> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: the caller is the only thread (counted above), so no lock and no allocator state is held by one that
    // the child lacks, and the child may do what the parent may.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = catch_unwind(AssertUnwindSafe(run)).unwrap_or(101);
        // SAFETY: takes a number and does not return; the parent's exit handlers and buffers are not run twice.
        unsafe { libc::_exit(code) }
    }
    if child < 0 { Err(io::Error::last_os_error()) } else { Ok(child) }
}
