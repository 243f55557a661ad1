//! Control groups: raising one's own limit, and leaving the group.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::getpid;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::attempt::{At, Attempt, Failure, Verb, best_effort, effective, scratch};

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "cgroup-raise",
        why: "a container's limits are the engine's to set, not its own",
        run: |_| in_own_mount(raise),
    },
    Verb {
        name: "cgroup-freeze",
        why: "freezing one's own group from inside would hang `docker exec`, and with it its caller",
        run: |_| in_own_mount(|root| Ok(fs::write(root.join("cgroup.freeze"), "0")?)),
    },
    Verb {
        name: "cgroup-leave",
        why: "a process outside of the group has no limits",
        run: |_| {
            in_own_mount(|root| {
                fs::write(root.join("../cgroup.procs"), getpid().to_string())?;
                // Outside of the namespace's root the kernel shows a path that climbs.
                effective(fs::read_to_string("/proc/self/cgroup").at("read")?.contains("/../"))
            })
        },
    },
    Verb {
        name: "cgroup-child",
        why: "systemd and nested engines make groups below their own",
        run: |_| {
            in_own_mount(|root| {
                let child = root.join("probe");
                fs::create_dir(&child)?;
                let entered = fs::write(child.join("cgroup.procs"), getpid().to_string());
                best_effort("leave it", fs::write(root.join("cgroup.procs"), getpid().to_string()));
                best_effort("remove it", fs::remove_dir(&child));
                entered.at("entering it")
            })
        },
    },
    Verb {
        name: "cgroup-release-agent",
        why: "`release_agent` runs a program in the VM (CVE-2022-0492)",
        run: |_| {
            let found = ["/sys/fs/cgroup/release_agent", "/sys/fs/cgroup/memory/release_agent"]
                .into_iter()
                .find(|path| Path::new(path).exists());
            Ok(fs::write(found.ok_or(Failure::NothingThere)?, "/probe")?)
        },
    },
];

/// The container's view is read-only unless it is privileged; one that may mount makes its own.
fn in_own_mount(attempt: impl FnOnce(&Path) -> Attempt) -> Attempt {
    let folder: PathBuf = scratch()?;
    match mount("none", &folder, "cgroup2", MountFlags::empty(), None) {
        Ok(()) => {
            let outcome = attempt(&folder);
            best_effort("unmount", unmount(&folder, UnmountFlags::DETACH));
            outcome
        }
        Err(_) => attempt(Path::new("/sys/fs/cgroup")),
    }
}

fn raise(root: &Path) -> Attempt {
    let limits = ["memory.max", "pids.max", "cpu.max"].map(|name| root.join(name));
    let mut outcome = Err(Failure::NothingThere);
    for limit in limits.iter().filter(|limit| limit.exists()) {
        outcome = fs::write(limit, "max").map_err(Failure::from);
        if outcome.is_ok() {
            eprintln!("raised {}", limit.display());
            break;
        }
    }
    outcome
}
