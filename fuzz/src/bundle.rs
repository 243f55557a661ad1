//! Bundles, from the bytes of `config.json` to the bytes that crun gets.
//!
//! [`plan`] calls the pure part of `eci_runc::verbs::create` in its order, with facts of a made-up system in the places
//! where that one asks the kernel; the two change together. What comes out is checked on its text, read again, as
//! crun does.

use std::path::Path;

use eci_policy::Verdict;
use eci_policy::rules::host_namespace;
use eci_policy::rules::stand_in::{self, Gift};
use eci_runc::bundle::{self, Spec};
use eci_runc::plan::ids::{Range, UserNamespace};
use eci_runc::plan::mounts::Fate;
use eci_runc::plan::{
    annotations, devices, hooks, ids, mounts, namespaces, nodes, settings, syscalls, sysctls, views,
};
use serde_json::{Value, json};

use crate::profile::has_listener;
use crate::seccomp::{check_confined, check_handed_over};

/// First host id of the made-up container.
const BASE: u32 = 165_536;
/// The made-up container's user namespace when it joins another's.
const NAMESPACE: &str = "/run/eci/containers/c1/scratch/user";
/// Where its binds come from.
const SCRATCH: &str = "/run/eci/containers/c1/scratch/bind";
/// What opens the engine's own program.
const ENGINE: &str = "/proc/7/exe";

/// File systems that crun may make for a container: none takes anything of the VM.
const MADE_BY_CRUN: &[&str] = &["proc", "tmpfs", "devpts", "mqueue", "sysfs", "cgroup", "cgroup2"];
/// Namespaces without which a container would be in the VM's.
const NAMESPACES: &[&str] = &["pid", "ipc", "uts", "network", "cgroup", "mount"];
/// Fields that would ask crun for what no rule has judged.
const FOREIGN: &[&str] = &[
    "/vm",
    "/solaris",
    "/windows",
    "/zos",
    "/linux/intelRdt",
    "/linux/personality",
    "/linux/mountLabel",
    "/linux/resources/unified",
    "/process/scheduler",
    "/process/ioPriority",
    "/process/execCPUAffinity",
    "/process/selinuxLabel",
];
/// Devices that a container may have, by number, with the path that has to go with it.
const DEVICES: &[(i64, i64, &str)] = &[
    (1, 3, "/dev/null"),
    (1, 5, "/dev/zero"),
    (1, 7, "/dev/full"),
    (1, 8, "/dev/random"),
    (1, 9, "/dev/urandom"),
    (5, 0, "/dev/tty"),
    (5, 1, "/dev/console"),
    (5, 2, "/dev/ptmx"),
    (10, 200, "/dev/net/tun"),
    (10, 229, "/dev/fuse"),
];
/// Major number of ptys, all of which a container may use.
const PTYS: i64 = 136;

/// A bundle that every rule has passed.
#[derive(Debug)]
pub struct Planned {
    /// What crun gets.
    pub spec: Spec,
    /// The user namespace that was planned.
    pub user_namespace: UserNamespace,
}

/// Plans `input` and checks what crun would get.
///
/// # Panics
/// A promise is broken.
pub fn check(input: &[u8]) {
    let Some(planned) = plan(input) else { return };
    let text = serde_json::to_vec(&planned.spec).expect("a JSON value has string keys only");
    let written = bundle::parse(&text, Path::new("config.json")).expect("what is written can be read");
    let spec = Value::Object(written);
    check_fields(&spec);
    check_process(&spec);
    check_namespaces(&spec, &planned.user_namespace);
    check_devices(&spec);
    check_mounts(&spec);
    check_hooks(&spec);
    check_confined(&spec["linux"]["seccomp"]);
    check_listener(&spec);
}

