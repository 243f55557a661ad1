//! Seccomp profiles: whatever a profile says, a refused call is not made.

use arbitrary::{Arbitrary, Unstructured};
use eci_policy::Verdict;
use eci_policy::rules::syscall::{REFUSED, REFUSED_SOCKET_FAMILY};
use eci_runc::bundle::Spec;
use eci_runc::plan::nodes;
use eci_runc::plan::syscalls::confine;
use serde_json::{Value, json};

use crate::profile::{has_listener, is_asked, is_made, is_named, numbers};

/// Architectures without which crun would filter the machine's own calls only.
const ARCHITECTURES: usize = 2;

/// Bits above the 32 of a socket family: none, the lowest, the highest, and a negative number's.
const UPPER: [u64; 4] = [0, 1 << 32, 1 << 63, 0xffff_ffff_0000_0000];

/// Bound of the register values that are tried: a profile with more numbers than this says nothing new, and slowly.
const MAX_VALUES: usize = 24;

/// A profile in the form that finds more than bytes do.
#[derive(Arbitrary, Debug)]
struct Profile {
    default: Action,
    rules: Vec<Rule>,
    architectures: bool,
    listener: bool,
}

#[derive(Arbitrary, Debug)]
struct Rule {
    names: Vec<Name>,
    action: Action,
    comparisons: Vec<Comparison>,
}

/// Names that matter, each of the refused ones, one that is not one, and none at all.
#[derive(Arbitrary, Debug)]
enum Name {
    Socket,
    Mknod,
    Mknodat,
    Refused(u8),
    Harmless,
    Number,
}

#[derive(Arbitrary, Debug)]
enum Action {
    Allow,
    Errno,
    Kill,
    Log,
    Trace,
    Notify,
    Unknown,
    Absent,
}

#[derive(Arbitrary, Debug)]
struct Comparison {
    index: Option<u8>,
    value: Number,
    second: Option<Number>,
    operator: u8,
}

#[derive(Arbitrary, Debug)]
enum Number {
    Small(u8),
    Family,
    Wide { upper: u8 },
    Any(u64),
    Negative(i64),
    Half(u8),
}

/// Confines `input`: a profile as JSON when it is an object, otherwise made up from its bytes.
///
/// # Panics
/// A refused call is made under the profile that comes out.
pub fn check(input: &[u8]) {
    let profile = match serde_json::from_slice::<Spec>(input) {
        Ok(profile) => Value::Object(profile),
        Err(_) if input.first() == Some(&b'{') => return,
        Err(_) => {
            let Ok(profile) = Profile::arbitrary(&mut Unstructured::new(input)) else { return };
            profile.to_json()
        }
    };
    let mut spec = Spec::new();
    spec.insert("linux".to_owned(), json!({"seccomp": profile}));
    let Ok(verdict) = confine(&mut spec) else { return };
    assert!(
        verdict == Verdict::Allow || has_listener(&profile),
        "refused for another reason than a listener"
    );
    if verdict == Verdict::Allow {
        let confined = spec.get("linux").and_then(|linux| linux.get("seccomp"));
        let confined = confined.expect("a profile comes out").clone();
        assert!(!has_listener(&confined), "a listener is left");
        check_confined(&confined);
        check_unharmed(&profile, &confined);
        spec.insert("process".to_owned(), json!({"capabilities": {"bounding": ["CAP_MKNOD"]}}));
        if nodes::hand_over(&mut spec).is_ok_and(|any| any) {
            check_nodes(&confined, &spec["linux"]["seccomp"]);
        }
    }
}

