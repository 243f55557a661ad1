//! Kernel settings, as data: written, read back, and read again by the self-check.

use std::fs;
use std::io;
use std::path::PathBuf;

/// What a setting that the kernel does not have means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The feature itself is built out, which is stronger than the setting.
    BuiltOut,
    /// The promise would be empty.
    Refuse,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Sysctl {
    /// Path below `/proc/sys`.
    pub name: &'static str,
    /// Value in the kernel's own spelling.
    pub value: &'static str,
    /// What its absence means.
    pub absent: Absent,
    /// Why this value.
    pub why: &'static str,
}

const fn promise(name: &'static str, value: &'static str, why: &'static str) -> Sysctl {
    Sysctl { name, value, absent: Absent::Refuse, why }
}

const fn built_out(name: &'static str, value: &'static str, why: &'static str) -> Sysctl {
    Sysctl { name, value, absent: Absent::BuiltOut, why }
}

/// All settings.
pub const SYSCTLS: &[Sysctl] = &[
    promise("kernel/kptr_restrict", "2", "kernel addresses are hidden from everyone"),
    promise("kernel/dmesg_restrict", "1", "the kernel log is for PID 1 alone"),
    promise("kernel/perf_event_paranoid", "3", "no performance counters for containers"),
    promise("kernel/randomize_va_space", "2", "full address space randomisation"),
    promise("kernel/unprivileged_bpf_disabled", "1", "no BPF for containers, until the next boot"),
    promise("kernel/oops_limit", "100", "a kernel that keeps failing stops"),
    promise("kernel/warn_limit", "100", "a kernel that keeps warning stops"),
    promise(
        "kernel/yama/ptrace_scope",
        "1",
        "processes debug only their children; debuggers in containers work",
    ),
    promise("kernel/printk_devkmsg", "on", "PID 1's records are never dropped"),
    promise("kernel/pid_max", "4194304", "many containers, many threads"),
    promise("kernel/keys/maxkeys", "20000", "crun makes a session keyring for each container"),
    promise("kernel/keys/maxbytes", "400000", "as above, in bytes"),
    promise("fs/protected_symlinks", "1", "links in shared folders are not followed for others"),
    promise("fs/protected_hardlinks", "1", "no links to files of others"),
    promise("fs/protected_fifos", "2", "no surprise opens of others' fifos"),
    promise("fs/protected_regular", "2", "no surprise opens of others' files"),
    promise("fs/suid_dumpable", "0", "privileged programs leave no memory behind"),
    // All containers are counted together here and below, whatever their user namespaces. What one can take leaves the others some, or costs it
    // memory that its own limit bounds; without a bound it would be the machine's memory, and the kernel would end others for it.
    promise("fs/inotify/max_user_instances", "65536", "many containers that watch files"),
    promise("fs/inotify/max_user_watches", "1048576", "large source trees"),
    promise("fs/file-max", "9223372036854775807", "open files count towards a container's memory limit"),
    promise("net/core/bpf_jit_harden", "2", "constants in JIT code are blinded"),
    promise("net/ipv4/ip_forward", "1", "containers reach the network"),
    promise(
        "net/ipv4/neigh/default/gc_thresh1",
        "8192",
        "one table of neighbours for all containers: one that asks for all",
    ),
    promise(
        "net/ipv4/neigh/default/gc_thresh2",
        "98304",
        "addresses of its network at once, 65,534 of them, must leave the others",
    ),
    promise("net/ipv4/neigh/default/gc_thresh3", "131072", "room for theirs"),
    built_out("net/ipv6/neigh/default/gc_thresh1", "8192", "as for IPv4"),
    built_out("net/ipv6/neigh/default/gc_thresh2", "98304", "as for IPv4"),
    built_out("net/ipv6/neigh/default/gc_thresh3", "131072", "as for IPv4"),
    promise("vm/mmap_min_addr", "65536", "a null pointer in the kernel stays a fault"),
    promise(
        "vm/min_free_kbytes",
        "16384",
        "the kernel's own choice for huge pages sets 66 MB aside, a third of what an idle machine uses",
    ),
    promise("vm/max_map_count", "1048576", "search engines and databases ask for it"),
    promise("user/max_user_namespaces", "131072", "one a container and room for nesting, but bounded"),
    promise("dev/tty/ldisc_autoload", "0", "no line disciplines on demand"),
    built_out("kernel/kexec_load_disabled", "1", "no other kernel is started from this one"),
    built_out("kernel/sysrq", "0", "no magic keys"),
    built_out("kernel/io_uring_disabled", "1", "io_uring only for root of the machine"),
    built_out("vm/unprivileged_userfaultfd", "0", "page faults are not held by containers"),
    built_out("dev/tty/legacy_tiocsti", "0", "no typing into another's terminal"),
];

