//! Kernel settings that a system container writes and that belong to the whole machine: it gets nodes of its own.
//!
//! Why: the kernel refuses them to a mapped root, and kubelet, systemd-sysctl and installers give up at the refusal. Each
//! container has its own copy, which begins with the VM's value; what is written there is never pushed to the VM.

/// A setting.
#[derive(Clone, Copy, Debug)]
pub struct OwnNode {
    /// Its path. One that the kernel does not have is left out.
    pub path: &'static str,
    /// Who writes it.
    pub why: &'static str,
}

const fn row(path: &'static str, why: &'static str) -> OwnNode {
    OwnNode { path, why }
}

/// The settings. Those of a namespace (`net/*`, `kernel/shm*`, `kernel/msg*`, `fs/mqueue/*`) are real and not here, but for
/// [`FIRST_NAMESPACE_ONLY`].
pub const OWN_NODES: &[OwnNode] = &[
    row("/proc/sys/fs/file-max", "installers of databases raise it"),
    row("/proc/sys/fs/inotify/max_user_instances", "Kubernetes nodes raise it"),
    row("/proc/sys/fs/inotify/max_user_watches", "Kubernetes nodes and IDEs raise it"),
    row("/proc/sys/fs/nr_open", "systemd raises it when it starts"),
    row("/proc/sys/fs/protected_hardlinks", "systemd-sysctl sets it at boot"),
    row("/proc/sys/fs/protected_symlinks", "systemd-sysctl sets it at boot"),
    row("/proc/sys/kernel/dmesg_restrict", "hardening scripts set it"),
    row("/proc/sys/kernel/keys/root_maxbytes", "kubelet sets it"),
    row("/proc/sys/kernel/keys/root_maxkeys", "kubelet sets it"),
    row("/proc/sys/kernel/kptr_restrict", "hardening scripts set it"),
    row("/proc/sys/kernel/panic", "kubelet sets it"),
    row("/proc/sys/kernel/panic_on_oops", "kubelet sets it"),
    row("/proc/sys/kernel/pid_max", "systemd-sysctl sets it at boot"),
    row("/proc/sys/kernel/printk", "Debian's sysctl settings have it"),
    row("/proc/sys/kernel/yama/ptrace_scope", "debuggers' set-up lowers it"),
    row("/proc/sys/net/netfilter/nf_conntrack_buckets", "kube-proxy sets it with the next ones"),
    row("/proc/sys/net/netfilter/nf_conntrack_expect_max", "firewalls' set-up sets it with the next one"),
    row("/proc/sys/net/netfilter/nf_conntrack_max", "kube-proxy ends when it cannot set it"),
    row("/proc/sys/vm/max_map_count", "search engines raise it"),
    row("/proc/sys/vm/mmap_min_addr", "hardening scripts set it"),
    row("/proc/sys/vm/overcommit_memory", "kubelet and databases set it"),
    row("/proc/sys/vm/panic_on_oom", "kubelet sets it"),
    row("/proc/sys/vm/swappiness", "installers of databases lower it"),
    row(
        "/sys/module/nf_conntrack/parameters/hashsize",
        "kube-proxy reads it, and sets it with nf_conntrack_max",
    ),
];

/// Settings of a network namespace that the kernel lets nobody write outside of the first one.
pub const FIRST_NAMESPACE_ONLY: &[&str] = &[
    "/proc/sys/net/netfilter/nf_conntrack_buckets",
    "/proc/sys/net/netfilter/nf_conntrack_expect_max",
    "/proc/sys/net/netfilter/nf_conntrack_max",
];

/// The kernel's log, which is an empty one of the container's own: kubelet does not start without, and the VM's tells of
/// other containers.
pub const KERNEL_LOG: &str = "/dev/kmsg";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_says_why() {
        assert!(OWN_NODES.windows(2).all(|pair| pair[0].path < pair[1].path));
        assert!(OWN_NODES.iter().all(|node| !node.why.is_empty()));
    }

    #[test]
    fn settings_of_a_namespace_stay_real() {
        for real in ["net/", "kernel/shm", "kernel/msg", "kernel/sem", "fs/mqueue"] {
            let real = format!("/proc/sys/{real}");
            let mut nodes = OWN_NODES.iter().filter(|node| !FIRST_NAMESPACE_ONLY.contains(&node.path));
            assert!(nodes.all(|node| !node.path.starts_with(&real)), "{real}");
        }
    }
}