/// Checks a profile that is to be crun's.
///
/// # Panics
/// It knows the machine's own calls only, or lets a refused call through.
pub fn check_confined(profile: &Value) {
    let architectures = profile.get("architectures").and_then(Value::as_array).map_or(0, Vec::len);
    assert!(architectures > 0, "the 32-bit twins are not known");
    let mut values = numbers(profile);
    values.extend([0, 1, 2, 3, REFUSED_SOCKET_FAMILY]);
    values.sort_unstable();
    values.dedup();
    values.truncate(MAX_VALUES);
    for refused in REFUSED {
        // Where no rule has the name, one answer holds for all registers.
        let answers = if is_named(profile, refused.name) { values.len() } else { 1 };
        for value in values.iter().take(answers) {
            assert!(!is_made(profile, refused.name, [*value; 6]), "{} is made with {value}", refused.name);
        }
    }
    // The first register decides; the others open what a rule closes with comparisons of their own.
    let others = values.iter().map(|value| [*value; 6]);
    let others: Vec<_> = others.chain([[0, 1, 0, 0, 0, 0], [0, 2, 1, 0, 0, 0]]).collect();
    for (upper, others) in UPPER.iter().flat_map(|upper| others.iter().map(move |others| (upper, others))) {
        let mut registers = *others;
        registers[0] = upper | REFUSED_SOCKET_FAMILY;
        assert!(!is_made(profile, "socket", registers), "a socket is made with {registers:x?}");
        if !is_named(profile, "socket") {
            break;
        }
    }
}

/// Checks a profile that asks about device nodes.
///
/// # Panics
/// It asks somebody else, or about something else.
pub fn check_handed_over(profile: &Value) {
    assert_eq!(profile["listenerPath"], "/run/eci/nodes.sock");
    assert_ne!(profile["defaultAction"], "SCMP_ACT_NOTIFY");
    for rule in profile["syscalls"].as_array().map_or(&[][..], Vec::as_slice) {
        let is_making = rule["names"] == json!(["mknod"]) || rule["names"] == json!(["mknodat"]);
        assert!(rule["action"] != "SCMP_ACT_NOTIFY" || is_making, "{rule} is asked about");
    }
}

/// Checks that handing device nodes over changed nothing else: a node of any kind is made under `handed` if it was under
/// `confined`, and those that are asked about are character devices with a number.
fn check_nodes(confined: &Value, handed: &Value) {
    check_handed_over(handed);
    for (name, mode_at) in [("mknod", 1), ("mknodat", 2)] {
        for mode in (0..16).map(|kind| kind << 12 | 0o644) {
            for device in [0, 0x101, 0x103, 1 << 32, u64::MAX] {
                let mut registers = [7; 6];
                registers[mode_at] = mode;
                registers[mode_at + 1] = device;
                let made = is_made(confined, name, registers);
                assert_eq!(made, is_made(handed, name, registers), "{name} {mode:o} {device:x} is changed");
                let is_device = mode & 0o170_000 == 0o020_000 && device != 0;
                assert!(
                    !is_asked(handed, name, registers) || is_device,
                    "{name} {mode:o} {device:x} is asked"
                );
            }
        }
    }
}

/// Checks that a harmless call is made under `confined` when it is under `profile`, and no other.
fn check_unharmed(profile: &Value, confined: &Value) {
    for value in [0, 2, u64::MAX] {
        let made = is_made(profile, "read", [value; 6]);
        assert_eq!(made, is_made(confined, "read", [value; 6]), "read is changed");
    }
    let is_given =
        profile.get("architectures").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if !is_given {
        let given = confined.get("architectures").and_then(Value::as_array).map_or(0, Vec::len);
        assert_eq!(given, ARCHITECTURES, "the 32-bit twins are not known");
    }
    // The comparisons of Docker's profiles keep their sense: the other families are made as before, and no others.
    let rules = profile.get("syscalls").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if rules.iter().filter(|rule| rule["names"].to_string().contains("\"socket\"")).all(is_as_dockers) {
        for family in (0..64).filter(|family| *family != REFUSED_SOCKET_FAMILY) {
            let registers = [family, 1, 0, 0, 0, 0];
            let made = is_made(profile, "socket", registers);
            assert_eq!(made, is_made(confined, "socket", registers), "family {family} is changed");
        }
    }
}

