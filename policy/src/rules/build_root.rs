//! A build step that is the first on `scratch` shares no cache.
//!
//! Why: its root filesystem is a layer by itself, with none below. When later stages copy from it, the engine reads that layer as root of the VM and by
//! names, on a mount of its own on which links are followed (it makes it read-only, which drops what the VM has set). By a socket in a cache another step can
//! be handed a folder of it (`SCM_RIGHTS`), and put a link in the engine's way meanwhile. Steps on other images are overlays, whose names the kernel
//! keeps once it has looked them up.

use super::PREFIX;
use crate::Verdict;

/// Identifier of the rule.
pub const ID: &str = "no-shared-cache-on-scratch";

/// Judges a step by whether it is a build's whose root filesystem is a layer by itself, and by where it has what it may write to and others have, too.
#[must_use]
pub fn judge(is_on_scratch: bool, shared: Option<&str>) -> Verdict {
    let Some(destination) = shared.filter(|_| is_on_scratch) else { return Verdict::Allow };
    Verdict::Deny {
        rule: ID,
        message: format!(
            "{PREFIX}: a build step that is the first on `scratch` can't have a cache that others write to ({destination})"
        ),
        remedy: "copy or add a file in a step before it, or leave the cache mount out",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_layer_by_itself_with_a_cache_is_refused() {
        for (is_on_scratch, shared) in [(false, None), (true, None), (false, Some("/c"))] {
            assert_eq!(judge(is_on_scratch, shared), Verdict::Allow);
        }
        let Verdict::Deny { message, .. } = judge(true, Some("/c")) else { panic!("allowed") };
        assert!(message.ends_with("(/c)"), "{message}");
    }
}
