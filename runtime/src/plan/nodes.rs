//! Making device nodes: the profile hands `mknod` of character devices to `eci-nodes`, where it would let them through.
//!
//! The kernel refuses a device node to whoever is in a user namespace, so nothing is allowed here that was not; what a
//! profile refuses stays refused. Only calls for character devices are handed over. Others, and whiteouts (character device
//! 0:0, which anybody may make), go to the kernel as before: a filter compares a call's registers with masks.
//!
//! A container without `CAP_MKNOD` has nothing handed over and the kernel's refusal.

use eci_contract::nodes::{Ground, VERSION};
use eci_contract::paths::NODES_SOCKET;
use eci_policy::rules::node::{CHARACTER, KIND};
use serde_json::{Value, json};

use super::syscalls::lets_through;
use crate::bundle::{Error, Spec, array, linux, text};

/// A system call that makes nodes, and which of its arguments is the mode. The device number is the next.
const CALLS: &[(&str, u64)] = &[("mknod", 1), ("mknodat", 2)];

/// The capability that making device nodes takes.
const CAPABILITY: &str = "CAP_MKNOD";

/// A caller waits through signals that do not end it: one that was interrupted and asked again would find its own node.
const WAIT: &str = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";
/// What crun sets when a profile names no flags.
const DEFAULT_FLAG: &str = "SECCOMP_FILTER_FLAG_SPEC_ALLOW";
/// Goes with no listener, and changes nothing in crun, which has one thread.
const THREADS: &str = "SECCOMP_FILTER_FLAG_TSYNC";

/// Hands over what the profile of `spec`, which no rule refuses, lets through. Gives whether anything is handed over.
///
/// # Errors
/// The profile or the capabilities are not of the specification's form.
pub fn hand_over(spec: &mut Spec) -> Result<bool, Error> {
    let capabilities = spec.get("process").and_then(|process| process.get("capabilities"));
    if !array(capabilities, "bounding")?.iter().any(|capability| capability == CAPABILITY) {
        return Ok(false);
    }
    let linux = linux(spec)?;
    let Some(profile) = linux.get_mut("seccomp").and_then(Value::as_object_mut) else { return Ok(false) };
    let allows_by_default = profile.get("defaultAction").and_then(Value::as_str).is_some_and(lets_through);
    let mut rules = array(Some(&Value::Object(profile.clone())), "syscalls")?.to_vec();
    let mut any = false;
    for (name, mode) in CALLS {
        if let Some(mut handed) = without(&rules, name, allows_by_default)? {
            if !allows_by_default {
                handed.extend(kept(name, *mode));
            }
            handed.push(notification(name, *mode));
            rules = handed;
            any = true;
        }
    }
    if !any {
        return Ok(false);
    }
    let flags = match profile.get("flags") {
        None | Some(Value::Null) => vec![json!(DEFAULT_FLAG)],
        Some(_) => array(Some(&Value::Object(profile.clone())), "flags")?.to_vec(),
    };
    let flags =
        flags.into_iter().filter(|flag| flag != THREADS && flag != WAIT).chain([json!(WAIT)]).collect();
    profile.insert("flags".to_owned(), Value::Array(flags));
    profile.insert("syscalls".to_owned(), Value::Array(rules));
    profile.insert("listenerPath".to_owned(), json!(NODES_SOCKET));
    Ok(true)
}

/// Says where the nodes of the container may be: on the root filesystem that has this device number.
///
/// # Errors
/// There is no profile.
pub fn set_ground(spec: &mut Spec, root_device: u64) -> Result<(), Error> {
    let ground = serde_json::to_string(&Ground { version: VERSION, root_device });
    let ground = ground.map_err(|_| Error::Field { field: "listenerMetadata" })?;
    let profile = linux(spec)?.get_mut("seccomp").and_then(Value::as_object_mut);
    let profile = profile.ok_or(Error::Field { field: "seccomp" })?;
    profile.insert("listenerMetadata".to_owned(), json!(ground));
    Ok(())
}

/// The rules without those that let `name` through whatever its arguments; `None` when it is refused, or when another rule
/// looks at its arguments: then the kernel goes on refusing device nodes.
fn without(rules: &[Value], name: &str, allows_by_default: bool) -> Result<Option<Vec<Value>>, Error> {
    let mut others = Vec::new();
    let mut found = false;
    for rule in rules {
        let names = array(Some(rule), "names")?;
        if !names.iter().any(|one| one == name) {
            others.push(rule.clone());
            continue;
        }
        found = true;
        if allows_by_default
            || text(rule, "action") != Some("SCMP_ACT_ALLOW")
            || !array(Some(rule), "args")?.is_empty()
        {
            return Ok(None);
        }
        let names: Vec<_> = names.iter().filter(|one| *one != name).cloned().collect();
        if !names.is_empty() {
            let mut rule = rule.as_object().ok_or(Error::Field { field: "syscalls" })?.clone();
            rule.insert("names".to_owned(), Value::Array(names));
            others.push(Value::Object(rule));
        }
    }
    Ok((found || allows_by_default).then_some(others))
}

