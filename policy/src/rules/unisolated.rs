//! A container that ran without isolation does not run with it.
//!
//! Why: it was made to be root of the VM, with files, mounts and privileges that are judged anew now; and whoever finds it running would
//! take it for one that was isolated all along.

use super::PREFIX;
use crate::Verdict;

/// Identifier of the rule.
pub const ID: &str = "no-unisolated-container";

/// Judges a container by whether it ran while isolation was off.
#[must_use]
pub fn judge(ran: bool) -> Verdict {
    if !ran {
        return Verdict::Allow;
    }
    Verdict::Deny {
        rule: ID,
        message: format!(
            "{PREFIX}: this container ran while isolation was off, and can't be started while it is on"
        ),
        remedy: "make it again: `docker rm` it, then `docker run`; volumes stay, and `docker commit` keeps what it wrote elsewhere",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_ran_without_isolation_is_told_what_to_do() {
        assert_eq!(judge(false), Verdict::Allow);
        let Verdict::Deny { message, remedy, .. } = judge(true) else { panic!("allowed") };
        assert!(message.starts_with("enhanced container isolation: ") && remedy.contains("docker rm"));
    }
}
