//! Device nodes, which the VM makes in a container's stead: which ones, where, for whom, and what a caller can do while it
//! waits for the answer.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use eci_sys::child;
use eci_sys::raw::{self, Abi, Argument, Call, SharedPage};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, makedev};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::attempt::{At, Attempt, Failure, Verb, best_effort, effective, in_second_process, wait_for};

/// `S_IFCHR`.
const CHARACTER: u32 = 0o020_000;
/// `S_IFBLK`.
const BLOCK: u32 = 0o060_000;
/// Device number of `/dev/null`.
const NULL: u64 = 0x103;

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "make-node",
        why: "archives and installers make harmless ones; takes c or b, MAJOR:MINOR",
        run: |what| make_anywhere(Abi::Native, what),
    },
    Verb {
        name: "make-node-i386",
        why: "the same by a 32-bit program",
        run: |what| make_anywhere(Abi::I386, what),
    },
    Verb {
        name: "make-node-x32",
        why: "the same by the third ABI",
        run: |what| make_anywhere(Abi::X32, what),
    },
    Verb {
        name: "make-node-wide",
        why: "the kernel takes 32 bits of a device number: bits above make no other node of it",
        run: |what| {
            let (kind, device) = parse(what)?;
            let path = folder("wide")?.join("node");
            make(Abi::Native, CWD, &path, kind | 0o600, (0xdead << 32) | device)?;
            check(&path, kind, device)
        },
    },
    Verb {
        name: "make-node-bad-pointer",
        why: "the VM reads the path from the caller's memory",
        run: |_| {
            let path = Argument::Number(8);
            call(Abi::Native, CWD, path, CHARACTER | 0o600, NULL)
        },
    },
    Verb { name: "make-node-empty", why: "a path without a name", run: |_| make_null(Path::new("")) },
    Verb {
        name: "make-node-long",
        why: "a path longer than the kernel takes",
        run: |_| {
            let path = CString::new("x/".repeat(2500)).map_err(|_| Failure::NotUnderstood("the path"))?;
            call(Abi::Native, CWD, Argument::Text(&path), CHARACTER | 0o600, NULL)
        },
    },
    Verb {
        name: "make-node-taken",
        why: "nothing is overwritten",
        run: |_| make_null(Path::new("/etc/passwd")),
    },
    Verb {
        name: "make-node-taken-by-link",
        why: "a link at the name is not followed",
        run: |_| {
            let link = folder("link")?.join("node");
            symlink("/free", &link).at("symlink")?;
            make_null(&link)
        },
    },
    Verb {
        name: "make-node-nowhere",
        why: "the caller's error",
        run: |_| make_null(Path::new("/not/there")),
    },
    Verb {
        name: "make-node-below-file",
        why: "the caller's error",
        run: |_| make_null(Path::new("/etc/passwd/x")),
    },
    Verb {
        name: "make-node-at",
        why: "relative to an open folder, as tar does",
        run: |_| {
            let folder = folder("at")?;
            let open = File::open(&folder).at("open")?;
            make(Abi::Native, open.as_fd(), Path::new("node"), CHARACTER | 0o600, NULL)?;
            check(&folder.join("node"), CHARACTER, NULL)
        },
    },
    Verb {
        name: "make-node-at-file",
        why: "relative to what is no folder",
        run: |_| {
            let open = File::open("/etc/passwd").at("open")?;
            make(Abi::Native, open.as_fd(), Path::new("node"), CHARACTER | 0o600, NULL)
        },
    },
    Verb {
        name: "make-node-at-nothing",
        why: "relative to a descriptor that is not open",
        run: |_| {
            let [mode, device] = [0o020_600, 0x103].map(Argument::Number);
            let mut arguments = [Argument::Number(999), Argument::Text(c"node"), mode, device];
            Ok(raw::call(Abi::Native, Call::Mknodat, &mut arguments).map(drop)?)
        },
    },
    Verb {
        name: "make-node-umask",
        why: "permissions are the caller's choice, as for any file",
        run: |_| {
            let path = folder("umask")?.join("node");
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o027));
            make(Abi::Native, CWD, &path, CHARACTER | 0o666, NULL)?;
            effective(fs::symlink_metadata(&path).at("stat")?.permissions().mode() & 0o7777 == 0o640)
        },
    },
    Verb {
        name: "make-node-chroot",
        why: "a root of the caller's own is its root, however far up a path goes",
        run: |_| {
            let root = folder("root")?;
            fs::create_dir_all(root.join("deep/er")).at("mkdir")?;
            std::os::unix::fs::chroot(&root).at("chroot")?;
            std::env::set_current_dir("/deep/er").at("chdir")?;
            make_null(Path::new("../../../../../../../../node"))?;
            check(Path::new("/node"), CHARACTER, NULL)
        },
    },
    Verb {
        name: "make-node-through-proc",
        why: "a process's root is a way out of one's own; takes the path of it",
        run: |root| make_null(&Path::new(root).join("made-through-proc")),
    },
    Verb {
        name: "make-node-on",
        why: "on another mount, such as a volume, the node would be of no use; takes the folder",
        run: |folder| make_null(&Path::new(folder).join(format!("node-{}", std::process::id()))),
    },
    Verb {
        name: "make-node-closed-folder",
        why: "a folder that is closed to the caller is closed to the VM in its stead",
        run: |_| {
            let folder = folder("closed")?;
            chown(&folder, Some(1000), Some(1000)).at("chown")?;
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).at("chmod")?;
            drop_capabilities(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH)?;
            make_null(&folder.join("node"))
        },
    },
    Verb {
        name: "make-node-thread",
        why: "a thread without the capability, in a process that has it",
        run: |_| {
            let path = folder("thread")?.join("node");
            let worker = thread::spawn(move || {
                drop_capabilities(CapabilitySet::MKNOD)?;
                make_null(&path)
            });
            worker.join().map_err(|_| Failure::NotUnderstood("a panic"))?
        },
    },
    Verb {
        name: "make-node-nested",
        why: "in a user namespace of one's own anybody has the capability",
        run: |_| {
            let path = folder("nested")?.join("node");
            in_second_process(|| {
                unshare(CloneFlags::CLONE_NEWUSER).at("unshare")?;
                make_null(&path)
            })
        },
    },
    Verb {
        name: "make-node-signals",
        why: "a signal while the VM answers does not make the call twice",
        run: under_signals,
    },
    Verb { name: "make-node-killed", why: "a caller may end at any time", run: with_killed_callers },
    Verb {
        name: "make-node-swap",
        why: "a folder that turns into a link on the way; takes FOLDER that no node may get into",
        run: swap_folders,
    },
    Verb {
        name: "make-node-rewrite",
        why: "a path that changes while the VM reads it; takes FOLDER that no node may get into",
        run: rewrite_path,
    },
    Verb { name: "make-node-flood", why: "more calls than the VM can answer; takes seconds", run: flood },
];