/// Why a setting does not hold.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel does not have it.
    #[error("kernel setting {name} does not exist")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// The kernel refused the value.
    #[error("cannot set {name} to {value}")]
    Write {
        /// Its name.
        name: &'static str,
        /// The value.
        value: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel took it and has another.
    #[error("{name} reads back as `{found}`, expected `{value}`")]
    ReadBack {
        /// Its name.
        name: &'static str,
        /// What was read.
        found: String,
        /// What was written.
        value: &'static str,
    },
}

/// Writes every setting and reads it back.
///
/// # Errors
/// At the first that does not hold.
pub fn apply() -> Result<(), Error> {
    for sysctl in SYSCTLS {
        let Some(current) = read(sysctl) else {
            match sysctl.absent {
                Absent::BuiltOut => continue,
                Absent::Refuse => return Err(Error::Missing { name: sysctl.name }),
            }
        };
        if current != sysctl.value {
            write(sysctl)?;
        }
        judge(sysctl, read(sysctl).as_deref())?;
    }
    Ok(())
}

/// The present value, without the final newline; `None` when the kernel does not have the setting.
#[must_use]
pub fn read(sysctl: &Sysctl) -> Option<String> {
    Some(fs::read_to_string(path(sysctl)).ok()?.trim().to_owned())
}

/// Whether a value that was read is the promised one.
///
/// # Errors
/// When it is not.
pub fn judge(sysctl: &Sysctl, found: Option<&str>) -> Result<(), Error> {
    match found {
        Some(found) if found == sysctl.value => Ok(()),
        Some(found) => {
            Err(Error::ReadBack { name: sysctl.name, found: found.to_owned(), value: sysctl.value })
        }
        None if sysctl.absent == Absent::BuiltOut => Ok(()),
        None => Err(Error::Missing { name: sysctl.name }),
    }
}

fn write(sysctl: &Sysctl) -> Result<(), Error> {
    // `printk_devkmsg` takes nothing without the end of the line; the others do not mind it.
    fs::write(path(sysctl), format!("{}\n", sysctl.value)).map_err(|source| Error::Write {
        name: sysctl.name,
        value: sysctl.value,
        source,
    })
}

fn path(sysctl: &Sysctl) -> PathBuf {
    PathBuf::from("/proc/sys").join(sysctl.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> &'static Sysctl {
        SYSCTLS.iter().find(|sysctl| sysctl.name == name).unwrap()
    }

    #[test]
    fn a_value_one_off_does_not_hold() {
        assert!(judge(named("kernel/kptr_restrict"), Some("2")).is_ok());
        let error = judge(named("kernel/kptr_restrict"), Some("1")).unwrap_err();
        assert_eq!(error.to_string(), "kernel/kptr_restrict reads back as `1`, expected `2`");
    }

    #[test]
    fn absence_is_fine_only_where_the_feature_is_built_out() {
        assert!(judge(named("kernel/sysrq"), None).is_ok());
        let error = judge(named("kernel/dmesg_restrict"), None).unwrap_err();
        assert_eq!(error.to_string(), "kernel setting kernel/dmesg_restrict does not exist");
    }

    #[test]
    fn no_setting_is_there_twice() {
        for (index, sysctl) in SYSCTLS.iter().enumerate() {
            assert!(SYSCTLS[..index].iter().all(|other| other.name != sysctl.name), "{}", sysctl.name);
        }
    }
}
