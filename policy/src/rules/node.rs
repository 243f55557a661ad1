//! Which device nodes a container may make with `mknod(2)`.
//!
//! Why: the kernel lets nobody make a device node from inside of a user namespace, and archives, `debootstrap` and
//! packages make them. The VM makes those below in the container's stead (`eci-nodes`); for any other the answer is the
//! kernel's own.
//!
//! Every row is a device of [`super::device::SAFE`]. Of those, three kinds are not here: the console, for in a container it is a
//! pty, and the node would open the VM's; `/dev/fuse` and `/dev/net/tun`, which `--device` gives at the place where they
//! are looked for, and where a node could not be used; and ptys, which only their own file system opens.

/// A character device whose node a container may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Makeable {
    /// Its usual name.
    pub name: &'static str,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Why the node is harmless wherever it is made.
    pub why: &'static str,
}

const fn row(name: &'static str, major: u32, minor: u32, why: &'static str) -> Makeable {
    Makeable { name, major, minor, why }
}

/// The nodes that may be made.
pub const MAKEABLE: &[Makeable] = &[
    row("null", 1, 3, "holds nothing"),
    row("zero", 1, 5, "holds nothing"),
    row("full", 1, 7, "holds nothing"),
    row("random", 1, 8, "adding entropy needs a capability of the VM"),
    row("urandom", 1, 9, "adding entropy needs a capability of the VM"),
    row("tty", 5, 0, "opens the caller's own terminal"),
    row(
        "ptmx",
        5,
        2,
        "opens the devpts in the folder `pts` beside it, which is one that the container mounted",
    ),
];

/// Bits of a mode that tell the kind of file.
pub const KIND: u32 = 0o170_000;
/// A character device.
pub const CHARACTER: u32 = 0o020_000;

/// The node that `mknod` with this mode and this device number, both as the kernel takes them, would make; `None` when it
/// is not a row of the table.
#[must_use]
pub fn find(mode: u16, device: u32) -> Option<&'static Makeable> {
    let (major, minor) = split(device);
    let is_character = u32::from(mode) & KIND == CHARACTER;
    MAKEABLE.iter().find(|row| is_character && (row.major, row.minor) == (major, minor))
}

/// Major and minor of a device number in the 32 bits of the system call: the minor's lowest eight, the major's twelve, the
/// rest of the minor.
#[must_use]
pub fn split(device: u32) -> (u32, u32) {
    ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0x000f_ff00))
}

#[cfg(test)]
mod tests {
    use super::super::device;
    use super::*;

    fn number(major: u32, minor: u32) -> u32 {
        (minor & 0xff) | (major << 8) | ((minor & 0x000f_ff00) << 12)
    }

    #[test]
    fn every_row_is_a_safe_device_and_says_why() {
        for row in MAKEABLE {
            let same = device::SAFE
                .iter()
                .find(|safe| (safe.major, safe.minor) == (i64::from(row.major), Some(i64::from(row.minor))));
            assert_eq!(same.map(|safe| safe.path), Some(format!("/dev/{}", row.name).as_str()));
            assert!(!row.why.is_empty());
        }
    }

    #[test]
    fn each_row_is_found_and_its_neighbours_are_not() {
        let rows: Vec<_> = MAKEABLE.iter().map(|row| (row.major, row.minor)).collect();
        for &(major, minor) in &rows {
            assert!(find(0o020_666, number(major, minor)).is_some());
            let near =
                [(major, minor + 1), (major, minor.wrapping_sub(1)), (major + 1, minor), (major - 1, minor)];
            for (major, minor) in near.into_iter().filter(|near| !rows.contains(near)) {
                assert_eq!(find(0o020_666, number(major, minor & 0x000f_ffff)), None, "{major}:{minor}");
            }
            // The same numbers with a bit in what is above eight bits.
            assert_eq!(find(0o020_666, number(major, minor | 0x100)), None);
            assert_eq!(find(0o020_666, number(major | 0x100, minor)), None);
        }
        for device in [(1, 1), (1, 11), (5, 1), (10, 229), (10, 200), (136, 0), (0, 0), (254, 0)] {
            assert_eq!(find(0o020_666, number(device.0, device.1)), None, "{device:?}");
        }
    }

    #[test]
    fn only_character_devices_are_makeable() {
        for kind in (0..16).map(|kind| kind << 12) {
            let found = find(kind | 0o666, number(1, 3)).is_some();
            assert_eq!(found, u32::from(kind) == CHARACTER, "{kind:o}");
        }
    }

    #[test]
    fn numbers_are_split_as_the_kernel_does() {
        assert_eq!(split(0x103), (1, 3));
        assert_eq!(split(u32::MAX), (0xfff, 0x000f_ffff));
        assert_eq!(split(number(254, 0x12345)), (254, 0x12345));
    }
}
