//! Devices and device rules.
//!
//! `--privileged` is told from `--device` by the device rules: dockerd adds to a privileged container's, last, one that
//! allows everything and has no type. A rule that a user adds always has one (`a`, `b` or `c`) and does not count.

use eci_policy::Verdict;
use eci_policy::rules::device::{self, Given, Outcome, SafeDevice, Wish};
use serde_json::{Value, json};

use crate::bundle::{Error, Spec, array, linux, text};

/// Drops unsafe devices, and replaces the device rules by the safe list.
///
/// # Errors
/// A list is not an array. The verdict is a refusal when the user named an unsafe device.
pub fn filter(spec: &mut Spec) -> Result<Verdict, Error> {
    let wish = wish(spec)?;
    let mut kept = Vec::new();
    for row in array(spec.get("linux"), "devices")? {
        match judge(row, wish) {
            Outcome::Keep => kept.push(with_mode(row)),
            Outcome::Drop => {}
            Outcome::Refuse(verdict) => return Ok(verdict),
        }
    }
    let rules = safe_rules(&kept);
    let linux = linux(spec)?;
    linux.insert("devices".to_owned(), Value::Array(kept));
    let resources = linux.entry("resources").or_insert_with(|| json!({}));
    resources.as_object_mut().ok_or(Error::Field { field: "resources" })?.insert("devices".to_owned(), rules);
    Ok(Verdict::Allow)
}

fn judge(row: &Value, wish: Wish) -> Outcome {
    let number = |field| row.get(field).and_then(Value::as_i64).unwrap_or(-1);
    let path = text(row, "path").unwrap_or("without a path");
    device::judge(text(row, "type").unwrap_or_default(), number("major"), number("minor"), path, wish)
}

/// The device with the mode that users of a machine know it by; dockerd sends the VM's.
fn with_mode(row: &Value) -> Value {
    let mut row = row.clone();
    let number = |field| row.get(field).and_then(Value::as_i64);
    let same = |safe: &&SafeDevice| (Some(safe.major), safe.minor) == (number("major"), number("minor"));
    let mode = device::SAFE.iter().find(same).and_then(|safe| safe.mode);
    if let (Some(mode), Value::Object(fields)) = (mode, &mut row) {
        fields.insert("fileMode".to_owned(), json!(mode));
    }
    row
}

fn wish(spec: &Spec) -> Result<Wish, Error> {
    let rules = array(spec.get("linux").and_then(|linux| linux.get("resources")), "devices")?;
    let allows_all = |rule: &Value| {
        rule.get("allow") == Some(&Value::Bool(true)) && text(rule, "type").is_none_or(str::is_empty)
    };
    Ok(if rules.iter().any(allows_all) { Wish::Privileged } else { Wish::Named })
}

/// Denies all, then allows to make any node (which the kernel refuses to a user namespace, and `eci-nodes` decides on) and
/// to use the safe ones. A device that not every container has may be used where it is among `kept`, for an image can
/// have a node of it too. crun puts rules of its own before these: for what every container has, `/dev/net/tun` and the console.
fn safe_rules(kept: &[Value]) -> Value {
    let first = [
        json!({"allow": false, "access": "rwm"}),
        json!({"allow": true, "type": "c", "access": "m"}),
        json!({"allow": true, "type": "b", "access": "m"}),
    ];
    let is_kept = |path: &str| kept.iter().any(|row| text(row, "path") == Some(path));
    let is_usable = |device: &&SafeDevice| match device.given {
        Given::Always => true,
        Given::Asked => is_kept(device.path),
        Given::Never => false,
    };
    let safe = device::SAFE.iter().filter(is_usable).map(|device| {
        let minor = device.minor.unwrap_or(-1);
        json!({"allow": true, "type": "c", "major": device.major, "minor": minor, "access": "rwm"})
    });
    Value::Array(first.into_iter().chain(safe).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(rules: &Value) -> Spec {
        let devices = json!([{"type": "b", "path": "/dev/vda", "major": 254, "minor": 0},
            {"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229}]);
        json!({"linux": {"devices": devices, "resources": {"devices": rules}}}).as_object().unwrap().clone()
    }

    #[test]
    fn a_named_disk_is_refused() {
        let verdict = filter(&mut spec(&json!([{"allow": false, "access": "rwm"}]))).unwrap();
        assert_eq!(verdict.denied_by(), Some(device::ID));
    }

    #[test]
    fn a_rule_that_the_user_added_does_not_make_a_container_privileged() {
        let rules = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "a", "access": "rwm"}]);
        assert_eq!(filter(&mut spec(&rules)).unwrap().denied_by(), Some(device::ID));
    }

    #[test]
    fn a_device_for_users_is_open_to_them() {
        let rows = json!([{"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229, "fileMode": 0o600},
            {"type": "c", "path": "/dev/null", "major": 1, "minor": 3, "fileMode": 0o666}]);
        let mut spec = json!({"linux": {"devices": rows}}).as_object().unwrap().clone();
        assert_eq!(filter(&mut spec).unwrap(), Verdict::Allow);
        assert_eq!(spec["linux"]["devices"][0]["fileMode"], 0o666);
        assert_eq!(spec["linux"]["devices"][1], rows[1]);
    }

    #[test]
    fn a_privileged_container_keeps_the_safe_devices_only() {
        let mut spec = spec(&json!([{"allow": false, "access": "rwm"}, {"allow": true, "access": "rwm"}]));
        assert_eq!(filter(&mut spec).unwrap(), Verdict::Allow);
        assert_eq!(spec["linux"]["devices"].as_array().unwrap().len(), 1);
        assert_eq!(spec["linux"]["resources"]["devices"][0], json!({"allow": false, "access": "rwm"}));
    }

    #[test]
    fn only_who_is_given_a_rare_device_may_use_it() {
        let rules = |devices: Value| {
            let mut spec = spec(&json!([]));
            spec["linux"]["devices"] = devices;
            assert_eq!(filter(&mut spec).unwrap(), Verdict::Allow);
            spec["linux"]["resources"]["devices"].to_string()
        };
        let fuse = r#""major":10,"minor":229"#;
        assert!(!rules(json!([])).contains(fuse));
        let given = json!([{"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229}]);
        assert!(rules(given).contains(fuse));
        let console = r#""major":5,"minor":1,"#;
        assert!(!rules(json!([])).contains(console));
        assert!(rules(json!([])).contains(r#""major":1,"minor":3"#));
    }
}
