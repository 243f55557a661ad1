//! The time namespace: a container's uptime starts with the container.
//!
//! Why: `/proc/uptime` and sysinfo(2) would tell how long the VM runs, and programs that ask how long they run would
//! be told wrong. Only the clock that counts from the boot is shifted; the date and CLOCK_MONOTONIC stay as they are.

use serde_json::{Value, json};

use crate::bundle::{Error, Spec, linux};

/// Gives `spec` a time namespace in which the boot was `uptime` whole seconds later. A wish for another is replaced.
///
/// # Errors
/// The bundle has no `linux` object or no list of namespaces.
pub fn set(spec: &mut Spec, uptime: i64) -> Result<(), Error> {
    let linux = linux(spec)?;
    linux.insert("timeOffsets".to_owned(), json!({"boottime": {"secs": -uptime, "nanosecs": 0}}));
    let namespaces = linux
        .get_mut("namespaces")
        .and_then(Value::as_array_mut)
        .ok_or(Error::Field { field: "namespaces" })?;
    namespaces.retain(|namespace| namespace.get("type") != Some(&json!("time")));
    namespaces.push(json!({"type": "time"}));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_taken_off_and_another_time_namespace_is_not_joined() {
        let mut spec =
            json!({"linux": {"namespaces": [{"type": "time", "path": "/proc/1/ns/time"}, {"type": "pid"}],
            "timeOffsets": {"monotonic": {"secs": 9}}}})
            .as_object()
            .unwrap()
            .clone();
        set(&mut spec, 77).unwrap();
        assert_eq!(spec["linux"]["timeOffsets"], json!({"boottime": {"secs": -77, "nanosecs": 0}}));
        assert_eq!(spec["linux"]["namespaces"], json!([{"type": "pid"}, {"type": "time"}]));
        assert!(set(&mut Spec::new(), 1).is_err());
    }
}
