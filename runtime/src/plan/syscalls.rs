//! The seccomp profile: the one that came with the bundle, less what no container may do; ours when none came.
//!
//! Rules of the profile are merged, not stacked: crun installs one filter and knows every architecture that a process
//! could switch to, the 32-bit twins included.

use eci_policy::Verdict;
use eci_policy::rules::syscall::{REFUSED, REFUSED_SOCKET_FAMILY, deny_listener, is_refused};
use serde_json::{Value, json};

use crate::bundle::{Error, Spec, array, linux, text};

/// errno of a refused call.
const EPERM: u32 = 1;
/// errno of socket(2) for a family that is not there.
const EAFNOSUPPORT: u32 = 97;

/// Architectures whose calls the filter knows, the machine's own first. A call of any other kills the caller.
const ARCHITECTURES: &[&str] = if cfg!(target_arch = "aarch64") {
    &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
} else {
    &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
};

/// Takes the refused calls out of the profile of `spec`, and gives it one when it has none.
///
/// # Errors
/// The profile is not of the specification's form. The verdict is a refusal when it has a listener.
pub fn confine(spec: &mut Spec) -> Result<Verdict, Error> {
    let linux = linux(spec)?;
    let profile = match linux.get("seccomp") {
        None | Some(Value::Null) => ours(),
        Some(profile) => {
            if has_listener(profile)? {
                return Ok(deny_listener());
            }
            confined(profile)?
        }
    };
    linux.insert("seccomp".to_owned(), profile);
    Ok(Verdict::Allow)
}

/// Allows all but the refused calls.
fn ours() -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ARCHITECTURES, "syscalls": refusals()})
}

fn refusals() -> Vec<Value> {
    let names: Vec<&str> = REFUSED.iter().map(|refused| refused.name).collect();
    vec![
        json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM}),
        json!({"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": EAFNOSUPPORT, "args": [family("SCMP_CMP_EQ")]}),
    ]
}

fn family(comparison: &str) -> Value {
    json!({"index": 0, "value": REFUSED_SOCKET_FAMILY, "op": comparison})
}

fn confined(profile: &Value) -> Result<Value, Error> {
    let mut confined = profile.as_object().ok_or(Error::Field { field: "seccomp" })?.clone();
    let mut rules = Vec::new();
    for rule in array(Some(profile), "syscalls")? {
        if !lets_through(text(rule, "action").unwrap_or_default()) {
            rules.push(rule.clone());
            continue;
        }
        rules.extend(narrowed(rule)?);
    }
    if lets_through(text(profile, "defaultAction").unwrap_or_default()) {
        rules.extend(refusals());
    }
    confined.insert("syscalls".to_owned(), Value::Array(rules));
    // Without a list crun filters the machine's own calls only, and the 32-bit twins would be killed or, worse, free.
    if array(Some(profile), "architectures")?.is_empty() {
        confined.insert("architectures".to_owned(), json!(ARCHITECTURES));
    }
    Ok(Value::Object(confined))
}

/// A rule that lets calls through, without the refused ones and without sockets of the refused family.
fn narrowed(rule: &Value) -> Result<Vec<Value>, Error> {
    let names = array(Some(rule), "names")?.iter();
    let (sockets, others): (Vec<_>, Vec<_>) = names
        .filter(|name| !name.as_str().is_none_or(is_refused))
        .cloned()
        .partition(|name| name == "socket");
    let arguments = array(Some(rule), "args")?;
    let mut rules = Vec::new();
    if !others.is_empty() {
        rules.push(with(rule, others, arguments.to_vec())?);
    }
    if !sockets.is_empty() {
        let first = arguments.iter().filter(|argument| argument.get("index") == Some(&json!(0)));
        match first.map(is_clear_of_family).reduce(|one, other| one && other) {
            // One comparison per argument is all that a filter can have.
            Some(true) => rules.push(with(rule, sockets, arguments.to_vec())?),
            Some(false) => {}
            None => {
                let all = arguments.iter().cloned().chain([family("SCMP_CMP_NE")]).collect();
                rules.push(with(rule, sockets, all)?);
            }
        }
    }
    Ok(rules)
}

/// Whether a comparison of the first argument of socket(2) leaves the refused family out.
fn is_clear_of_family(argument: &Value) -> bool {
    let is_family = argument.get("value").and_then(Value::as_u64) == Some(REFUSED_SOCKET_FAMILY);
    match text(argument, "op") {
        Some("SCMP_CMP_EQ") => !is_family,
        Some("SCMP_CMP_NE") => is_family,
        _ => false,
    }
}

