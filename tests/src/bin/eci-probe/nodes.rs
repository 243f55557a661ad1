//! Nodes of /proc and /sys that are the VM's, not the container's.

use std::fs::{self, File};
use std::io::{Read, Write};

use crate::attempt::{At, Attempt, Failure, Verb, best_effort, effective};

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "write",
        why: "a setting of the VM's kernel; takes PATH=VALUE, reads it back and restores it",
        run: |wish| {
            let (path, value) = wish.split_once('=').ok_or(Failure::NotUnderstood("PATH=VALUE"))?;
            write(path, value)
        },
    },
    Verb {
        name: "trigger",
        why: "a node that acts when it is written; takes PATH=VALUE, so choose a value without harm",
        run: |wish| {
            let (path, value) = wish.split_once('=').ok_or(Failure::NotUnderstood("PATH=VALUE"))?;
            Ok(open_for_writing(path)?.write_all(value.as_bytes())?)
        },
    },
    Verb {
        name: "core-pattern",
        why: "the kernel starts what it names, as root of the VM (CVE-2025-31133, -52881)",
        run: |_| write("/proc/sys/kernel/core_pattern", "|/probe"),
    },
    Verb { name: "modprobe", why: "the same", run: |_| write("/proc/sys/kernel/modprobe", "/probe") },
    Verb { name: "uevent-helper", why: "the same", run: |_| write("/sys/kernel/uevent_helper", "/probe") },
    Verb {
        name: "sysrq-trigger",
        why: "reboots or crashes the VM; `h` only prints a help text",
        run: |_| Ok(open_for_writing("/proc/sysrq-trigger")?.write_all(b"h")?),
    },
    Verb {
        name: "vm-settings",
        why: "memory settings of all containers",
        run: |_| {
            let mut outcome = Err(Failure::NothingThere);
            for node in ["overcommit_memory", "swappiness", "max_map_count", "panic_on_oom", "mmap_min_addr"]
            {
                outcome = write(&format!("/proc/sys/vm/{node}"), "1");
                if outcome.is_ok() {
                    eprintln!("wrote vm.{node}");
                    break;
                }
            }
            outcome
        },
    },
    Verb { name: "kernel-addresses", why: "where the kernel is in memory", run: kernel_addresses },
    Verb {
        name: "read",
        why: "what is masked has nothing in it; takes a path",
        run: |path| {
            let mut byte = [0];
            let length = File::open(path)?.read(&mut byte)?;
            effective(length == 1)
        },
    },
    Verb {
        name: "list",
        why: "a folder that is masked is empty; takes a path",
        run: |path| effective(fs::read_dir(path)?.next().is_some()),
    },
];

/// Without `O_CREAT` and `O_TRUNC`, as `echo` through a shell would have them.
fn open_for_writing(path: &str) -> Result<File, Failure> {
    Ok(File::options().write(true).open(path)?)
}

fn write(path: &str, value: &str) -> Attempt {
    let before = fs::read_to_string(path).unwrap_or_default();
    open_for_writing(path)?.write_all(value.as_bytes())?;
    let after = fs::read_to_string(path).at("reading back")?;
    if before != after {
        // The attempt is over; what it changed must not change the next one's chances.
        best_effort("restore it", open_for_writing(path).map(|mut file| file.write_all(before.as_bytes())));
    }
    effective(after.trim() == value && before.trim() != value)
}

fn kernel_addresses(_: &str) -> Attempt {
    let symbols = fs::read_to_string("/proc/kallsyms")?;
    effective(
        symbols
            .lines()
            .any(|line| line.split(' ').next().is_some_and(|word| word.bytes().any(|byte| byte != b'0'))),
    )
}
