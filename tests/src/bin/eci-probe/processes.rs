//! Other processes: their memory, their descriptors, their programs, and what the kernel keeps for them.

use std::fs::{self, File};
use std::io::IoSliceMut;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use eci_sys::child;
use eci_sys::raw::{self, Abi, Argument, Call};
use nix::sys::ptrace;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, Resource, Rlimit};

use crate::attempt::{At, Attempt, Failure, Verb, best_effort, effective, wait_for};

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "ptrace",
        why: "whoever is traced does what the tracer wants; takes a pid, 1 without",
        run: |pid| {
            let pid = pid_of(pid)?;
            ptrace::attach(pid)?;
            best_effort("wait for its stop", nix::sys::wait::waitpid(pid, None));
            ptrace::detach(pid, None).at("detach")
        },
    },
    Verb { name: "ptrace-child", why: "debuggers in containers", run: ptrace_child },
    Verb {
        name: "process-vm-readv",
        why: "another process's memory; takes a pid, 1 without",
        run: read_memory,
    },
    Verb {
        name: "proc-mem",
        why: "the same through /proc, for writing; takes a pid, 1 without",
        run: |pid| {
            Ok(File::options()
                .read(true)
                .write(true)
                .open(format!("/proc/{}/mem", pid_of(pid)?))
                .map(drop)?)
        },
    },
    Verb {
        name: "kcmp",
        why: "tells the order of kernel addresses; takes a pid, 1 without",
        run: |pid| {
            let other = i64::from(pid_of(pid)?.as_raw());
            let own = i64::from(std::process::id());
            // KCMP_VM.
            raw::call(Abi::Native, Call::Kcmp, &mut [own, other, 1, 0, 0].map(Argument::Number))?;
            Ok(())
        },
    },
    Verb {
        name: "pidfd-getfd",
        why: "another process's open files; takes a pid, 1 without",
        run: |pid| {
            let pid = rustix::process::Pid::from_raw(pid_of(pid)?.as_raw()).ok_or(Failure::NothingThere)?;
            let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).at("pidfd_open")?;
            Ok(rustix::process::pidfd_getfd(&process, 0, PidfdGetfdFlags::empty()).map(drop)?)
        },
    },
    Verb {
        name: "descriptors",
        why: "a leaked folder of the VM is a way out (CVE-2024-21626)",
        run: leaked_descriptors,
    },
    Verb {
        name: "directory",
        why: "so is a working directory outside of the root (CVE-2024-21626)",
        // The kernel marks a working directory that the root does not contain.
        run: |_| {
            let directory = rustix::process::getcwd(Vec::new()).at("getcwd")?;
            if directory.to_bytes().starts_with(b"(unreachable)") {
                Ok(())
            } else {
                Err(Failure::NothingThere)
            }
        },
    },
    Verb {
        name: "overwrite-runtime",
        why: "the runtime's own binary, seen through /proc/<pid>/exe while it enters (CVE-2019-5736); takes seconds to watch",
        run: overwrite_runtime,
    },
    Verb {
        name: "watch-strangers",
        why: "helpers that enter the pid namespace bring the VM's root and open files along; takes seconds to watch",
        run: watch_strangers,
    },
    Verb {
        name: "oom-score-lower",
        why: "the VM's services are to outlive a container that eats all memory",
        run: |_| {
            fs::write("/proc/self/oom_score_adj", "-1000")?;
            effective(fs::read_to_string("/proc/self/oom_score_adj").at("read")?.trim() == "-1000")
        },
    },
    Verb {
        name: "rlimit-raise",
        why: "a hard limit that the engine set",
        run: |_| {
            let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
            let raised = hard.ok_or(Failure::NothingThere)?.saturating_add(1);
            let limit = Rlimit { current: Some(raised), maximum: Some(raised) };
            Ok(rustix::process::setrlimit(Resource::Nofile, limit)?)
        },
    },
    Verb {
        name: "nice-lower",
        why: "processor time of the VM's services",
        run: |_| Ok(rustix::process::setpriority_process(None, -20)?),
    },
];

fn pid_of(text: &str) -> Result<Pid, Failure> {
    let number = if text.is_empty() { Ok(1) } else { text.parse() };
    number.map(Pid::from_raw).map_err(|_| Failure::NotUnderstood("the pid"))
}