fn parse(what: &str) -> Result<(u32, u64), Failure> {
    let mut parts = what.split(':');
    let kind = match parts.next() {
        Some("c") => CHARACTER,
        Some("b") => BLOCK,
        _ => return Err(Failure::NotUnderstood("the kind")),
    };
    let mut number = || parts.next()?.parse().ok();
    let (major, minor): (Option<u32>, Option<u32>) = (number(), number());
    let (major, minor) = major.zip(minor).ok_or(Failure::NotUnderstood("the number"))?;
    Ok((kind, makedev(major, minor)))
}

/// A new folder on the root filesystem.
fn folder(name: &str) -> Result<PathBuf, Failure> {
    let folder = PathBuf::from(format!("/making-{name}-{}", std::process::id()));
    fs::create_dir(&folder).at("mkdir")?;
    Ok(folder)
}

fn make_anywhere(abi: Abi, what: &str) -> Attempt {
    let (kind, device) = parse(what)?;
    let path = folder(what)?.join("node");
    make(abi, CWD, &path, kind | 0o666, device)?;
    check(&path, kind, device)?;
    // What can be opened without more than a node is opened.
    if device >> 8 == 1 {
        let made = File::options().read(true).write(true).open(&path).at("open")?;
        return effective(made.metadata().at("stat")?.rdev() == device);
    }
    Ok(())
}

fn check(path: &Path, kind: u32, device: u64) -> Attempt {
    let made = fs::symlink_metadata(path).at("stat")?;
    effective(made.rdev() == device && made.mode() & 0o170_000 == kind)
}

fn make_null(path: &Path) -> Attempt {
    make(Abi::Native, CWD, path, CHARACTER | 0o666, NULL)
}

fn make(abi: Abi, start: BorrowedFd<'_>, path: &Path, mode: u32, device: u64) -> Attempt {
    let page = SharedPage::new().at("mmap")?;
    page.set(path.as_os_str().as_encoded_bytes());
    call(abi, start, Argument::Shared(&page), mode, device)
}

fn call(abi: Abi, start: BorrowedFd<'_>, path: Argument<'_>, mode: u32, device: u64) -> Attempt {
    let numbers = [i64::from(mode), i64::from_ne_bytes(device.to_ne_bytes())].map(Argument::Number);
    let [mode, device] = numbers;
    let start = Argument::Number(i64::from(start.as_raw_fd()));
    Ok(raw::call(abi, Call::Mknodat, &mut [start, path, mode, device]).map(drop)?)
}

fn drop_capabilities(dropped: CapabilitySet) -> Attempt {
    let held = capabilities(None).at("capget")?;
    let without = |set: CapabilitySet| set.difference(dropped);
    let sets = CapabilitySets {
        effective: without(held.effective),
        permitted: without(held.permitted),
        inheritable: without(held.inheritable),
    };
    set_capabilities(None, sets).at("capset")
}

