//! Which of the VM's devices a container may have.
//!
//! Why: a device node is a way past every mount and namespace. Those below hand out nothing of the VM. A privileged
//! container is sent every device of the VM by the engine without the user having named one: there the unsafe ones
//! are dropped without a word, as the container could not have used them; one named by `--device` is refused.
//!
//! Number and path both have to be those of the list: in a user namespace crun makes no node but binds what the VM has
//! at the path, so that `--device /dev/null:/etc/passwd` would bring in the VM's file.

use super::PREFIX;
use crate::Verdict;

/// Identifier of the rule.
pub const ID: &str = "safe-devices";

/// A character device that a container may have.
#[derive(Clone, Copy, Debug)]
pub struct SafeDevice {
    /// Path in the container.
    pub path: &'static str,
    /// Major number.
    pub major: i64,
    /// Minor number, `None` for all of that major.
    pub minor: Option<i64>,
    /// Which containers may use it.
    pub given: Given,
    /// Mode in the container where it is not the VM's: nothing but root uses devices there, so none is open to users.
    pub mode: Option<u32>,
    /// Why it is harmless.
    pub why: &'static str,
}

/// Which containers may use a safe device. Others may find a node of it in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// All. `/dev/net/tun` is so because crun's own rules let every container use it.
    Always,
    /// Those that were given it, by name or with `--privileged`.
    Asked,
    /// None under this number: what they have at the path is another device.
    Never,
}

impl SafeDevice {
    /// Whether this is `major`:`minor` under the name that it has in the VM.
    #[must_use]
    pub fn is(&self, major: i64, minor: i64, path: &str) -> bool {
        self.major == major
            && match self.minor {
                Some(only) => only == minor && self.path == path,
                None => path == format!("{}/{minor}", self.path),
            }
    }
}

/// A device that every container may use, with the VM's mode.
const fn row(path: &'static str, major: i64, minor: Option<i64>, why: &'static str) -> SafeDevice {
    SafeDevice { path, major, minor, given: Given::Always, mode: None, why }
}

/// The safe devices. Everything else is refused or dropped.
pub const SAFE: &[SafeDevice] = &[
    row("/dev/null", 1, Some(3), "holds nothing"),
    row("/dev/zero", 1, Some(5), "holds nothing"),
    row("/dev/full", 1, Some(7), "holds nothing"),
    row("/dev/random", 1, Some(8), "adding entropy needs a capability of the VM"),
    row("/dev/urandom", 1, Some(9), "adding entropy needs a capability of the VM"),
    row("/dev/tty", 5, Some(0), "opens the caller's own terminal"),
    SafeDevice {
        given: Given::Never,
        ..row("/dev/console", 5, Some(1), "the container's is a bind of its own pty")
    },
    row("/dev/ptmx", 5, Some(2), "makes ptys in the container's own devpts"),
    row("/dev/pts", 136, None, "ptys of the container's own devpts"),
    SafeDevice {
        given: Given::Asked,
        mode: Some(0o666),
        ..row("/dev/fuse", 10, Some(229), "mounts belong to the mounter's user namespace")
    },
    SafeDevice {
        mode: Some(0o666),
        ..row("/dev/net/tun", 10, Some(200), "interfaces belong to the network namespace")
    },
];

/// How a device came into the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The user named it.
    Named,
    /// A privileged container brings in all of the VM's devices.
    Privileged,
}

/// What becomes of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The container gets it.
    Keep,
    /// It is left out, silently.
    Drop,
    /// The container is refused.
    Refuse(Verdict),
}

/// Judges the device `kind` (`c`, `b`, `p`) `major`:`minor` at `path`.
#[must_use]
pub fn judge(kind: &str, major: i64, minor: i64, path: &str, wish: Wish) -> Outcome {
    let safe = matches!(kind, "c" | "u") && SAFE.iter().any(|device| device.is(major, minor, path));
    match (safe, wish) {
        (true, _) => Outcome::Keep,
        (false, Wish::Privileged) => Outcome::Drop,
        (false, Wish::Named) => Outcome::Refuse(Verdict::Deny {
            rule: ID,
            message: format!(
                "{PREFIX}: can't use device {path} because it is not on the list of safe devices"
            ),
            remedy: "containers may have /dev/fuse and /dev/net/tun besides the usual ones",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safe_devices_are_kept_however_they_come_in() {
        assert_eq!(judge("c", 10, 229, "/dev/fuse", Wish::Named), Outcome::Keep);
        assert_eq!(judge("c", 1, 3, "/dev/null", Wish::Privileged), Outcome::Keep);
        assert_eq!(judge("c", 136, 7, "/dev/pts/7", Wish::Privileged), Outcome::Keep);
    }

    #[test]
    fn neighbours_of_safe_devices_are_not_safe() {
        for (kind, major, minor) in [("c", 1, 1), ("c", 10, 237), ("b", 1, 3), ("b", 10, 229), ("c", 5, 3)] {
            assert_eq!(judge(kind, major, minor, "/dev/x", Wish::Privileged), Outcome::Drop);
            assert!(matches!(judge(kind, major, minor, "/dev/x", Wish::Named), Outcome::Refuse(_)));
        }
    }

    #[test]
    fn a_safe_device_is_kept_under_its_own_name_only() {
        for (major, minor, path) in [
            (1, 3, "/etc/passwd"),
            (1, 3, "/dev/vda"),
            (1, 3, "/dev/zero"),
            (1, 3, "/dev/../dev/null"),
            (136, 7, "/dev/pts/8"),
            (136, 7, "/dev/pts"),
        ] {
            assert_eq!(judge("c", major, minor, path, Wish::Privileged), Outcome::Drop, "{path}");
            assert!(matches!(judge("c", major, minor, path, Wish::Named), Outcome::Refuse(_)), "{path}");
        }
    }

    #[test]
    fn the_name_of_a_device_grants_nothing() {
        assert!(matches!(judge("b", 254, 0, "/dev/null", Wish::Named), Outcome::Refuse(_)));
    }
}
