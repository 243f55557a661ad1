//! What a container may ask of the machine's scheduler, memory killer and cgroup tree.
//!
//! Why: the runtime sets these as root of the VM, so the kernel refuses none of them. A container that the memory
//! killer passes by, that no other thread preempts, or that sits in a service's cgroup, stops the VM for everybody.

use super::PREFIX;
use crate::Verdict;

/// Identifier of the rule.
pub const ID: &str = "bounded-resources";

/// Cgroup of the VM's services; containers are elsewhere.
const SERVICES_CGROUP: &str = "eci";

/// Ids that a container has, from 0 on.
pub const IDS: u32 = 65_536;

/// A resource limit of setrlimit(2).
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Name, as the OCI specification has it.
    pub name: &'static str,
    /// Why any value is harmless, or why none is.
    pub why: &'static str,
    /// Whether containers may set it.
    pub allowed: bool,
}

const fn limit(name: &'static str, allowed: bool, why: &'static str) -> Limit {
    Limit { name, why, allowed }
}

/// The limits that containers may set; one that is not here is refused.
pub const LIMITS: &[Limit] = &[
    limit("RLIMIT_AS", true, "address space is not memory"),
    limit("RLIMIT_CORE", true, "the kernel writes no core files"),
    limit("RLIMIT_CPU", true, "ends the process sooner"),
    limit("RLIMIT_DATA", true, "address space is not memory"),
    limit("RLIMIT_FSIZE", true, "bounds one file"),
    limit("RLIMIT_LOCKS", true, "no longer used by the kernel"),
    limit("RLIMIT_MEMLOCK", true, "locked memory counts towards the container's memory limit"),
    limit("RLIMIT_MSGQUEUE", true, "one count for all containers, which no limit of one raises"),
    limit("RLIMIT_NICE", false, "a container before all others starves the engine"),
    limit("RLIMIT_NOFILE", true, "the kernel's own bound holds above it"),
    limit(
        "RLIMIT_NPROC",
        true,
        "counted by user, and users are the container's own; `--pids-limit` bounds all of them",
    ),
    limit("RLIMIT_RSS", true, "no longer used by the kernel"),
    limit("RLIMIT_RTPRIO", false, "a real-time thread is preempted by nobody"),
    limit("RLIMIT_RTTIME", true, "ends the process sooner"),
    limit("RLIMIT_SIGPENDING", true, "one count for all containers, which no limit of one raises"),
    limit("RLIMIT_STACK", true, "address space is not memory"),
];

/// Judges the resource limit `name`.
#[must_use]
pub fn judge_limit(name: &str) -> Verdict {
    if LIMITS.iter().any(|limit| limit.allowed && limit.name == name) {
        return Verdict::Allow;
    }
    let short = name.strip_prefix("RLIMIT_").unwrap_or(name).to_lowercase();
    Verdict::Deny {
        rule: ID,
        message: format!(
            "{PREFIX}: containers can't set the limit {short} (because it is about the machine's scheduler)"
        ),
        remedy: "leave out the `--ulimit`, or give the container a share with `--cpu-shares`",
    }
}

/// Judges `oom_score_adj`, -1000 (never killed) to 1000 (killed first).
#[must_use]
pub fn judge_oom_score(score: i64) -> Verdict {
    if (0..=1000).contains(&score) {
        return Verdict::Allow;
    }
    Verdict::Deny {
        rule: ID,
        message: format!(
            "{PREFIX}: containers can't have the OOM score {score} (because the kernel would end the engine or other \
             containers in their place)"
        ),
        remedy: "use a score from 0 to 1000, or reserve memory with `--memory-reservation`",
    }
}

/// Judges a user or group (`kind`) that a process is to run as.
#[must_use]
pub fn judge_owner(kind: &str, id: u64) -> Verdict {
    if id < u64::from(IDS) {
        return Verdict::Allow;
    }
    Verdict::Deny {
        rule: ID,
        message: format!(
            "{PREFIX}: containers can't run as {kind} {id} (because their ids end at {})",
            IDS - 1
        ),
        remedy: "choose a lower id, with `--user` or in the image",
    }
}

/// Judges a cgroup path: absolute from the root of the tree, not in the services' branch, and below no folder that is named as another
/// container: who a process belongs to is read from its path.
#[must_use]
pub fn judge_cgroup(path: &str) -> Verdict {
    let mut parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    let climbs = path.split('/').any(|part| part == "..");
    let is_id = |part: &&str| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let nested = parts.clone().filter(is_id).count() > 1;
    let ours = parts.next().is_none_or(|first| first == SERVICES_CGROUP);
    if path.starts_with('/') && !climbs && !nested && !ours {
        return Verdict::Allow;
    }
    Verdict::Deny {
        rule: ID,
        message: format!("{PREFIX}: containers can't be in the cgroup {path} (because it belongs to the VM)"),
        remedy: "choose another `--cgroup-parent`, such as `/jobs`",
    }
}

/// Refuses a field of the bundle that no rule is about.
#[must_use]
pub fn deny_field(field: &str) -> Verdict {
    Verdict::Deny {
        rule: ID,
        message: format!(
            "{PREFIX}: containers can't have the setting \"{field}\" (because it is not known to be safe)"
        ),
        remedy: "leave the option out",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_the_containers_own_pass_and_the_schedulers_do_not() {
        for name in ["RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_MEMLOCK"] {
            assert_eq!(judge_limit(name), Verdict::Allow, "{name}");
        }
        for name in ["RLIMIT_RTPRIO", "RLIMIT_NICE", "RLIMIT_NEW", "nofile", ""] {
            assert_eq!(judge_limit(name).denied_by(), Some(ID), "{name}");
        }
        assert!(LIMITS.iter().all(|limit| !limit.why.is_empty()));
    }

    #[test]
    fn a_score_below_zero_is_refused() {
        assert_eq!(judge_oom_score(0), Verdict::Allow);
        assert_eq!(judge_oom_score(1000), Verdict::Allow);
        for score in [-1, -1000, 1001] {
            assert_eq!(judge_oom_score(score).denied_by(), Some(ID), "{score}");
        }
    }

    #[test]
    fn a_process_runs_as_one_of_the_containers_ids() {
        assert_eq!(judge_owner("user", 65_535), Verdict::Allow);
        let Verdict::Deny { message, .. } = judge_owner("user", 65_536) else { panic!("allowed") };
        assert!(message.contains("user 65536") && message.ends_with("end at 65535)"), "{message}");
    }

    #[test]
    fn a_cgroup_is_anywhere_but_in_the_services_branch() {
        for path in ["/docker/abc", "/jobs/abc", "/eci2/abc", "/docker/eci/abc"] {
            assert_eq!(judge_cgroup(path), Verdict::Allow, "{path}");
        }
        for path in
            ["/eci/abc", "//eci/abc", "/./eci/engine/abc", "/docker/../eci/abc", "docker/abc", "/", ""]
        {
            assert_eq!(judge_cgroup(path).denied_by(), Some(ID), "{path}");
        }
        // A container's own name is its id; a folder above it that has one would speak for another.
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(judge_cgroup(&format!("/docker/{id}")), Verdict::Allow);
        assert_eq!(judge_cgroup(&format!("/{id}/{id}")).denied_by(), Some(ID));
        assert_eq!(judge_cgroup(&format!("/jobs/{id}/x/{}", id.to_uppercase())).denied_by(), Some(ID));
    }
}
