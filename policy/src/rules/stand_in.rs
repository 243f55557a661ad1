//! Folders of the VM that system containers name by habit, and what they get in place of them.
//!
//! Why: scripts of Kubernetes nodes and of systemd in a container mount these from the host, and give up at a refusal. They
//! get something of the container's own that serves the purpose; what the source opens is never mounted. It holds for
//! that very folder at its usual place; any other source or destination is judged by `mount_source` alone.

/// What a container gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gift {
    /// An empty folder that it cannot write to.
    EmptyFolder,
    /// The cgroup tree as its own cgroup namespace shows it, which begins at the container's cgroup.
    OwnCgroups,
}

/// A folder of the VM with its stand-in.
#[derive(Clone, Copy, Debug)]
pub struct StandIn {
    /// Real path in the VM.
    pub source: &'static str,
    /// Where the container may have it.
    pub destinations: &'static [&'static str],
    /// Whether it has to be asked for read-only.
    pub read_only: bool,
    /// What is mounted.
    pub gift: Gift,
    /// Who asks for it, and why the stand-in is enough.
    pub why: &'static str,
}

/// The stand-ins.
pub const STAND_INS: &[StandIn] = &[
    StandIn {
        source: "/usr/lib/modules",
        destinations: &["/lib/modules", "/usr/lib/modules"],
        read_only: true,
        gift: Gift::EmptyFolder,
        why: "KinD and k3d mount it for `modprobe`; the VM's kernel has no modules, so that there is nothing to load",
    },
    StandIn {
        source: "/sys/fs/cgroup",
        destinations: &["/sys/fs/cgroup"],
        read_only: false,
        gift: Gift::OwnCgroups,
        why: "systemd in a container wants it writable; the kernel shows it the container's own branch, and limits stay \
              with the VM's root",
    },
];

/// The stand-in for `source`, the real path of what a mount opens in the VM, at `destination`.
#[must_use]
pub fn find(source: &str, destination: &str, read_only: bool) -> Option<&'static StandIn> {
    STAND_INS.iter().find(|row| {
        row.source == source && row.destinations.contains(&destination) && (read_only || !row.read_only)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gift(source: &str, destination: &str, read_only: bool) -> Option<Gift> {
        find(source, destination, read_only).map(|row| row.gift)
    }

    #[test]
    fn what_system_containers_name_has_a_stand_in() {
        assert_eq!(gift("/usr/lib/modules", "/lib/modules", true), Some(Gift::EmptyFolder));
        assert_eq!(gift("/usr/lib/modules", "/usr/lib/modules", true), Some(Gift::EmptyFolder));
        for read_only in [true, false] {
            assert_eq!(gift("/sys/fs/cgroup", "/sys/fs/cgroup", read_only), Some(Gift::OwnCgroups));
        }
        assert!(STAND_INS.iter().all(|row| !row.why.is_empty()));
    }

    #[test]
    fn neighbours_have_none() {
        for (source, destination, read_only) in [
            ("/usr/lib/modules", "/lib/modules", false),
            ("/usr/lib/modules", "/x", true),
            ("/usr/lib/modules/6.12", "/lib/modules", true),
            ("/usr/lib", "/lib/modules", true),
            ("/usr/lib/firmware", "/lib/firmware", true),
            ("/sys/fs/cgroup", "/x", true),
            ("/sys/fs/cgroup/eci", "/sys/fs/cgroup", true),
            ("/sys/fs", "/sys/fs/cgroup", true),
            ("/sys", "/sys", true),
        ] {
            assert_eq!(gift(source, destination, read_only), None, "{source} at {destination}");
        }
    }
}
