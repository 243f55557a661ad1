//! The engine's sockets stay out of containers.
//!
//! Why: who speaks to the engine is root of the VM. The caller compares device and inode of what the mount opens, so
//! no other name, link or bind of the socket gets past.

use super::PREFIX;
use crate::Verdict;

/// Identifier of the rule.
pub const ID: &str = "no-engine-socket";

/// Names under which users ask for the engine's socket. They choose the wording of a refusal, never a permission.
pub const USUAL_NAMES: &[&str] = &["/var/run/docker.sock", "/run/docker.sock"];

/// Refuses the mount of an engine socket into a container made from `image`.
#[must_use]
pub fn deny(image: &str) -> Verdict {
    Verdict::Deny {
        rule: ID,
        message: format!(
            "{PREFIX}: docker socket mount denied for container with image \"{image}\"; image is not in the allowed \
             list; if you wish to allow it, configure the docker socket image list in the admin settings."
        ),
        remedy: "run the Docker engine inside of the container instead",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_names_the_image() {
        let Verdict::Deny { message, .. } = deny("alpine:3") else { panic!("allowed") };
        assert!(message.contains("docker socket mount denied for container with image \"alpine:3\";"));
    }
}