fn ptrace_child(_: &str) -> Attempt {
    let child = child::start(|| {
        std::thread::sleep(Duration::from_secs(20));
        0
    })
    .at("fork")?;
    let pid = Pid::from_raw(child);
    let outcome = ptrace::attach(pid).map_err(Failure::from);
    best_effort("end the child", nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL));
    wait_for(child).at("wait")?;
    outcome
}

fn read_memory(pid: &str) -> Attempt {
    let pid = pid_of(pid)?;
    // Without the right to see the map there is none to the memory either; an address is then made up.
    let start = fs::read_to_string(format!("/proc/{pid}/maps"))
        .ok()
        .and_then(|maps| usize::from_str_radix(maps.split('-').next()?, 16).ok());
    let mut buffer = [0; 16];
    let remote = [RemoteIoVec { base: start.unwrap_or(0x10_0000), len: buffer.len() }];
    Ok(process_vm_readv(pid, &mut [IoSliceMut::new(&mut buffer)], &remote).map(drop)?)
}

/// Open at the start of this process, above the three that every program has. The one that this listing itself opens is not
/// there any more when its link is read.
fn leaked_descriptors(_: &str) -> Attempt {
    let mut outcome = Err(Failure::NothingThere);
    for entry in fs::read_dir("/proc/self/fd").at("open")?.flatten() {
        let number: i32 = entry.file_name().to_str().and_then(|name| name.parse().ok()).unwrap_or(-1);
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let is_listing = target.starts_with("/proc") && target.ends_with("fd");
        if number > 2 && !is_listing {
            eprintln!("descriptor {number} is {}", target.display());
            outcome = Ok(());
        }
    }
    outcome
}

/// A file that ends watching before its time.
const STOP: &str = "/stop";

/// Opens any program that is not a file of this root for writing. Nothing is written: an open one would be enough.
fn overwrite_runtime(seconds: &str) -> Attempt {
    let patience = Duration::from_secs(seconds.parse().unwrap_or(5));
    let own = fs::metadata("/").at("stat")?.dev();
    let until = Instant::now() + patience;
    let mut outcome = Err(Failure::NothingThere);
    while Instant::now() < until && !Path::new(STOP).exists() {
        for entry in fs::read_dir("/proc").at("open")?.flatten() {
            let path = entry.path().join("exe");
            let foreign = fs::metadata(&path).is_ok_and(|program| program.dev() != own);
            if !foreign {
                continue;
            }
            eprintln!("saw {}", fs::read_link(&path).unwrap_or_default().display());
            outcome = open_for_writing(&path);
            if outcome.is_ok() {
                return outcome;
            }
        }
    }
    outcome
}

/// A program that runs cannot be written (`ETXTBSY`), so the attack holds a descriptor of it and waits for its end.
fn open_for_writing(program: &Path) -> Attempt {
    let held = File::open(program).at("open for reading")?;
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
    let mut outcome = Ok(());
    for _ in 0..200 {
        outcome = File::options().write(true).open(&again).map(drop).map_err(Failure::from);
        if outcome != Err(Failure::Refused(nix::errno::Errno::ETXTBSY)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    outcome
}

/// A folder that only the VM's root has.
const MARK_OF_THE_VM: &str = "usr/libexec/eci";

/// Looks through the root, the working directory and every descriptor of whoever shows up in this pid namespace.
fn watch_strangers(seconds: &str) -> Attempt {
    let patience = Duration::from_secs(seconds.parse().unwrap_or(5));
    let own = fs::read_link("/proc/self/ns/mnt").at("readlink")?;
    let until = Instant::now() + patience;
    let mut outcome = Err(Failure::NothingThere);
    while Instant::now() < until && !Path::new(STOP).exists() {
        for entry in fs::read_dir("/proc").at("open")?.flatten() {
            let process = entry.path();
            match fs::read_link(process.join("ns/mnt")) {
                Ok(namespace) if namespace != own => {}
                // A process that may not be looked at is one that was seen and refused.
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    outcome = Err(Failure::from(error));
                    continue;
                }
                _ => continue,
            }
            let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
            let doors = [process.join("root"), process.join("cwd")];
            for door in doors.into_iter().chain(descriptors.map(|entry| entry.path())) {
                if door.join(MARK_OF_THE_VM).exists() {
                    eprintln!("the VM shows through {}", door.display());
                    return Ok(());
                }
            }
            outcome = Err(Failure::NoEffect);
        }
    }
    outcome
}
