//! The one way out: kill what is left, let go of the data disk, sync, power off.

use std::time::Duration;

use eci_contract::paths::ENGINE_DATA;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};

use super::event_loop::has_children;
use super::{cgroups, mounts};
use crate::handover::Platform;
use crate::{clock, kmsg, power};

/// How long killed processes may take to be gone. One that waits for a disk cannot die sooner.
const KILL_MS: u64 = 5_000;
const PAUSE: Duration = Duration::from_millis(10);

/// What comes after the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    #[default]
    PowerOff,
    /// Another boot.
    Restart,
}

/// Ends the machine.
pub fn finish(platform: Platform, then: Then) -> ! {
    let anything_left: fn() -> bool = match platform {
        Platform::Machine => {
            kill_all();
            has_children
        }
        // Minus one would be WSL's own processes, too, which end with PID 1.
        Platform::Wsl => {
            cgroups::kill_all();
            cgroups::anything_left
        }
    };
    let end = clock::boot_ms() + KILL_MS;
    while anything_left() && clock::boot_ms() < end {
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status.pid().is_some()) {}
        std::thread::sleep(PAUSE);
    }
    let_go_of_data();
    match then {
        Then::PowerOff => {
            kmsg::notice("powering off");
            power::off()
        }
        Then::Restart => {
            kmsg::notice("restarting");
            power::restart()
        }
    }
}

/// Containers and orphans; services were stopped before. Minus one is everything but PID 1.
fn kill_all() {
    match kill(Pid::from_raw(-1), Signal::SIGKILL) {
        // Nothing was left.
        Ok(()) | Err(nix::Error::ESRCH) => {}
        Err(err) => kmsg::error(&format!("cannot kill what is left: {err}")),
    }
}

/// Unmounts the data disk and all that the engine mounted on it. What is still busy is made read-only, which leaves
/// the file system just as clean.
fn let_go_of_data() {
    let mountinfo = mounts::mountinfo().unwrap_or_default();
    for target in targets_below(&mountinfo, ENGINE_DATA).iter().rev() {
        let unmounted = unmount(target.as_str(), UnmountFlags::empty());
        let clean = unmounted.or_else(|_| mount_remount(target.as_str(), MountFlags::RDONLY, c""));
        kmsg::best_effort(&format!("unmount `{target}`"), clean);
        if unmounted.is_ok() && target == ENGINE_DATA {
            kmsg::notice("data disk unmounted");
        }
    }
}

/// Mount points at or below a path, in the order of mounting. Names are as in mountinfo: `\040` for a space.
fn targets_below(mountinfo: &str, path: &str) -> Vec<String> {
    let targets = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let below = targets.filter(|target| {
        target.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    below.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_engine_s_mounts_are_let_go_of_innermost_last() {
        let mountinfo = "\
            22 1 253:0 / / ro,nosuid - erofs /dev/dm-0 ro\n\
            30 22 254:16 / /var/lib/docker rw,nosuid - ext4 /dev/vdb rw\n\
            31 22 0:30 / /var/lib/docker-other rw - tmpfs tmpfs rw\n\
            40 30 0:40 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw\n";
        let expected = ["/var/lib/docker", "/var/lib/docker/overlay2/x/merged"];
        assert_eq!(targets_below(mountinfo, ENGINE_DATA), expected);
    }
}
