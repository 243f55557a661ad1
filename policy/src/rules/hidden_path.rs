//! What of `/proc` and `/sys` a container does not get to see.
//!
//! Why: these tell of the VM's disks, keys, firmware and kernel, which is nobody's business and helps an attacker. They
//! are empty in a container, and PID 1 closes them to everyone but the VM's root, for containers that mount a procfs of their
//! own (but for kernel settings, whose modes nobody changes); of `/sys/devices` it closes all that names hardware, by whatever name a platform has for it. What changes the VM is not in this table: the kernel refuses that to a mapped root.

/// A path that is empty in containers.
#[derive(Clone, Copy, Debug)]
pub struct Hidden {
    /// The path. One that the kernel does not have is left out.
    pub path: &'static str,
    /// What it would tell.
    pub why: &'static str,
    /// In which containers it is empty.
    pub from: From,
}

/// Containers that a path is hidden from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// All of them.
    Everyone,
    /// Those that have not asked to see all of `/proc`: one that has (`--privileged`, `systempaths=unconfined`) may mount
    /// a new one anyway, and finds these closed.
    Ordinary,
}

const fn row(path: &'static str, from: From, why: &'static str) -> Hidden {
    Hidden { path, why, from }
}

/// The hidden paths, besides those that Docker masks itself.
pub const HIDDEN: &[Hidden] = &[
    row("/proc/acpi", From::Ordinary, "the VM's hardware"),
    row("/proc/cmdline", From::Ordinary, "the command line of the VM"),
    row("/proc/config.gz", From::Ordinary, "the configuration of the VM's kernel"),
    row("/proc/diskstats", From::Ordinary, "the VM's disks and how busy they are"),
    row("/proc/fs", From::Ordinary, "the VM's file systems"),
    row("/proc/interrupts", From::Ordinary, "the VM's hardware, and when keys are pressed"),
    row("/proc/kallsyms", From::Ordinary, "the functions of the VM's kernel"),
    row("/proc/key-users", From::Ordinary, "how many keys others have"),
    row("/proc/keys", From::Ordinary, "keys"),
    row("/proc/partitions", From::Ordinary, "the VM's disks"),
    row("/proc/scsi", From::Ordinary, "the VM's disks"),
    row("/proc/sys/dev/cdrom", From::Ordinary, "the VM's CD drive"),
    row("/sys/block", From::Everyone, "the VM's disks"),
    row("/sys/bus", From::Everyone, "the VM's hardware"),
    row("/sys/class/block", From::Everyone, "the VM's disks"),
    row("/sys/dev/block", From::Everyone, "the VM's disks"),
    row("/sys/devices/LNXSYSTM:00", From::Everyone, "the VM's hardware"),
    row("/sys/devices/pci0000:00", From::Everyone, "the VM's hardware"),
    row(
        "/sys/devices/platform",
        From::Everyone,
        "the VM's hardware; all of it where a device tree describes it",
    ),
    row("/sys/devices/virtual/block", From::Everyone, "the VM's disks"),
    row("/sys/devices/virtual/dmi", From::Everyone, "the hypervisor's name and firmware"),
    row("/sys/firmware", From::Everyone, "ACPI tables and EFI variables"),
    row("/sys/fs/ext4", From::Everyone, "the VM's file systems"),
    row("/sys/kernel/boot_params", From::Everyone, "where ACPI's and EFI's tables are"),
    row("/sys/kernel/config", From::Everyone, "objects of the kernel that root makes"),
    row("/sys/kernel/debug", From::Everyone, "the inside of the kernel"),
    row("/sys/kernel/security", From::Everyone, "profiles of AppArmor, lockdown"),
    row("/sys/kernel/tracing", From::Everyone, "what the kernel does for others"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_says_why() {
        assert!(HIDDEN.windows(2).all(|pair| pair[0].path < pair[1].path));
        assert!(HIDDEN.iter().all(|hidden| !hidden.why.is_empty()));
    }

    #[test]
    fn what_nested_containers_mount_over_is_not_hidden_from_those_that_have_them() {
        let everyone = HIDDEN.iter().filter(|hidden| hidden.from == From::Everyone);
        assert!(everyone.clone().all(|hidden| hidden.path.starts_with("/sys/")));
        assert!(!everyone.clone().any(|hidden| "/sys/fs/cgroup".starts_with(hidden.path)));
    }
}