/// What crun gets for `input`; `None` when the bundle is refused.
#[must_use]
pub fn plan(input: &[u8]) -> Option<Planned> {
    let mut spec = bundle::parse(input, Path::new("config.json")).ok()?;
    allow(&settings::judge(&spec).ok()?)?;
    let found = namespaces::read(&spec).ok()?;
    allow(&host_namespace::judge(&found.missing))?;
    allow(&hooks::judge(&spec, |path| path == ENGINE).ok()?)?;
    allow(&devices::filter(&mut spec).ok()?)?;
    allow(&syscalls::confine(&mut spec).ok()?)?;
    let makes_nodes = nodes::hand_over(&mut spec).ok()?;
    annotations::strip(&mut spec);
    if let Some(process) = spec.get_mut("process").and_then(Value::as_object_mut) {
        annotations::strip_environment(process);
    }
    sysctls::adjust(&mut spec).ok()?;
    namespaces::strip(&mut spec).ok()?;
    let mounts = mounts::read(&spec).ok()?.ok()?;
    spec.get("root").and_then(|root| bundle::text(root, "path"))?;
    let fates: Vec<(usize, Fate)> = mounts
        .binds
        .iter()
        .map(|bind| {
            let read_only = bind.is_read_only();
            // What the source opens is what it names, in the made-up system.
            let stand_in = stand_in::find(&bind.source, &bind.destination, read_only);
            let fate = match stand_in.map(|row| row.gift) {
                Some(Gift::OwnCgroups) => Fate::OwnCgroups { read_only },
                _ if mounts.covers(&bind.destination) => Fate::Source(format!("{SCRATCH}{}", bind.position)),
                _ => Fate::Laid,
            };
            (bind.position, fate)
        })
        .collect();
    let user_namespace = if found.joined.is_empty() {
        UserNamespace::New(Range { base: BASE })
    } else {
        UserNamespace::Join(NAMESPACE.to_owned())
    };
    ids::set(&mut spec, &user_namespace).ok()?;
    mounts::rewrite(&mut spec, &fates).ok()?;
    views::hide(&mut spec).ok()?;
    if makes_nodes {
        nodes::set_ground(&mut spec, 57).ok()?;
    }
    Some(Planned { spec, user_namespace })
}

fn allow(verdict: &Verdict) -> Option<()> {
    (*verdict == Verdict::Allow).then_some(())
}

/// The VM is asked about device nodes only, by its own program, and only for a container that had the capability.
fn check_listener(spec: &Value) {
    let profile = &spec["linux"]["seccomp"];
    if profile.get("listenerPath").is_none() {
        assert!(!has_listener(profile), "rules ask, and nobody listens");
        return;
    }
    check_handed_over(profile);
    let bounding = spec["process"]["capabilities"]["bounding"].as_array().map_or(&[][..], Vec::as_slice);
    assert!(bounding.iter().any(|capability| capability == "CAP_MKNOD"), "a capability is made up");
    assert_eq!(profile["listenerMetadata"], r#"{"version":1,"root_device":57}"#);
}

fn check_fields(spec: &Value) {
    for field in FOREIGN {
        let value = spec.pointer(field).unwrap_or(&Value::Null);
        let is_empty = match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        };
        assert!(is_empty, "{field} passes");
    }
    for name in spec["annotations"].as_object().into_iter().flat_map(|annotations| annotations.keys()) {
        assert!(!name.starts_with("run.oci."), "annotation {name} passes");
    }
    if let Some(path) = spec["linux"]["cgroupsPath"].as_str() {
        let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        assert!(path.starts_with('/') && !parts.contains(&".."), "cgroup {path} is not absolute");
        assert!(parts.first().is_some_and(|first| *first != "eci"), "cgroup {path} is the VM's");
    }
    if let Some(range) = spec["linux"]["sysctl"].get("net.ipv4.ping_group_range") {
        let ends: Vec<u32> = range
            .as_str()
            .expect("a range is text")
            .split(' ')
            .map(|end| end.parse().expect("an end is a number"))
            .collect();
        assert!(matches!(ends[..], [_, high] if high < 65_536), "groups {ends:?} are not the container's");
    }
}

fn check_process(spec: &Value) {
    let process = &spec["process"];
    for variable in rows(process, "env") {
        let is_order = variable.as_str().is_some_and(|variable| variable.starts_with("RUN_OCI_"));
        assert!(!is_order, "{variable} passes");
    }
    for limit in rows(process, "rlimits") {
        let name = limit["type"].as_str().expect("a limit has a name");
        assert!(!matches!(name, "RLIMIT_RTPRIO" | "RLIMIT_NICE"), "limit {name} passes");
    }
    if let Some(score) = process.get("oomScoreAdj").filter(|score| !score.is_null()) {
        let score = score.as_i64().expect("a score is a whole number");
        assert!((0..=1000).contains(&score), "score {score} passes");
    }
}

