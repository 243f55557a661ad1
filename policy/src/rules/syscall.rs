//! System calls that no container makes, whatever seccomp profile it is given.
//!
//! Why: the kernel checks most of these against the VM's own user namespace and would refuse them anyway. The filter
//! takes the code behind them out of reach as well: a flaw there (CVE-2022-0185 was one) is a way out of a container.
//! Docker's own profile refuses them to containers without capabilities; this table holds for `--privileged`,
//! `--cap-add` and `--security-opt seccomp=unconfined`, too.

use super::PREFIX;
use crate::Verdict;

/// Identifier of the rule.
pub const ID: &str = "refused-system-calls";

/// A system call that is refused with EPERM on every architecture that has it.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    /// Name, as libseccomp knows it.
    pub name: &'static str,
    /// Why no container needs it.
    pub why: &'static str,
}

const fn row(name: &'static str, why: &'static str) -> Refused {
    Refused { name, why }
}

/// The refused system calls.
pub const REFUSED: &[Refused] = &[
    row("acct", "process accounting writes a file for the whole machine"),
    row("bpf", "programs and maps are the kernel's, not a namespace's; runtimes inside do without"),
    row("clock_settime", "the clock is the machine's"),
    row("clock_settime64", "the clock is the machine's; the 32-bit twin"),
    row("create_module", "kernel code"),
    row("delete_module", "kernel code"),
    row("finit_module", "kernel code"),
    row("get_kernel_syms", "kernel addresses"),
    row("init_module", "kernel code"),
    row("io_uring_enter", "requests that run past seccomp and past most of audit"),
    row("io_uring_register", "requests that run past seccomp and past most of audit"),
    row("io_uring_setup", "requests that run past seccomp and past most of audit"),
    row("ioperm", "ports of the machine"),
    row("iopl", "ports of the machine"),
    row("kexec_file_load", "another kernel"),
    row("kexec_load", "another kernel"),
    row("lookup_dcookie", "names of files outside of the container, for profilers of the whole machine"),
    row("nfsservctl", "the kernel's own file server"),
    row("open_by_handle_at", "opens files by number, past the mounts that a container has"),
    row("pciconfig_iobase", "hardware"),
    row("pciconfig_read", "hardware"),
    row("pciconfig_write", "hardware"),
    row("perf_event_open", "counters that show what other containers do"),
    row("query_module", "kernel code"),
    row("quotactl", "quotas of whole file systems"),
    row("quotactl_fd", "quotas of whole file systems"),
    row("settimeofday", "the clock is the machine's"),
    row("stime", "the clock is the machine's; an old twin"),
    row("swapoff", "memory of the machine"),
    row("swapon", "memory of the machine"),
    row("uselib", "an old way to load libraries, with old flaws"),
    row("userfaultfd", "holds the kernel in the middle of a copy, which flaws need to be of use"),
    row("ustat", "describes file systems by device number, in the container or not"),
    row("vm86", "real mode of old processors"),
    row("vm86old", "real mode of old processors"),
];

/// `AF_VSOCK` of socket(2): it knows no namespaces, so a container would talk to the host past its network.
pub const REFUSED_SOCKET_FAMILY: u64 = 40;

/// Refuses a seccomp profile that hands system calls to a process of the VM.
#[must_use]
pub fn deny_listener() -> Verdict {
    Verdict::Deny {
        rule: ID,
        message: format!(
            "{PREFIX}: seccomp profiles can't have a listener (because it runs outside of the container)"
        ),
        remedy: "take `listenerPath` and SCMP_ACT_NOTIFY out of the profile",
    }
}

/// Whether a system call is in the table.
#[must_use]
pub fn is_refused(name: &str) -> bool {
    REFUSED.iter().any(|refused| refused.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_says_why() {
        assert!(REFUSED.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(REFUSED.iter().all(|refused| !refused.why.is_empty()));
    }

    #[test]
    fn neighbours_that_programs_need_are_not_refused() {
        for name in [
            "reboot",
            "mount",
            "clock_gettime",
            "adjtimex",
            "name_to_handle_at",
            "unshare",
            "keyctl",
            "socket",
        ] {
            assert!(!is_refused(name), "{name}");
        }
    }
}
