//! An interpreter of seccomp profiles that answers for crun, libseccomp and the kernel together: is this call made?
//!
//! crun 1.21 (`libcrun_generate_seccomp`): a rule counts for each of its names; its comparisons hold together, unless
//! two are about the same argument, then each is a rule of its own. libseccomp compares whole 64-bit registers. Where
//! they refuse a profile altogether, or two rules speak about one call, the answer here is the worse one: it is made.

use serde_json::Value;

/// The registers of a call's arguments, 64 bits each, whatever the kernel then takes of them.
pub type Registers = [u64; 6];

/// Actions that keep a call from being made.
const STOPPING: &[&str] =
    &["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP", "SCMP_ACT_ERRNO"];

/// Whether call `name` with these registers is made under `profile`.
#[must_use]
pub fn is_made(profile: &Value, name: &str, registers: Registers) -> bool {
    let mut speaks = false;
    for rule in rows(profile, "syscalls") {
        if has_name(rule, name) && holds(rows(rule, "args"), registers) {
            if !stops(rule.get("action")) {
                return true;
            }
            speaks = true;
        }
    }
    !speaks && !stops(profile.get("defaultAction"))
}

/// Whether a process of the VM is asked about call `name` with these registers under `profile`.
#[must_use]
pub fn is_asked(profile: &Value, name: &str, registers: Registers) -> bool {
    rows(profile, "syscalls").iter().any(|rule| {
        rule.get("action").is_some_and(|action| action == "SCMP_ACT_NOTIFY")
            && has_name(rule, name)
            && holds(rows(rule, "args"), registers)
    })
}

/// Whether a rule of `profile` is about call `name`.
#[must_use]
pub fn is_named(profile: &Value, name: &str) -> bool {
    rows(profile, "syscalls").iter().any(|rule| has_name(rule, name))
}

/// Whether a process of the VM is asked about calls.
#[must_use]
pub fn has_listener(profile: &Value) -> bool {
    let asks = |value: &Value| value == "SCMP_ACT_NOTIFY";
    profile.get("listenerPath").and_then(Value::as_str).is_some_and(|path| !path.is_empty())
        || profile.get("defaultAction").is_some_and(asks)
        || rows(profile, "syscalls").iter().any(|rule| rule.get("action").is_some_and(asks))
}

/// The numbers that `profile` compares registers with: near them answers change.
#[must_use]
pub fn numbers(profile: &Value) -> Vec<u64> {
    let arguments = rows(profile, "syscalls").iter().flat_map(|rule| rows(rule, "args"));
    arguments
        .flat_map(|argument| [number(argument, "value"), number(argument, "valueTwo")])
        .flatten()
        .collect()
}

fn has_name(rule: &Value, name: &str) -> bool {
    rows(rule, "names").iter().any(|found| found == name)
}

fn stops(action: Option<&Value>) -> bool {
    action.and_then(Value::as_str).is_some_and(|action| STOPPING.contains(&action))
}

fn holds(arguments: &[Value], registers: Registers) -> bool {
    let index = |argument: &Value| argument.get("index").map_or(Some(0), Value::as_u64);
    let repeats = arguments
        .iter()
        .enumerate()
        .any(|(at, argument)| arguments.iter().skip(at + 1).any(|other| index(other) == index(argument)));
    let mut each = arguments.iter().map(|argument| {
        let register = index(argument).and_then(|index| usize::try_from(index).ok());
        register.and_then(|index| registers.get(index)).is_none_or(|register| compares(argument, *register))
    });
    if repeats { each.any(|holds| holds) } else { each.all(|holds| holds) }
}

fn compares(argument: &Value, register: u64) -> bool {
    let Some(value) = number(argument, "value") else { return true };
    match argument.get("op").and_then(Value::as_str).unwrap_or_default() {
        "SCMP_CMP_NE" => register != value,
        "SCMP_CMP_LT" => register < value,
        "SCMP_CMP_LE" => register <= value,
        "SCMP_CMP_EQ" => register == value,
        "SCMP_CMP_GE" => register >= value,
        "SCMP_CMP_GT" => register > value,
        "SCMP_CMP_MASKED_EQ" => number(argument, "valueTwo").is_none_or(|second| register & value == second),
        _ => true,
    }
}

/// A number as crun's parser reads it: absent is 0, and strtoull(3) takes a minus.
fn number(argument: &Value, field: &str) -> Option<u64> {
    match argument.get(field) {
        None | Some(Value::Null) => Some(0),
        Some(value) => {
            value.as_u64().or_else(|| value.as_i64().map(|value| 0_u64.wrapping_add_signed(value)))
        }
    }
}

fn rows<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const FAMILY: u64 = 40;

    fn socket(arguments: &Value, family: u64, kind: u64) -> bool {
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": arguments}]});
        is_made(&profile, "socket", [family, kind, 0, 0, 0, 0])
    }

    #[test]
    fn comparisons_hold_together_unless_two_are_about_one_argument() {
        let family = json!({"index": 0, "value": FAMILY, "op": "SCMP_CMP_NE"});
        let kind = |kind: u64| json!({"index": 1, "value": kind, "op": "SCMP_CMP_EQ"});
        assert!(!socket(&json!([family, kind(1)]), FAMILY, 1));
        assert!(socket(&json!([family, kind(1)]), 2, 1));
        assert!(socket(&json!([family, kind(1), kind(2)]), FAMILY, 1));
    }

    #[test]
    fn whole_registers_are_compared() {
        let family = json!([{"index": 0, "value": FAMILY, "op": "SCMP_CMP_NE"}]);
        assert!(!socket(&family, FAMILY, 1));
        assert!(socket(&family, (1 << 32) | FAMILY, 1));
    }

    #[test]
    fn a_rule_that_stops_outweighs_the_default_only() {
        let rule = |action: &str| json!({"names": ["bpf"], "action": action});
        let made = |rules: Value| {
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
            is_made(&profile, "bpf", [0; 6])
        };
        assert!(made(json!([])));
        assert!(!made(json!([rule("SCMP_ACT_ERRNO")])));
        assert!(made(json!([rule("SCMP_ACT_ERRNO"), rule("SCMP_ACT_LOG")])));
    }
}