/// A process that is stopped and goes on every few milliseconds, while it makes nodes: each is made once.
fn under_signals(_: &str) -> Attempt {
    let folder = folder("signals")?;
    let pid = child::start(|| {
        let mut outcomes = (0..20).map(|number| make_null(&folder.join(number.to_string())));
        i32::from(!outcomes.all(|outcome| outcome.is_ok()))
    })
    .at("fork")?;
    let pid_of_child = nix::unistd::Pid::from_raw(pid);
    let pidfd = rustix::process::Pid::from_raw(pid).ok_or(Failure::NothingThere)?;
    let process =
        rustix::process::pidfd_open(pidfd, rustix::process::PidfdFlags::empty()).at("pidfd_open")?;
    let has_ended = || {
        let mut polled = [PollFd::new(&process, PollFlags::IN)];
        let pause = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        poll(&mut polled, Some(&pause)).is_ok_and(|ready| ready > 0)
    };
    while !has_ended() {
        best_effort("stop it", kill(pid_of_child, Signal::SIGSTOP));
        thread::sleep(Duration::from_millis(1));
        best_effort("let it go on", kill(pid_of_child, Signal::SIGCONT));
    }
    effective(wait_for(pid).at("wait")?.exit_status() == Some(0))
}

fn with_killed_callers(_: &str) -> Attempt {
    let folder = folder("killed")?;
    for round in 0..20_u64 {
        let folder = &folder;
        let pid = child::start(|| {
            (0..100_000)
                .for_each(|number| best_effort("make", make_null(&folder.join(format!("{round}-{number}")))));
            0
        })
        .at("fork")?;
        thread::sleep(Duration::from_millis(3 * round));
        kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).at("kill")?;
        wait_for(pid).at("wait")?;
    }
    make_null(&folder.join("last"))
}

/// Runs `attack` in a second thread until `make` has been called for some seconds.
fn against(attack: impl Fn() + Sync, mut make: impl FnMut(u32)) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                attack();
            }
        });
        let until = Instant::now() + Duration::from_secs(8);
        let mut number = 0;
        while Instant::now() < until {
            make(number);
            number += 1;
        }
        over.store(true, Ordering::SeqCst);
    });
}

/// `allowed` when a node got to where none may be; nothing is wrong when there is none, provided that some were made elsewhere.
fn judge(forbidden: &Path, made: u32) -> Attempt {
    let found = fs::read_dir(forbidden).at("list")?.flatten();
    let nodes = found.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_char_device())).count();
    if made == 0 {
        return Err(Failure::NothingThere);
    }
    effective(nodes > 0)
}

fn swap_folders(forbidden: &str) -> Attempt {
    let folder = folder("swap")?;
    let (way, aside) = (folder.join("way"), folder.join("aside"));
    fs::create_dir(&way).at("mkdir")?;
    let targets =
        [forbidden, "/proc/1/root", "/proc/self/root/dev", "../../../../../../dev", "/proc/self/cwd"];
    let mut made = 0;
    let turn = std::sync::atomic::AtomicUsize::new(0);
    against(
        || {
            let target = targets[turn.fetch_add(1, Ordering::SeqCst) % targets.len()];
            best_effort("move away", fs::rename(&way, &aside));
            best_effort("put a link", symlink(target, &way));
            best_effort("take it away", fs::remove_file(&way));
            best_effort("move back", fs::rename(&aside, &way));
        },
        |number| made += u32::from(make_null(&way.join(format!("node-{number}"))).is_ok()),
    );
    judge(Path::new(forbidden), made)
}

fn rewrite_path(forbidden: &str) -> Attempt {
    let folder = folder("rewrite")?;
    let page = SharedPage::new().at("mmap")?;
    let mut made = 0;
    let paths = |number: u32| {
        let name = format!("node-{number}");
        let own = folder.join(&name);
        let other = Path::new(forbidden).join(&name);
        [own, other].map(|path| path.into_os_string().into_encoded_bytes())
    };
    let current = std::sync::atomic::AtomicU32::new(0);
    against(
        || paths(current.load(Ordering::SeqCst)).iter().for_each(|path| page.set(path)),
        |number| {
            current.store(number, Ordering::SeqCst);
            let outcome = call(Abi::Native, CWD, Argument::Shared(&page), CHARACTER | 0o600, NULL);
            made += u32::from(outcome.is_ok());
        },
    );
    judge(Path::new(forbidden), made)
}

/// Four processes that ask as often as they can.
fn flood(seconds: &str) -> Attempt {
    let folder = folder("flood")?;
    let until = Instant::now() + Duration::from_secs(seconds.parse().unwrap_or(10));
    let children: io::Result<Vec<_>> = (0..4)
        .map(|child| {
            let folder = &folder;
            child::start(move || {
                let mut number = 0;
                while Instant::now() < until {
                    // Every second one is refused, which costs the VM less and the caller nothing.
                    best_effort("make", make_null(&folder.join(format!("{child}-{number}"))));
                    best_effort("ask", make(Abi::Native, CWD, Path::new("/x"), CHARACTER, 0x101));
                    number += 1;
                }
                0
            })
        })
        .collect();
    for pid in children.at("fork")? {
        wait_for(pid).at("wait")?;
    }
    effective(fs::read_dir(&folder).at("list")?.count() > 10)
}