fn with(rule: &Value, names: Vec<Value>, arguments: Vec<Value>) -> Result<Value, Error> {
    let mut rule = rule.as_object().ok_or(Error::Field { field: "syscalls" })?.clone();
    rule.insert("names".to_owned(), Value::Array(names));
    rule.insert("args".to_owned(), Value::Array(arguments));
    Ok(Value::Object(rule))
}

/// Whether the calls of an action happen. An action that is not known is taken for one that lets them through.
fn lets_through(action: &str) -> bool {
    const STOPPING: &[&str] = &[
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_TRAP",
        "SCMP_ACT_ERRNO",
    ];
    !STOPPING.contains(&action)
}

fn has_listener(profile: &Value) -> Result<bool, Error> {
    let notifies = |value: &Value, field| text(value, field) == Some("SCMP_ACT_NOTIFY");
    Ok(text(profile, "listenerPath").is_some_and(|path| !path.is_empty())
        || notifies(profile, "defaultAction")
        || array(Some(profile), "syscalls")?.iter().any(|rule| notifies(rule, "action")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(profile: &Value) -> Value {
        let mut spec = json!({"linux": {"seccomp": profile}}).as_object().unwrap().clone();
        assert_eq!(confine(&mut spec).unwrap(), Verdict::Allow);
        spec["linux"]["seccomp"].clone()
    }

    #[test]
    fn a_container_without_a_profile_gets_ours() {
        for absent in [json!({"linux": {}}), json!({"linux": {"seccomp": null}})] {
            let mut spec = absent.as_object().unwrap().clone();
            confine(&mut spec).unwrap();
            let profile = &spec["linux"]["seccomp"];
            assert_eq!(profile["defaultAction"], "SCMP_ACT_ALLOW");
            assert!(profile["syscalls"][0]["names"].as_array().unwrap().contains(&json!("perf_event_open")));
            assert_eq!(profile["syscalls"][1]["args"][0]["value"], 40);
            assert_eq!(profile["architectures"].as_array().unwrap().len(), ARCHITECTURES.len());
        }
    }

    #[test]
    fn a_profile_loses_the_refused_calls_and_keeps_the_others() {
        let profile = planned(&json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["bpf", "read"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["kexec_load"], "action": "SCMP_ACT_LOG"},
            {"names": ["bpf"], "action": "SCMP_ACT_KILL"},
        ]}));
        assert_eq!(
            profile["syscalls"],
            json!([
                {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": []},
                {"names": ["bpf"], "action": "SCMP_ACT_KILL"},
            ])
        );
    }

    #[test]
    fn a_profile_that_allows_by_default_gets_the_refusals() {
        let profile =
            planned(&json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"]}));
        assert_eq!(profile["syscalls"].as_array().unwrap().len(), 2);
        assert_eq!(profile["architectures"], json!(["SCMP_ARCH_X86_64"]));
        assert_eq!(
            planned(&json!({"defaultAction": "SCMP_ACT_NEW"}))["syscalls"].as_array().unwrap().len(),
            2
        );
    }

    #[test]
    fn sockets_pass_but_for_the_one_family() {
        let sockets = |arguments: Value| {
            planned(&json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                {"names": ["socket", "bind"], "action": "SCMP_ACT_ALLOW", "args": arguments}]}))["syscalls"]
                .as_array()
                .unwrap()
                .iter()
                .find(|rule| rule["names"] == json!(["socket"]))
                .map(|rule| rule["args"].clone())
        };
        let compare = |op: &str, value: u64| json!([{"index": 0, "value": value, "op": op}]);
        assert_eq!(sockets(json!([])), Some(compare("SCMP_CMP_NE", 40)));
        assert_eq!(sockets(compare("SCMP_CMP_NE", 40)), Some(compare("SCMP_CMP_NE", 40)));
        assert_eq!(sockets(compare("SCMP_CMP_EQ", 2)), Some(compare("SCMP_CMP_EQ", 2)));
        assert_eq!(sockets(compare("SCMP_CMP_EQ", 40)), None);
        assert_eq!(sockets(compare("SCMP_CMP_NE", 39)), None);
        assert_eq!(sockets(compare("SCMP_CMP_GT", 39)), None);
    }

    #[test]
    fn a_listener_is_refused_in_whatever_way_it_comes() {
        for profile in [
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x.sock"}),
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}),
        ] {
            let mut spec = json!({"linux": {"seccomp": profile}}).as_object().unwrap().clone();
            assert!(confine(&mut spec).unwrap().denied_by().is_some());
        }
    }
}
