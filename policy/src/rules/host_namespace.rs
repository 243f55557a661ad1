//! Containers share no namespace with the VM.
//!
//! Why: a container in the VM's network or process namespace reaches the engine and its helpers from the inside, and
//! its user namespace would own none of what it is then allowed to configure.

use super::PREFIX;
use crate::Verdict;

/// Identifier of the rule.
pub const ID: &str = "no-host-namespace";

/// Judges `shared`: Docker's names of the namespaces that would be the VM's.
#[must_use]
pub fn judge(shared: &[&str]) -> Verdict {
    if shared.is_empty() {
        return Verdict::Allow;
    }
    Verdict::Deny {
        rule: ID,
        message: format!(
            "{PREFIX}: containers can't share namespaces [{}] with the host (because they use the linux \
             user-namespace for isolation)",
            shared.join(" ")
        ),
        remedy: "leave out the options that ask for the host's namespaces",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_namespaces_are_allowed() {
        assert_eq!(judge(&[]), Verdict::Allow);
    }

    #[test]
    fn a_host_namespace_is_refused_in_dockers_words() {
        let Verdict::Deny { message, rule, .. } = judge(&["pid", "network"]) else { panic!("allowed") };
        assert_eq!(rule, ID);
        assert_eq!(
            message,
            "enhanced container isolation: containers can't share namespaces [pid network] with the host \
             (because they use the linux user-namespace for isolation)"
        );
    }
}
