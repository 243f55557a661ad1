//! Memory: `/proc/meminfo`, as proc_meminfo(5) has it, from `memory.stat` and its neighbours (kernel's cgroup-v2.rst).

use std::collections::BTreeMap;

/// Names with their values in bytes, of `memory.stat` or `/proc/meminfo`.
pub type Values = BTreeMap<String, u64>;

/// A container's use of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that it may have; `None` for no limit.
    pub limit: Option<u64>,
    /// Bytes that it has, page cache included.
    pub used: u64,
    /// `memory.stat`.
    pub parts: Values,
}

/// Where a line's value comes from.
enum From {
    /// Reckoned.
    Total,
    Free,
    Available,
    /// The sum of these of `memory.stat`.
    Parts(&'static [&'static str]),
    /// The VM has the same value for everybody.
    Machine,
}

/// The lines, in the kernel's order. Those of the kernel's that are not here (addresses, huge pages in use) belong to the machine.
const LINES: &[(&str, From)] = &[
    ("MemTotal", From::Total),
    ("MemFree", From::Free),
    ("MemAvailable", From::Available),
    ("Buffers", From::Parts(&[])),
    ("Cached", From::Parts(&["file"])),
    ("SwapCached", From::Parts(&["swapcached"])),
    ("Active", From::Parts(&["active_anon", "active_file"])),
    ("Inactive", From::Parts(&["inactive_anon", "inactive_file"])),
    ("Active(anon)", From::Parts(&["active_anon"])),
    ("Inactive(anon)", From::Parts(&["inactive_anon"])),
    ("Active(file)", From::Parts(&["active_file"])),
    ("Inactive(file)", From::Parts(&["inactive_file"])),
    ("Unevictable", From::Parts(&["unevictable"])),
    ("Mlocked", From::Parts(&[])),
    ("SwapTotal", From::Parts(&[])),
    ("SwapFree", From::Parts(&[])),
    ("Dirty", From::Parts(&["file_dirty"])),
    ("Writeback", From::Parts(&["file_writeback"])),
    ("AnonPages", From::Parts(&["anon"])),
    ("Mapped", From::Parts(&["file_mapped"])),
    ("Shmem", From::Parts(&["shmem"])),
    ("KReclaimable", From::Parts(&["slab_reclaimable"])),
    ("Slab", From::Parts(&["slab"])),
    ("SReclaimable", From::Parts(&["slab_reclaimable"])),
    ("SUnreclaim", From::Parts(&["slab_unreclaimable"])),
    ("KernelStack", From::Parts(&["kernel_stack"])),
    ("PageTables", From::Parts(&["pagetables"])),
    ("SecPageTables", From::Parts(&["sec_pagetables"])),
    ("CommitLimit", From::Total),
    ("Committed_AS", From::Parts(&["anon", "shmem"])),
    ("VmallocTotal", From::Machine),
    ("VmallocUsed", From::Parts(&["vmalloc"])),
    ("Percpu", From::Parts(&["percpu"])),
    ("AnonHugePages", From::Parts(&["anon_thp"])),
    ("Hugepagesize", From::Machine),
];

/// What the kernel gives back when memory is wanted.
const RECLAIMABLE: &[&str] = &["active_file", "inactive_file", "slab_reclaimable"];

impl Memory {
    /// The file, for a container in a VM that has these figures of its own. What is free in the container and not in the VM is
    /// not free.
    #[must_use]
    pub fn text(&self, machine: &Values) -> String {
        let of_machine = |name: &str| machine.get(name).copied().unwrap_or_default();
        let sum = |names: &[&str]| names.iter().filter_map(|name| self.parts.get(*name)).sum::<u64>();
        let total = self.limit.unwrap_or(u64::MAX).min(of_machine("MemTotal"));
        let left = |used: u64, name: &str| total.saturating_sub(used).min(of_machine(name));
        let mut text = String::new();
        for (name, from) in LINES {
            let bytes = match from {
                From::Total => total,
                From::Free => left(self.used, "MemFree"),
                From::Available => left(self.used.saturating_sub(sum(RECLAIMABLE)), "MemAvailable"),
                From::Parts(names) => sum(names),
                From::Machine => of_machine(name),
            };
            text += &format!("{:<15} {:>8} kB\n", format!("{name}:"), bytes / 1024);
        }
        text
    }
}

/// Reads lines of a name and a number: of bytes, or of kB when that follows.
#[must_use]
pub fn values(text: &str) -> Values {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?.trim_end_matches(':').to_owned();
        let value: u64 = words.next()?.parse().ok()?;
        let unit = if words.next() == Some("kB") { 1024 } else { 1 };
        Some((name, value.saturating_mul(unit)))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "MemTotal:        2036564 kB\nMemFree:         1000000 kB\nMemAvailable:    1500000 kB\n\
        VmallocTotal:   34359738367 kB\nHugepagesize:       2048 kB\nDirectMap4k:        1 kB\n";

    fn line(memory: &Memory, name: &str) -> String {
        let text = memory.text(&values(MACHINE));
        text.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap_or_default().to_owned()
    }

    #[test]
    fn a_limit_is_the_total_and_use_is_taken_off() {
        let parts = values("anon 1048576\nfile 2097152\nactive_file 1048576\ninactive_file 1048576\n");
        let memory = Memory { limit: Some(64 << 20), used: 4 << 20, parts };
        assert_eq!(line(&memory, "MemTotal"), "MemTotal:          65536 kB");
        assert_eq!(line(&memory, "MemFree"), "MemFree:           61440 kB");
        assert_eq!(line(&memory, "MemAvailable"), "MemAvailable:      63488 kB");
        assert_eq!(line(&memory, "Cached"), "Cached:             2048 kB");
        assert_eq!(line(&memory, "Hugepagesize"), "Hugepagesize:       2048 kB");
        assert_eq!(line(&memory, "VmallocTotal"), "VmallocTotal:   34359738367 kB");
        assert_eq!(line(&memory, "DirectMap4k"), "");
    }

    #[test]
    fn no_limit_or_a_larger_one_is_the_machine() {
        for limit in [None, Some(1 << 50)] {
            let memory = Memory { limit, ..Memory::default() };
            assert_eq!(line(&memory, "MemTotal"), "MemTotal:        2036564 kB");
            assert_eq!(line(&memory, "MemFree"), "MemFree:         1000000 kB");
        }
    }

    #[test]
    fn more_use_than_the_limit_leaves_nothing() {
        let memory = Memory { limit: Some(4096), used: 8192, ..Memory::default() };
        assert_eq!(line(&memory, "MemFree"), "MemFree:               0 kB");
    }
}
