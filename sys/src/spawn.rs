//! What a service's process does between fork and exec.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Where and how a service runs.
#[derive(Debug)]
pub struct Confinement {
    /// `cgroup.procs` of the service's cgroup, open for writing.
    pub cgroup_procs: OwnedFd,
    /// `/proc/self/oom_score_adj` value, -1000 to 1000.
    pub oom_score_adj: i16,
    /// Soft and hard limit of open files.
    pub open_files: u64,
    /// The AppArmor profile that its program runs under, as `aa_change_onexec(3)` sets it; PID 1's own when `None`.
    pub apparmor_profile: Option<String>,
}

/// Makes `command` enter its cgroup, session, limits and OOM score before it executes, with no signal blocked: PID 1
/// blocks those that it reads by signalfd, and a child inherits that. A step that fails fails the spawn: a service
/// never runs outside its cgroup.
#[expect(unsafe_code, reason = "code between fork and exec has rules that the compiler cannot check")]
pub fn confine(command: &mut Command, confinement: Confinement) {
    let score = format!("{}", confinement.oom_score_adj);
    let profile = confinement.apparmor_profile.map(|name| format!("exec {name}"));
    let limit = libc::rlimit { rlim_cur: confinement.open_files, rlim_max: confinement.open_files };
    // SAFETY: the closure runs in the child after fork, where only async-signal-safe calls are allowed. It
    // calls setsid, sigemptyset, sigprocmask, write, open, close and setrlimit, all on the list of signal-safety(7) or plain system calls, and
    // neither allocates nor locks: the strings and the descriptor were made before the fork, and an `io::Error` made
    // from an error number does not allocate.
    unsafe {
        command.pre_exec(move || {
            check(libc::setsid())?;
            let mut none: libc::sigset_t = std::mem::zeroed();
            check(libc::sigemptyset(&raw mut none))?;
            check(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()))?;
            write_all(confinement.cgroup_procs.as_raw_fd(), b"0")?;
            check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
            write_file(c"/proc/self/oom_score_adj", score.as_bytes())?;
            profile.iter().try_for_each(|name| write_file(c"/proc/self/attr/apparmor/exec", name.as_bytes()))
        });
    }
}

/// Lets `command` inherit `descriptors` under the numbers that they have here. They have to stay open until it is spawned.
#[expect(unsafe_code, reason = "code between fork and exec has rules that the compiler cannot check")]
pub fn pass_on(command: &mut Command, descriptors: &[BorrowedFd<'_>]) {
    let numbers: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    // SAFETY: the closure runs in the child after fork, where only async-signal-safe calls are allowed: fcntl is one. It
    // neither allocates nor locks. The numbers mean the child's own copy of the table; for one that is not open the call
    // gives an error, which fails the spawn.
    unsafe {
        command.pre_exec(move || {
            numbers.iter().try_for_each(|fd| check(libc::fcntl(*fd, libc::F_SETFD, 0)).map(drop))
        });
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Writes to a file of procfs, between fork and exec: opens, writes and closes it, no more.
#[expect(unsafe_code, reason = "called between fork and exec, where std's files may not be dropped twice")]
fn write_file(path: &CStr, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the path ends in a zero byte and outlives the call, which reads nothing else; the descriptor that is closed is
    // the one that was just opened.
    unsafe {
        let file = check(libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC))?;
        write_all(file, bytes)?;
        check(libc::close(file)).map(drop)
    }
}

/// Writes a short value that the kernel takes whole or not at all.
#[expect(unsafe_code, reason = "called between fork and exec, where std's files may not be dropped twice")]
fn write_all(fd: libc::c_int, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads `bytes.len()` bytes at the pointer of `bytes`, which is borrowed until the call
    // returns. A wrong `fd` gives an error, nothing else.
    let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn a_child_gets_the_limits_it_was_given() {
        let log = tempfile_like();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "ulimit -n; cat /proc/self/oom_score_adj"]);
        let apparmor_profile = None;
        confine(
            &mut command,
            Confinement { cgroup_procs: log.into(), oom_score_adj: 7, open_files: 64, apparmor_profile },
        );
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "64\n7\n");
    }

    #[test]
    fn a_child_that_cannot_enter_its_cgroup_does_not_run() {
        let read_only = File::open("/dev/null").unwrap();
        let mut command = Command::new("/bin/true");
        let apparmor_profile = None;
        confine(
            &mut command,
            Confinement {
                cgroup_procs: read_only.into(),
                oom_score_adj: 0,
                open_files: 64,
                apparmor_profile,
            },
        );
        assert!(command.spawn().is_err());
    }

    #[test]
    fn a_child_whose_profile_is_not_there_does_not_run() {
        let mut command = Command::new("/bin/true");
        let apparmor_profile = Some("no-such-profile".to_owned());
        confine(
            &mut command,
            Confinement {
                cgroup_procs: tempfile_like().into(),
                oom_score_adj: 0,
                open_files: 64,
                apparmor_profile,
            },
        );
        assert!(command.spawn().is_err());
    }

    #[test]
    fn a_child_inherits_what_is_passed_on_and_nothing_else() {
        let (passed, kept) = (File::open("/dev/null").unwrap(), File::open("/dev/null").unwrap());
        let mut command = Command::new("/bin/sh");
        let there = |file: &File| format!("[ -e /proc/self/fd/{} ]", file.as_raw_fd());
        command.args(["-c", &format!("{} && ! {}", there(&passed), there(&kept))]);
        pass_on(&mut command, &[passed.as_fd()]);
        assert!(command.status().unwrap().success());
    }

    fn tempfile_like() -> File {
        File::options().write(true).open("/dev/null").unwrap()
    }
}