/// Whether `rule` has one comparison, of the kinds that Docker's profiles have for the family.
fn is_as_dockers(rule: &Value) -> bool {
    let Some([comparison]) = rule["args"].as_array().map(Vec::as_slice) else { return false };
    let (Some(0), Some(value)) = (comparison["index"].as_u64(), comparison["value"].as_u64()) else {
        return false;
    };
    match comparison["op"].as_str().unwrap_or_default() {
        "SCMP_CMP_EQ" | "SCMP_CMP_GT" | "SCMP_CMP_GE" => true,
        "SCMP_CMP_NE" => value == REFUSED_SOCKET_FAMILY,
        "SCMP_CMP_LT" => value <= REFUSED_SOCKET_FAMILY,
        "SCMP_CMP_LE" => value < REFUSED_SOCKET_FAMILY,
        _ => false,
    }
}

impl Profile {
    fn to_json(&self) -> Value {
        let rules: Vec<Value> = self.rules.iter().map(Rule::to_json).collect();
        let architectures: &[&str] = if self.architectures { &["SCMP_ARCH_X86_64"] } else { &[] };
        let mut profile = json!({"syscalls": rules, "architectures": architectures});
        profile["defaultAction"] = self.default.to_json();
        if self.listener {
            profile["listenerPath"] = json!("/run/x.sock");
        }
        profile
    }
}

impl Rule {
    fn to_json(&self) -> Value {
        let names: Vec<Value> = self.names.iter().map(Name::to_json).collect();
        let comparisons: Vec<Value> = self.comparisons.iter().map(Comparison::to_json).collect();
        json!({"names": names, "action": self.action.to_json(), "args": comparisons})
    }
}

impl Name {
    fn to_json(&self) -> Value {
        match self {
            Self::Socket => json!("socket"),
            Self::Mknod => json!("mknod"),
            Self::Mknodat => json!("mknodat"),
            Self::Refused(row) => json!(REFUSED[usize::from(*row) % REFUSED.len()].name),
            Self::Harmless => json!("read"),
            Self::Number => json!(321),
        }
    }
}

impl Action {
    fn to_json(&self) -> Value {
        match self {
            Self::Allow => json!("SCMP_ACT_ALLOW"),
            Self::Errno => json!("SCMP_ACT_ERRNO"),
            Self::Kill => json!("SCMP_ACT_KILL_PROCESS"),
            Self::Log => json!("SCMP_ACT_LOG"),
            Self::Trace => json!("SCMP_ACT_TRACE"),
            Self::Notify => json!("SCMP_ACT_NOTIFY"),
            Self::Unknown => json!("scmp_act_allow"),
            Self::Absent => Value::Null,
        }
    }
}

impl Comparison {
    fn to_json(&self) -> Value {
        const OPERATORS: [&str; 8] = [
            "SCMP_CMP_NE",
            "SCMP_CMP_LT",
            "SCMP_CMP_LE",
            "SCMP_CMP_EQ",
            "SCMP_CMP_GE",
            "SCMP_CMP_GT",
            "SCMP_CMP_MASKED_EQ",
            "scmp_cmp_eq",
        ];
        let mut comparison = json!({"value": self.value.to_json()});
        comparison["op"] = json!(OPERATORS[usize::from(self.operator) % OPERATORS.len()]);
        if let Some(index) = self.index {
            // One more than there are arguments.
            comparison["index"] = json!(index % 7);
        }
        if let Some(second) = &self.second {
            comparison["valueTwo"] = second.to_json();
        }
        comparison
    }
}

impl Number {
    fn to_json(&self) -> Value {
        match self {
            Self::Small(value) => json!(value),
            Self::Family => json!(REFUSED_SOCKET_FAMILY),
            Self::Wide { upper } => json!(UPPER[usize::from(*upper) % UPPER.len()] | REFUSED_SOCKET_FAMILY),
            Self::Any(value) => json!(value),
            Self::Negative(value) => json!(value),
            Self::Half(value) => json!(f64::from(*value) / 2.0),
        }
    }
}