/// Rules for what the kernel goes on deciding: whatever is no character device, which differs from one in at least one of
/// four bits, and whiteouts.
fn kept(name: &str, mode: u64) -> impl Iterator<Item = Value> {
    let bits = (0..4).map(|bit| u64::from(KIND) & (0o010_000 << bit));
    let others = bits.map(move |bit| vec![masked(mode, bit, !u64::from(CHARACTER) & bit)]);
    let whiteout = vec![is_character(mode), device(mode, "SCMP_CMP_EQ")];
    others
        .chain([whiteout])
        .map(move |arguments| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": arguments}))
}

/// The rule for the rest. Registers are compared whole: a device of 0 with bits above the 32 that the kernel takes is handed
/// over as well, and refused.
fn notification(name: &str, mode: u64) -> Value {
    json!({"names": [name], "action": "SCMP_ACT_NOTIFY", "args": [is_character(mode), device(mode, "SCMP_CMP_NE")]})
}

fn is_character(mode: u64) -> Value {
    masked(mode, u64::from(KIND), u64::from(CHARACTER))
}

fn device(mode: u64, operator: &str) -> Value {
    json!({"index": mode + 1, "value": 0, "op": operator})
}

fn masked(index: u64, mask: u64, value: u64) -> Value {
    json!({"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(profile: &Value, bounding: &[&str]) -> Spec {
        json!({"process": {"capabilities": {"bounding": bounding}}, "linux": {"seccomp": profile}})
            .as_object()
            .unwrap()
            .clone()
    }

    fn handed_over(profile: &Value) -> Option<Value> {
        let mut spec = spec(profile, &["CAP_CHOWN", "CAP_MKNOD"]);
        hand_over(&mut spec).unwrap().then(|| spec["linux"]["seccomp"].clone())
    }

    fn docker_like() -> Value {
        json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["read", "mknod", "mknodat"], "action": "SCMP_ACT_ALLOW", "args": []}]})
    }

    #[test]
    fn docker_s_profile_keeps_its_other_calls_and_asks_about_character_devices() {
        let profile = handed_over(&docker_like()).unwrap();
        let rules = profile["syscalls"].as_array().unwrap();
        assert_eq!(rules[0], json!({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": []}));
        let asks: Vec<_> = rules.iter().filter(|rule| rule["action"] == "SCMP_ACT_NOTIFY").collect();
        assert_eq!(asks.len(), 2);
        assert_eq!(
            asks[1],
            &json!({"names": ["mknodat"], "action": "SCMP_ACT_NOTIFY", "args": [
                {"index": 2, "value": 0o170_000, "valueTwo": 0o020_000, "op": "SCMP_CMP_MASKED_EQ"},
                {"index": 3, "value": 0, "op": "SCMP_CMP_NE"}]})
        );
        assert_eq!(profile["listenerPath"], NODES_SOCKET);
        assert_eq!(profile["flags"], json!([DEFAULT_FLAG, WAIT]));
    }

    #[test]
    fn every_kind_of_file_but_one_is_left_to_the_kernel() {
        let rules: Vec<_> = kept("mknod", 1).collect();
        for kind in 0..16_u64 {
            let mode = kind << 12 | 0o666;
            let passes =
                rules.iter().filter(|rule| rule["args"].as_array().unwrap().len() == 1).any(|rule| {
                    let argument = &rule["args"][0];
                    mode & argument["value"].as_u64().unwrap() == argument["valueTwo"].as_u64().unwrap()
                });
            assert_eq!(passes, kind != 2, "{mode:o}");
        }
    }

    #[test]
    fn a_profile_that_allows_by_default_gets_two_rules() {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [], "flags": [THREADS, "SECCOMP_FILTER_FLAG_LOG"]});
        let profile = handed_over(&profile).unwrap();
        assert_eq!(profile["syscalls"].as_array().unwrap().len(), 2);
        assert_eq!(profile["flags"], json!(["SECCOMP_FILTER_FLAG_LOG", WAIT]));
    }

    #[test]
    fn what_a_profile_refuses_or_looks_at_itself_stays_as_it_is() {
        let both = |rule: Value| json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]});
        for profile in [
            both(json!({"names": ["read"], "action": "SCMP_ACT_ALLOW"})),
            both(json!({"names": ["mknod", "mknodat"], "action": "SCMP_ACT_LOG"})),
            both(json!({"names": ["mknod", "mknodat"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 1, "value": 1, "op": "SCMP_CMP_EQ"}]})),
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["mknod", "mknodat"], "action": "SCMP_ACT_ERRNO"}]}),
        ] {
            let mut spec = spec(&profile, &[CAPABILITY]);
            assert!(!hand_over(&mut spec).unwrap());
            assert_eq!(spec["linux"]["seccomp"], profile);
        }
    }

    #[test]
    fn without_the_capability_nothing_is_handed_over() {
        let mut spec = spec(&docker_like(), &["CAP_CHOWN"]);
        assert!(!hand_over(&mut spec).unwrap());
        assert_eq!(spec["linux"]["seccomp"], docker_like());
        let mut bare = json!({"linux": {"seccomp": docker_like()}}).as_object().unwrap().clone();
        assert!(!hand_over(&mut bare).unwrap());
    }

    #[test]
    fn the_ground_travels_as_metadata() {
        let mut spec = spec(&docker_like(), &[CAPABILITY]);
        set_ground(&mut spec, 57).unwrap();
        assert_eq!(spec["linux"]["seccomp"]["listenerMetadata"], r#"{"version":1,"root_device":57}"#);
    }
}
