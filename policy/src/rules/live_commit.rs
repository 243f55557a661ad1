//! No container has the engine make an image of one that runs on meanwhile (`docker commit --pause=false`).
//!
//! Why: the engine reads the container's files by their names, as root of the VM and with the VM's root in sight. Who exchanges a file for a link at the
//! right moment has it read a file of the VM, or of another container, into an image. No link is followed on layers, so this is a second wall: a container that is paused exchanges nothing,
//! but others may that were handed a folder of it.

use super::PREFIX;
use super::engine_mount::without_version;
use crate::Verdict;

/// Identifier of the rule.
pub const ID: &str = "live-commit";

/// Whether a request makes an image of a container.
#[must_use]
pub fn is_commit(path: &str) -> bool {
    without_version(path) == "/commit"
}

/// Judges such a request, by all values that its query has for `pause`.
#[must_use]
pub fn judge<'a>(mut pauses: impl Iterator<Item = &'a str>) -> Verdict {
    // As the engine reads it (`httputils.BoolValue`): none, and an empty one, is yes.
    let is_no = |value: &str| {
        let word = value.trim().to_ascii_lowercase();
        !value.is_empty() && ["", "0", "no", "false", "none"].contains(&word.as_str())
    };
    if !pauses.any(is_no) {
        return Verdict::Allow;
    }
    Verdict::Deny {
        rule: ID,
        message: format!("{PREFIX}: a container can't be committed without being paused"),
        remedy: "leave out --pause=false",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_paused_container_is_committed() {
        for good in [&[][..], &["1"], &["True"], &[""], &["yes"]] {
            assert_eq!(judge(good.iter().copied()), Verdict::Allow, "{good:?}");
        }
        for bad in [&["0"][..], &["false"], &["1", "0"], &["0", "1"], &["No"], &[" 0"], &[" "], &["none"]] {
            assert_eq!(judge(bad.iter().copied()).denied_by(), Some(ID), "{bad:?}");
        }
    }

    #[test]
    fn a_commit_is_known_by_its_path_in_every_version() {
        assert!(is_commit("/commit") && is_commit("/v1.45/commit"));
        assert!(!is_commit("/containers/commit/json") && !is_commit("/commits"));
    }
}
