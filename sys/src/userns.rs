//! User namespaces: making one that only carries a map, and asking who owns a namespace.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Makes a user namespace with `map` (lines of `/proc/<pid>/uid_map`) for user and group ids, and gives a
/// descriptor of it. No process stays in it: the descriptor alone keeps it alive.
///
/// # Errors
/// The error of `fork(2)`, of `unshare(2)` in the child, or of writing the maps.
#[expect(unsafe_code, reason = "a user namespace is made in a forked child")]
pub fn with_map(map: &str) -> io::Result<OwnedFd> {
    let (ready_reader, ready_writer) = pipe()?;
    let (release_reader, release_writer) = pipe()?;
    // SAFETY: the child runs only `child_main`, which makes system calls and never returns, so it touches neither
    // locks nor the allocator that another thread may have held at the fork.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    if child == 0 {
        child_main(ready_writer.as_raw_fd(), release_reader.as_raw_fd(), release_writer.as_raw_fd());
    }
    drop((ready_writer, release_reader));
    let outcome = map_child(child, ready_reader, map);
    drop(release_writer);
    reap(child);
    outcome
}

/// The user namespace that owns `namespace` (a descriptor of any kind of namespace).
///
/// # Errors
/// `EPERM` when the owner is outside the caller's own user namespace, `ENOTTY` when it is no namespace.
#[expect(unsafe_code, reason = "the owner of a namespace comes from an ioctl")]
pub fn owner_of(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the request takes no argument; the descriptor is borrowed and stays open for the call.
    let result = unsafe { libc::ioctl(namespace.as_raw_fd(), libc::NS_GET_USERNS) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call gave a new descriptor (close-on-exec, says the kernel's `open_related_ns`) that nobody else
    // knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

fn map_child(child: libc::pid_t, ready: OwnedFd, map: &str) -> io::Result<OwnedFd> {
    let mut answer = [0_u8; 4];
    fs::File::from(ready).read_exact(&mut answer)?;
    match i32::from_ne_bytes(answer) {
        0 => {}
        errno => return Err(io::Error::from_raw_os_error(errno)),
    }
    fs::write(format!("/proc/{child}/uid_map"), map)?;
    fs::write(format!("/proc/{child}/gid_map"), map)?;
    Ok(fs::File::open(format!("/proc/{child}/ns/user"))?.into())
}

/// Runs in the child. Must not allocate, lock, unwind or return. Dies with its parent.
#[expect(unsafe_code, reason = "a forked child may only make system calls")]
fn child_main(ready: libc::c_int, release: libc::c_int, parents_end: libc::c_int) -> ! {
    let mut byte = 0_u8;
    // SAFETY: every pointer names a live local of at least the given length; the descriptors are the pipes' ends
    // inherited over the fork; `_exit` runs no handler of the parent's.
    unsafe {
        libc::close(parents_end);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let errno = if libc::unshare(libc::CLONE_NEWUSER) == 0 { 0 } else { *libc::__errno_location() };
        let answer = errno.to_ne_bytes();
        libc::write(ready, answer.as_ptr().cast(), answer.len());
        libc::read(release, (&raw mut byte).cast(), 1);
        libc::_exit(0)
    }
}

#[expect(unsafe_code, reason = "waits for the child forked here")]
fn reap(child: libc::pid_t) {
    loop {
        // SAFETY: a null status pointer is allowed; the pid is our own unreaped child.
        let result = unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        if result >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

#[expect(unsafe_code, reason = "the ends are shared with a forked child")]
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: `ends` has room for the two descriptors that the call writes.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both descriptors are new and owned by nobody else.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}
