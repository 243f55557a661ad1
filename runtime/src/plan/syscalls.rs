//! The seccomp profile: the one that came with the bundle, less what no container may do; ours when none came.
//!
//! Rules of the profile are merged, not stacked: crun installs one filter and knows every architecture that a process
//! could switch to, the 32-bit twins included.
//!
//! A filter compares whole registers, and socket(2) looks at the lower half of its first: 40 with a bit set above is
//! `AF_VSOCK` too. So the family is compared under a mask, never as a whole.

use eci_policy::Verdict;
use eci_policy::rules::syscall::{REFUSED, REFUSED_SOCKET_FAMILY, deny_listener, is_refused};
use serde_json::{Value, json};

use crate::bundle::{Error, Spec, array, linux, text};

/// errno of a refused call.
const EPERM: u32 = 1;
/// Bound of socket families: the kernel has 46, and a power of two lets bits tell them apart.
const FAMILIES: u64 = 64;

/// errno of socket(2) for a family that is not there.
const EAFNOSUPPORT: u32 = 97;

/// Architectures whose calls the filter knows, the machine's own first. A call of any other kills the caller.
const ARCHITECTURES: &[&str] = if cfg!(target_arch = "aarch64") {
    &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
} else {
    &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
};

/// An ABI that is on Docker's list and that the kernel is built without (`CONFIG_X86_X32_ABI`). A filter for it is a third of the
/// whole, and the kernel's work on a filter grows with the square of its length (`net.core.bpf_jit_harden`). libseccomp has
/// its calls, which are the native ones with a bit set, killed when it is not listed.
const WITHOUT: &str = "SCMP_ARCH_X32";

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
        json!({"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": EAFNOSUPPORT, "args": [masked(u64::from(u32::MAX), REFUSED_SOCKET_FAMILY)]}),
    ]
}

