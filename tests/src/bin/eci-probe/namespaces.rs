//! Namespaces: entering the VM's, and making one's own.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::PathBuf;

use eci_sys::userns::owner_of;
use nix::sched::CloneFlags;
use rustix::mount::{MountFlags, mount};
use rustix::thread::move_into_link_name_space;

use crate::attempt::{At, Attempt, Failure, Verb, best_effort, effective, in_second_process, scratch};

/// Inode numbers of the first namespaces: the kernel's `PROC_*_INIT_INO`. The network's and the mounts' have none.
const INITIAL: std::ops::RangeInclusive<u64> = 0xEFFF_FFFA..=0xEFFF_FFFF;

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "setns-pid1",
        why: "pid 1 is one's own init: entering its namespaces (by name: user, mnt, pid …) leads nowhere new",
        run: |kind| enter(&PathBuf::from(format!("/proc/1/ns/{kind}"))),
    },
    Verb {
        name: "setns-initial",
        why: "any namespace of the VM that shows in /proc would be a way in",
        run: setns_initial,
    },
    Verb { name: "setns-foreign", why: "so would another container's", run: setns_foreign },
    Verb {
        name: "userns-parent",
        why: "a descriptor of the VM's user namespace would be the first step into it",
        run: |_| {
            let own = File::open("/proc/self/ns/user").at("open")?;
            Ok(owner_of(own.as_fd()).map(drop)?)
        },
    },
    Verb {
        name: "unshare-user",
        why: "nested engines make user namespaces; plain containers get less kernel to attack",
        run: |_| Ok(nix::sched::unshare(CloneFlags::CLONE_NEWUSER)?),
    },
    Verb {
        name: "unshare-user-mount",
        why: "with one, a root of its own mounts",
        run: |_| {
            nix::sched::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).at("unshare")?;
            let folder = scratch()?;
            Ok(mount("tmpfs", &folder, "tmpfs", MountFlags::empty(), None)?)
        },
    },
    Verb {
        name: "unshare-all",
        why: "nested engines make every kind of namespace",
        run: |_| {
            let own = CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWPID
                | CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWIPC
                | CloneFlags::CLONE_NEWUTS
                | CloneFlags::CLONE_NEWCGROUP;
            Ok(nix::sched::unshare(own)?)
        },
    },
    Verb {
        name: "userns-map-own",
        why: "a nested user namespace may have all ids of its parent",
        run: |_| map("0 0 65536\n"),
    },
    Verb { name: "userns-map-beyond", why: "one id more is somebody else's", run: |_| map("0 0 65537\n") },
    Verb {
        name: "userns-map-vm-root",
        why: "the VM's ids are not the container's to map",
        run: |_| map("0 4294901760 1\n"),
    },
];

fn enter(path: &std::path::Path) -> Attempt {
    let namespace = File::open(path).at("open")?;
    Ok(move_into_link_name_space(namespace.as_fd(), None)?)
}

/// Every link below `/proc/*/ns` with its number.
fn visible() -> Vec<(PathBuf, u64)> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let folders = processes.map(|entry| entry.path().join("ns")).filter(|folder| folder.is_dir());
    folders
        .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten())
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let number = target.to_str()?.split_once('[')?.1.trim_end_matches(']').parse().ok()?;
            Some((entry.path(), number))
        })
        .collect()
}

fn own() -> Vec<u64> {
    visible()
        .into_iter()
        .filter(|(path, _)| path.starts_with("/proc/self"))
        .map(|(_, number)| number)
        .chain(
            [
                "user",
                "mnt",
                "pid",
                "net",
                "ipc",
                "uts",
                "cgroup",
                "time",
                "pid_for_children",
                "time_for_children",
            ]
            .iter()
            .filter_map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).ok())
            .filter_map(|target| target.to_str()?.split_once('[')?.1.trim_end_matches(']').parse().ok()),
        )
        .collect()
}

/// Tries each; the worst outcome counts.
fn enter_each(paths: impl Iterator<Item = PathBuf>) -> Attempt {
    let mut outcome = Err(Failure::NothingThere);
    for path in paths {
        // A process of its own: an entered namespace would spoil the next attempt.
        outcome = in_second_process(|| enter(&path));
        if outcome.is_ok() {
            eprintln!("entered {}", path.display());
            return outcome;
        }
    }
    outcome
}

fn setns_initial(_: &str) -> Attempt {
    enter_each(visible().into_iter().filter(|(_, number)| INITIAL.contains(number)).map(|(path, _)| path))
}

fn setns_foreign(_: &str) -> Attempt {
    let own = own();
    enter_each(visible().into_iter().filter(|(_, number)| !own.contains(number)).map(|(path, _)| path))
}

/// Gives a new user namespace this map, written by its parent, which has every capability that the container has.
fn map(map: &str) -> Attempt {
    let (reader, writer) = nix::unistd::pipe().at("pipe")?;
    let child = eci_sys::child::start(|| {
        if nix::sched::unshare(CloneFlags::CLONE_NEWUSER).is_err() {
            return 1;
        }
        best_effort("tell the parent", nix::unistd::write(&writer, b"x"));
        // Ended by the parent.
        std::thread::sleep(std::time::Duration::from_secs(20));
        0
    })
    .at("fork")?;
    drop(writer);
    let mut byte = [0];
    let ready = nix::unistd::read(&reader, &mut byte).at("pipe")?;
    let outcome = if ready == 1 {
        let path = format!("/proc/{child}/uid_map");
        fs::write(&path, map).map_err(Failure::from).and_then(|()| {
            let stands = fs::read_to_string(&path).at("read")?;
            effective(!stands.trim().is_empty())
        })
    } else {
        Err(Failure::Before("unshare", nix::errno::Errno::EPERM))
    };
    let pid = nix::unistd::Pid::from_raw(child);
    best_effort("end the child", nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL));
    crate::attempt::wait_for(child).at("wait")?;
    outcome
}