fn check_namespaces(spec: &Value, planned: &UserNamespace) {
    let linux = &spec["linux"];
    let of = |kind: &str| -> Vec<&Value> {
        rows(linux, "namespaces").iter().filter(|row| row.get("type") == Some(&json!(kind))).collect()
    };
    for kind in NAMESPACES {
        assert!(!of(kind).is_empty(), "the {kind} namespace is the VM's");
    }
    assert!(of("time").is_empty(), "the time namespace is made before crun");
    let offsets = linux.get("timeOffsets");
    assert!(
        offsets.is_none_or(|offsets| offsets.is_null() || *offsets == json!({})),
        "a clock is shifted by crun"
    );
    let (row, map) = match planned {
        UserNamespace::New(range) => {
            let map = json!([{"containerID": 0, "hostID": range.base, "size": 65_536}]);
            (json!({"type": "user"}), Some(map))
        }
        UserNamespace::Join(path) => (json!({"type": "user", "path": path}), None),
    };
    assert_eq!(of("user"), [&row], "user namespaces");
    for field in ["uidMappings", "gidMappings"] {
        assert_eq!(linux.get(field), map.as_ref(), "{field}");
    }
    let joins = NAMESPACES
        .iter()
        .flat_map(|kind| of(kind))
        .any(|row| row["path"].as_str().is_some_and(|path| !path.is_empty()));
    assert_eq!(joins, matches!(planned, UserNamespace::Join(_)), "a joined namespace's owner is joined too");
}

fn check_devices(spec: &Value) {
    let is_safe = |row: &Value, path: Option<&str>| {
        let (major, minor) = (row["major"].as_i64().unwrap_or(-1), row["minor"].as_i64().unwrap_or(-1));
        let is_pty = major == PTYS
            && path.is_none_or(|path| path.strip_prefix("/dev/pts/") == Some(minor.to_string().as_str()));
        let is_listed = DEVICES
            .iter()
            .any(|safe| (safe.0, safe.1) == (major, minor) && path.is_none_or(|path| path == safe.2));
        matches!(row["type"].as_str(), Some("c" | "u")) && (is_pty || is_listed)
    };
    for device in rows(&spec["linux"], "devices") {
        // crun binds what the VM has at the path, whatever the number says.
        assert!(is_safe(device, Some(device["path"].as_str().unwrap_or_default())), "device {device} passes");
    }
    let rules = rows(&spec["linux"]["resources"], "devices");
    assert_eq!(rules.first(), Some(&json!({"allow": false, "access": "rwm"})), "all is denied first");
    for rule in rules.iter().skip(1) {
        let opens = rule["access"].as_str().is_none_or(|access| access != "m");
        let numbers = (rule["major"].as_i64().unwrap_or(-1), rule["minor"].as_i64().unwrap_or(-1));
        // The machine's console is nobody's, and FUSE is theirs who were given it.
        let is_given = match numbers {
            (5, 1) => false,
            (10, 229) => rows(&spec["linux"], "devices").iter().any(|device| device["path"] == "/dev/fuse"),
            _ => true,
        };
        assert!(!opens || is_safe(rule, None) && is_given, "rule {rule} lets through");
    }
}

fn check_mounts(spec: &Value) {
    for row in rows(spec, "mounts") {
        let destination = row["destination"].as_str().expect("a mount has a destination");
        let parts: Vec<&str> = destination.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        assert!(!parts.contains(&".."), "{destination} may leave the root");
        let kind = row.get("type").and_then(Value::as_str).unwrap_or_default();
        let binds = |option: &Value| matches!(option.as_str(), Some("bind" | "rbind"));
        if kind == "bind" || rows(row, "options").iter().any(binds) {
            assert!(!matches!(parts[..], [] | ["proc"]), "a bind covers {destination}");
            let source = row["source"].as_str().expect("a bind has a source");
            assert!(source.starts_with(SCRATCH), "{source} was not judged");
        } else {
            assert!(MADE_BY_CRUN.contains(&kind), "file system {kind} passes");
        }
    }
}

fn check_hooks(spec: &Value) {
    for (phase, hooks) in spec["hooks"].as_object().into_iter().flatten() {
        for hook in hooks.as_array().into_iter().flatten() {
            assert_eq!((phase.as_str(), hook["path"].as_str()), ("prestart", Some(ENGINE)), "{hook}");
            assert_eq!(hook["args"][0], "libnetwork-setkey", "{hook}");
        }
    }
}

fn rows<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
