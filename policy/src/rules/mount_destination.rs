//! Where a mount may go inside of a container.
//!
//! Why: a volume in place of `/proc` lets an image fake the files through which its own confinement is applied
//! (CVE-2019-16884), and one in place of `/` makes another root than the one that was judged.

use super::PREFIX;
use crate::Verdict;

/// Identifier of the rule.
pub const ID: &str = "mount-destination";

/// Files of `/proc` that tools put their own over (lxcfs does), and that nothing of a container's confinement is applied
/// through; runc's list.
const PROC_FILES: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// Judges the destination of a mount, an absolute path without `.` and `..`: as it was asked for, and where the
/// image's links lead it.
#[must_use]
pub fn judge(destination: &str) -> Verdict {
    let in_proc = destination == "/proc" || destination.starts_with("/proc/");
    if destination.starts_with('/') && destination != "/" && (!in_proc || PROC_FILES.contains(&destination)) {
        return Verdict::Allow;
    }
    Verdict::Deny {
        rule: ID,
        message: format!("{PREFIX}: can't mount over {destination} of a container"),
        remedy: "choose another destination",
    }
}

/// Refuses a mount of file system type `kind`: the container's own are made by the runtime from a list.
#[must_use]
pub fn deny_type(kind: &str, destination: &str) -> Verdict {
    Verdict::Deny {
        rule: ID,
        message: format!("{PREFIX}: can't mount file system type \"{kind}\" at {destination} of a container"),
        remedy: "use a volume or a tmpfs",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_destinations_pass() {
        assert_eq!(judge("/data"), Verdict::Allow);
        assert_eq!(judge("/proc.d"), Verdict::Allow);
        assert_eq!(judge("/proc/meminfo"), Verdict::Allow);
    }

    #[test]
    fn root_proc_and_relative_destinations_are_refused() {
        for destination in ["/", "/proc", "/proc/self/attr", "/proc/sys", "/proc/meminfo/x", "proc", ""] {
            assert_eq!(judge(destination).denied_by(), Some(ID), "{destination}");
        }
    }
}