/// Compares the bits of the first argument that are in `mask`.
fn masked(mask: u64, value: u64) -> Value {
    json!({"index": 0, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"})
}

/// Comparisons of the first argument that every other family passes at least one of, and the refused one none: each
/// asks for one bit to differ.
fn other_families() -> impl Iterator<Item = Value> {
    (0..FAMILIES.ilog2()).map(|bit| 1 << bit).map(|bit| masked(bit, !REFUSED_SOCKET_FAMILY & bit))
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
    let architectures = array(Some(profile), "architectures")?.iter();
    let architectures: Vec<_> = architectures.filter(|name| *name != WITHOUT).cloned().collect();
    let list = if architectures.is_empty() { json!(ARCHITECTURES) } else { Value::Array(architectures) };
    confined.insert("architectures".to_owned(), list);
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
        for arguments in alternatives(arguments).into_iter().flat_map(without_family) {
            rules.push(with(rule, sockets.clone(), arguments)?);
        }
    }
    Ok(rules)
}

/// The lists of comparisons of which one has to hold. crun takes all comparisons together unless two are about the
/// same argument: then each stands alone.
fn alternatives(arguments: &[Value]) -> Vec<&[Value]> {
    let mut indices: Vec<_> = arguments.iter().map(index).collect();
    indices.sort_unstable();
    indices.dedup();
    if indices.len() == arguments.len() { vec![arguments] } else { arguments.chunks(1).collect() }
}

/// The same comparisons without sockets of the refused family, as lists of which one has to hold; no list when that
/// cannot be said, or when the refused family is all that they let through.
fn without_family(arguments: &[Value]) -> Vec<Vec<Value>> {
    if arguments.iter().any(|argument| index(argument).is_none()) {
        return Vec::new();
    }
    let (first, others): (Vec<_>, Vec<_>) =
        arguments.iter().cloned().partition(|argument| index(argument) == Some(0));
    let narrow = || other_families().map(|family| others.iter().cloned().chain([family]).collect()).collect();
    let exactly = |least: u64| {
        let families = (least..FAMILIES).filter(|family| *family != REFUSED_SOCKET_FAMILY);
        let equal = families.map(|family| json!({"index": 0, "value": family, "op": "SCMP_CMP_EQ"}));
        equal.map(|family| others.iter().cloned().chain([family]).collect()).collect()
    };
    let Some(first) = first.first() else { return narrow() };
    let value = first.get("value").and_then(Value::as_u64);
    match (text(first, "op"), value) {
        (Some("SCMP_CMP_EQ"), Some(value)) if value & u64::from(u32::MAX) != REFUSED_SOCKET_FAMILY => {
            vec![arguments.to_vec()]
        }
        // A register below the refused family has no bits above the lower half.
        (Some("SCMP_CMP_LT"), Some(value)) if value <= REFUSED_SOCKET_FAMILY => vec![arguments.to_vec()],
        (Some("SCMP_CMP_LE"), Some(value)) if value < REFUSED_SOCKET_FAMILY => vec![arguments.to_vec()],
        // One above may have: the families are named instead, as Docker's profile has it since it refuses two.
        (Some("SCMP_CMP_GT"), Some(value)) => exactly(value.saturating_add(1)),
        (Some("SCMP_CMP_GE"), Some(value)) => exactly(value),
        // One comparison per argument is all that a rule can have: the masked ones say this one as well.
        (Some("SCMP_CMP_NE"), Some(REFUSED_SOCKET_FAMILY)) => narrow(),
        _ => Vec::new(),
    }
}

/// Which argument is compared; `None` when that is no number of an argument. crun reads a missing one as 0.
fn index(argument: &Value) -> Option<u64> {
    argument.get("index").map_or(Some(0), Value::as_u64).filter(|index| *index < 6)
}

fn with(rule: &Value, names: Vec<Value>, arguments: Vec<Value>) -> Result<Value, Error> {
    let mut rule = rule.as_object().ok_or(Error::Field { field: "syscalls" })?.clone();
    rule.insert("names".to_owned(), Value::Array(names));
    rule.insert("args".to_owned(), Value::Array(arguments));
    Ok(Value::Object(rule))
}

/// Whether the calls of an action happen. An action that is not known is taken for one that lets them through.
pub(super) fn lets_through(action: &str) -> bool {
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
            assert_eq!(profile["syscalls"][1]["args"][0]["valueTwo"], 40);
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
    fn an_abi_that_the_kernel_does_not_have_is_in_no_filter() {
        let architectures = |given: Value| {
            planned(&json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": given}))["architectures"]
                .clone()
        };
        let given = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
        assert_eq!(architectures(given), json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]));
        assert_eq!(architectures(json!(["SCMP_ARCH_X32"])), json!(ARCHITECTURES));
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

    /// The comparisons of each rule that lets socket(2) through.
    fn sockets(arguments: &Value) -> Vec<Value> {
        planned(&json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["socket", "bind"], "action": "SCMP_ACT_ALLOW", "args": arguments}]}))["syscalls"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|rule| rule["names"] == json!(["socket"]))
            .map(|rule| rule["args"].clone())
            .collect()
    }

    fn compare(index: u64, op: &str, value: u64) -> Value {
        json!({"index": index, "value": value, "op": op})
    }

    #[test]
    fn sockets_pass_but_for_the_one_family() {
        let others: Vec<_> = other_families().map(|family| json!([family])).collect();
        assert_eq!(sockets(&json!([])), others);
        assert_eq!(sockets(&json!([compare(0, "SCMP_CMP_NE", 40)])), others);
        let inet = json!([compare(0, "SCMP_CMP_EQ", 2)]);
        assert_eq!(sockets(&inet), [inet]);
        for (op, value) in [("SCMP_CMP_EQ", 40), ("SCMP_CMP_NE", 39), ("SCMP_CMP_NEW", 2)] {
            assert!(sockets(&json!([compare(0, op, value)])).is_empty(), "{op} {value}");
        }
    }

    #[test]
    fn a_profile_that_refuses_two_families_keeps_the_others() {
        // Docker's since CVE-2026-31431: below 38, 39, and above 40.
        let below = json!([compare(0, "SCMP_CMP_LT", 38)]);
        assert_eq!(sockets(&below), [below]);
        let above: Vec<_> = (41..64).map(|family| json!([compare(0, "SCMP_CMP_EQ", family)])).collect();
        assert_eq!(sockets(&json!([compare(0, "SCMP_CMP_GT", 40)])), above);
        assert_eq!(sockets(&json!([compare(0, "SCMP_CMP_GE", 40)])), above);
        assert!(sockets(&json!([compare(0, "SCMP_CMP_LE", 40)])).is_empty());
        assert!(sockets(&json!([compare(0, "SCMP_CMP_LT", 41)])).is_empty());
        assert!(sockets(&json!([compare(0, "SCMP_CMP_GT", u64::MAX)])).is_empty());
    }

    #[test]
    fn bits_above_the_family_do_not_hide_it() {
        assert!(sockets(&json!([compare(0, "SCMP_CMP_EQ", (1 << 32) | 40)])).is_empty());
        assert!(sockets(&json!([{"index": 0, "value": -4_294_967_256_i64, "op": "SCMP_CMP_EQ"}])).is_empty());
        let passes = |register: u64| {
            other_families().any(|family| {
                register & family["value"].as_u64().unwrap() == family["valueTwo"].as_u64().unwrap()
            })
        };
        assert!((0..64).filter(|family| *family != 40).all(passes));
        assert!(!passes(40) && !passes((1 << 32) | 40));
    }

    #[test]
    fn comparisons_that_crun_takes_as_alternatives_are_each_narrowed() {
        let types = [compare(1, "SCMP_CMP_EQ", 1), compare(1, "SCMP_CMP_EQ", 2)];
        let rules = sockets(&json!(types));
        assert_eq!(rules.len(), 12);
        assert!(rules.iter().all(|rule| rule.as_array().unwrap().len() == 2));
        let inet = compare(0, "SCMP_CMP_EQ", 2);
        assert_eq!(sockets(&json!([inet, compare(0, "SCMP_CMP_EQ", 40)])), [json!([inet])]);
        // Without an index it is the first argument, and a seventh argument is none.
        assert!(sockets(&json!([{"value": 39, "op": "SCMP_CMP_NE"}])).is_empty());
        assert!(sockets(&json!([compare(6, "SCMP_CMP_EQ", 1)])).is_empty());
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
