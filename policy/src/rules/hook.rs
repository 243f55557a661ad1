//! The engine's network hook is the only one.
//!
//! Why: hooks run as root of the VM. dockerd sets up the network of a container in a prestart hook that is dockerd
//! itself under the name `libnetwork-setkey`; everything else came in by other means.

use super::PREFIX;
use crate::Verdict;

/// Identifier of the rule.
pub const ID: &str = "network-hook-only";

/// Name that dockerd gives to its re-executed self, the first argument of the hook.
pub const NETWORK_HOOK: &str = "libnetwork-setkey";

/// A hook of the bundle, as the caller found it.
#[derive(Clone, Copy, Debug)]
pub struct Hook<'a> {
    /// The phase: `prestart`, `createRuntime`, ...
    pub phase: &'a str,
    /// Whether the path is `/proc/<pid>/exe` and opens the engine's own binary.
    pub runs_engine: bool,
    /// First argument.
    pub argument_zero: &'a str,
}

/// Judges one hook.
#[must_use]
pub fn judge(hook: Hook<'_>) -> Verdict {
    if hook.phase == "prestart" && hook.runs_engine && hook.argument_zero == NETWORK_HOOK {
        return Verdict::Allow;
    }
    Verdict::Deny {
        rule: ID,
        message: format!(
            "{PREFIX}: containers can't have {} hooks (because hooks run outside of them)",
            hook.phase
        ),
        remedy: "do the work in the container's own start command",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: Hook<'_> = Hook { phase: "prestart", runs_engine: true, argument_zero: NETWORK_HOOK };

    #[test]
    fn the_network_hook_passes() {
        assert_eq!(judge(NETWORK), Verdict::Allow);
    }

    #[test]
    fn a_hook_that_differs_in_one_point_is_refused() {
        for hook in [
            Hook { phase: "createRuntime", ..NETWORK },
            Hook { runs_engine: false, ..NETWORK },
            Hook { argument_zero: "sh", ..NETWORK },
        ] {
            assert_eq!(judge(hook).denied_by(), Some(ID), "{hook:?}");
        }
    }
}
