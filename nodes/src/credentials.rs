//! Who a caller is to file systems: what `/proc/<tid>/status` says of it.

use rustix::fs::Mode;
use rustix::thread::CapabilitySet;

/// Ids, capabilities and umask of one thread. Ids are the VM's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User id for file systems.
    pub uid: u32,
    /// Group id for file systems.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Effective capabilities, over the thread's own user namespace.
    pub capabilities: CapabilitySet,
    /// What new files lack.
    pub umask: Mode,
}

/// Reads `text`; `None` when a line is missing or is not understood.
#[must_use]
pub fn read(text: &str) -> Option<Credentials> {
    let line = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(":\t"));
        lines.find(|(found, _)| *found == key).map(|(_, value)| value)
    };
    // Real, effective, saved, for file systems.
    let fourth = |key: &str| line(key)?.split_whitespace().nth(3)?.parse().ok();
    let groups: Result<_, _> = line("Groups")?.split_whitespace().map(str::parse).collect();
    let capabilities = u64::from_str_radix(line("CapEff")?, 16).ok()?;
    let umask = u32::from_str_radix(line("Umask")?, 8).ok()?;
    Some(Credentials {
        uid: fourth("Uid")?,
        gid: fourth("Gid")?,
        groups: groups.ok()?,
        capabilities: CapabilitySet::from_bits_retain(capabilities),
        umask: Mode::from_raw_mode(umask & 0o777),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tmknod\nUmask:\t0027\nState:\tS (sleeping)\nUid:\t1\t2\t3\t100004\n\
                          Gid:\t5\t6\t7\t100008\nGroups:\t100010 100020 \nCapEff:\t00000000a80425fb\n";

    #[test]
    fn ids_for_file_systems_count() {
        let found = read(STATUS).unwrap();
        assert_eq!((found.uid, found.gid), (100_004, 100_008));
        assert_eq!(found.groups, [100_010, 100_020]);
        assert_eq!(found.umask.as_raw_mode(), 0o27);
        assert!(found.capabilities.contains(CapabilitySet::MKNOD));
        assert!(!found.capabilities.contains(CapabilitySet::SYS_ADMIN));
    }

    #[test]
    fn a_thread_may_have_no_further_groups() {
        assert_eq!(read(&STATUS.replace("100010 100020 ", " ")).unwrap().groups, Vec::<u32>::new());
    }

    #[test]
    fn a_line_that_is_missing_or_odd_is_not_made_up() {
        for (from, to) in [
            ("Uid:\t1\t2\t3\t100004", "Uid:\t1\t2\t3"),
            ("Gid:", "Gib:"),
            ("100010", "x"),
            ("00000000a80425fb", "-"),
            ("Umask:\t0027\n", ""),
        ] {
            assert_eq!(read(&STATUS.replace(from, to)), None, "{to}");
        }
    }

    #[test]
    fn a_name_of_a_thread_is_no_line() {
        // The kernel escapes line ends in names.
        let odd = STATUS.replace("Name:\tmknod", "Name:\tUid:\t0\t0\t0\t0");
        assert_eq!(read(&odd), read(STATUS));
    }
}
