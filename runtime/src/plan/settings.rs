//! The rest of a bundle: limits, scores, cgroup, and a list of the fields that are known. One that is not is refused,
//! so that a newer engine cannot ask crun for something that no rule has judged.

use eci_policy::Verdict;
use eci_policy::rules::resource::{deny_field, judge_cgroup, judge_limit, judge_oom_score, judge_owner};
use serde_json::Value;

use crate::bundle::{Error, Spec, array, text};

/// An object of the OCI runtime specification (1.2) and the fields that it may have.
struct Known {
    /// Names from the root of the bundle.
    object: &'static [&'static str],
    fields: &'static [&'static str],
}

/// What is not here and why: `linux.intelRdt` and `linux.personality`, `process.scheduler`, `ioPriority` and
/// `execCPUAffinity` (the scheduler's, and nothing of Docker's sets them); `linux.resources.unified` (writes any file of
/// a cgroup); `linux.timeOffsets` (ours are made before crun starts); `linux.mountLabel` and `process.selinuxLabel` only when they are empty (there is no SELinux).
const KNOWN: &[Known] = &[
    Known {
        object: &[],
        fields: &[
            "ociVersion",
            "process",
            "root",
            "hostname",
            "domainname",
            "mounts",
            "hooks",
            "annotations",
            "linux",
        ],
    },
    Known {
        object: &["process"],
        fields: &[
            "terminal",
            "consoleSize",
            "user",
            "args",
            "env",
            "cwd",
            "capabilities",
            "rlimits",
            "noNewPrivileges",
            "apparmorProfile",
            "oomScoreAdj",
        ],
    },
    Known {
        object: &["linux"],
        fields: &[
            "uidMappings",
            "gidMappings",
            "sysctl",
            "resources",
            "cgroupsPath",
            "namespaces",
            "devices",
            "seccomp",
            "rootfsPropagation",
            "maskedPaths",
            "readonlyPaths",
        ],
    },
    Known {
        object: &["linux", "resources"],
        fields: &["devices", "memory", "cpu", "pids", "blockIO", "hugepageLimits", "network", "rdma"],
    },
];

/// Judges the fields of `spec`, its process, its limits and its cgroup.
///
/// # Errors
/// A field has another type than the specification says.
pub fn judge(spec: &Spec) -> Result<Verdict, Error> {
    for known in KNOWN {
        let Some(object) = object(spec, known.object)? else { continue };
        if let Some(field) =
            object.iter().find(|(name, value)| !known.fields.contains(&name.as_str()) && !is_empty(value))
        {
            let path: Vec<&str> = known.object.iter().copied().chain([field.0.as_str()]).collect();
            return Ok(deny_field(&path.join(".")));
        }
    }
    if let Some(path) = spec.get("linux").and_then(|linux| text(linux, "cgroupsPath")) {
        let verdict = judge_cgroup(path);
        if verdict != Verdict::Allow {
            return Ok(verdict);
        }
    }
    spec.get("process").map_or(Ok(Verdict::Allow), judge_process)
}

/// Judges owner, limits and score of a process: the container's first, or one of `exec`.
///
/// # Errors
/// A field has another type than the specification says.
pub fn judge_process(process: &Value) -> Result<Verdict, Error> {
    for limit in array(Some(process), "rlimits")? {
        let verdict = judge_limit(text(limit, "type").unwrap_or_default());
        if verdict != Verdict::Allow {
            return Ok(verdict);
        }
    }
    let user = process.get("user");
    let groups = array(user, "additionalGids")?.iter().map(|group| ("group", Some(group)));
    let ids =
        [("user", user.and_then(|user| user.get("uid"))), ("group", user.and_then(|user| user.get("gid")))];
    for (kind, id) in ids.into_iter().chain(groups) {
        // What is no id is crun's to refuse.
        let verdict = id.and_then(Value::as_u64).map_or(Verdict::Allow, |id| judge_owner(kind, id));
        if verdict != Verdict::Allow {
            return Ok(verdict);
        }
    }
    match process.get("oomScoreAdj") {
        None | Some(Value::Null) => Ok(Verdict::Allow),
        Some(score) => Ok(judge_oom_score(score.as_i64().ok_or(Error::Field { field: "oomScoreAdj" })?)),
    }
}

/// The object at `path`, `None` when it is absent.
fn object<'a>(spec: &'a Spec, path: &[&'static str]) -> Result<Option<&'a Spec>, Error> {
    let mut found = spec;
    for name in path {
        found = match found.get(*name) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value.as_object().ok_or(Error::Field { field: name })?,
        };
    }
    Ok(Some(found))
}

/// Go's way to leave a field out that its type cannot.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn verdict(spec: &Value) -> Verdict {
        judge(spec.as_object().unwrap()).unwrap()
    }

    #[test]
    fn what_dockerd_sends_passes() {
        assert_eq!(
            verdict(&json!({"ociVersion": "1.1.0", "process": {"args": ["sh"], "oomScoreAdj": 0,
                "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1, "soft": 1}], "selinuxLabel": ""},
                "linux": {"cgroupsPath": "/docker/abc", "mountLabel": "", "resources": {"pids": {"limit": 3}}}})),
            Verdict::Allow
        );
    }

    #[test]
    fn a_field_that_no_rule_is_about_is_refused_by_its_path() {
        for (spec, path) in [
            (json!({"vm": {"x": 1}}), "vm"),
            (json!({"process": {"scheduler": {"policy": "SCHED_FIFO"}}}), "process.scheduler"),
            (json!({"linux": {"intelRdt": {"closID": "x"}}}), "linux.intelRdt"),
            (json!({"linux": {"resources": {"unified": {"cgroup.procs": "1"}}}}), "linux.resources.unified"),
            (json!({"process": {"selinuxLabel": "x"}}), "process.selinuxLabel"),
        ] {
            let Verdict::Deny { message, .. } = verdict(&spec) else { panic!("{spec} is allowed") };
            assert!(message.contains(&format!("\"{path}\"")), "{message}");
        }
    }

    #[test]
    fn limits_scores_and_cgroups_are_judged_wherever_they_stand() {
        for spec in [
            json!({"process": {"rlimits": [{"type": "RLIMIT_NOFILE"}, {"type": "RLIMIT_RTPRIO"}]}}),
            json!({"process": {"oomScoreAdj": -1}}),
            json!({"process": {"user": {"uid": 65_536, "gid": 0}}}),
            json!({"process": {"user": {"uid": 0, "gid": 65_536}}}),
            json!({"process": {"user": {"uid": 0, "gid": 0, "additionalGids": [1, 65_536]}}}),
            json!({"linux": {"cgroupsPath": "/eci/engine/abc"}}),
        ] {
            assert!(verdict(&spec).denied_by().is_some(), "{spec}");
        }
        assert!(judge(json!({"process": {"oomScoreAdj": "x"}}).as_object().unwrap()).is_err());
        assert!(judge(json!({"linux": []}).as_object().unwrap()).is_err());
    }
}
