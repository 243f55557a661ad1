//! Kernel settings that a system container writes and that belong to the whole machine: it gets nodes of its own.
//!
//! Why: the kernel refuses them to a mapped root, and kubelet, systemd-sysctl and installers give up at the refusal. Each
//! container has its own copy, which begins with the VM's value; what is written there is never pushed to the VM.

/// A setting below `/proc/sys`.
#[derive(Clone, Copy, Debug)]
pub struct OwnNode {
    /// Path below `/proc/sys`. One that the kernel does not have is left out.
    pub name: &'static str,
    /// Who writes it.
    pub why: &'static str,
}

const fn row(name: &'static str, why: &'static str) -> OwnNode {
    OwnNode { name, why }
}

/// The settings. Those of a namespace (`net/*`, `kernel/shm*`, `kernel/msg*`, `fs/mqueue/*`) are real and not here.
pub const OWN_NODES: &[OwnNode] = &[
    row("fs/file-max", "installers of databases raise it"),
    row("fs/inotify/max_user_instances", "Kubernetes nodes raise it"),
    row("fs/inotify/max_user_watches", "Kubernetes nodes and IDEs raise it"),
    row("fs/nr_open", "systemd raises it when it starts"),
    row("fs/protected_hardlinks", "systemd-sysctl sets it at boot"),
    row("fs/protected_symlinks", "systemd-sysctl sets it at boot"),
    row("kernel/dmesg_restrict", "hardening scripts set it"),
    row("kernel/keys/root_maxbytes", "kubelet sets it"),
    row("kernel/keys/root_maxkeys", "kubelet sets it"),
    row("kernel/kptr_restrict", "hardening scripts set it"),
    row("kernel/panic", "kubelet sets it"),
    row("kernel/panic_on_oops", "kubelet sets it"),
    row("kernel/pid_max", "systemd-sysctl sets it at boot"),
    row("kernel/printk", "Debian's sysctl settings have it"),
    row("kernel/yama/ptrace_scope", "debuggers' set-up lowers it"),
    row("vm/max_map_count", "search engines raise it"),
    row("vm/mmap_min_addr", "hardening scripts set it"),
    row("vm/overcommit_memory", "kubelet and databases set it"),
    row("vm/panic_on_oom", "kubelet sets it"),
    row("vm/swappiness", "installers of databases lower it"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_says_why() {
        assert!(OWN_NODES.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(OWN_NODES.iter().all(|node| !node.why.is_empty()));
    }

    #[test]
    fn settings_of_a_namespace_stay_real() {
        for real in ["net/", "kernel/shm", "kernel/msg", "kernel/sem", "fs/mqueue"] {
            assert!(OWN_NODES.iter().all(|node| !node.name.starts_with(real)), "{real}");
        }
    }
}
