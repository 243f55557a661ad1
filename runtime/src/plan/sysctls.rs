//! Kernel settings of the container's own namespaces.

use serde_json::{Value, json};

use super::ids;
use crate::bundle::{Error, Spec, linux};

/// dockerd asks for groups 0 to 2147483647; the kernel refuses groups that the container's map has not.
const PING_GROUP_RANGE: &str = "net.ipv4.ping_group_range";

/// dockerd sets the domain name as a kernel setting, which only root of the VM may write; the system call goes by the
/// namespace. The specification (1.1) has a field for it.
const DOMAIN_NAME: &str = "kernel.domainname";

/// Clamps settings that name ids to the container's map, and moves the domain name to its field.
///
/// # Errors
/// The bundle has no `linux` object.
pub fn adjust(spec: &mut Spec) -> Result<(), Error> {
    let Some(sysctls) = linux(spec)?.get_mut("sysctl").and_then(Value::as_object_mut) else { return Ok(()) };
    if let Some(value) = sysctls.get_mut(PING_GROUP_RANGE) {
        *value = json!(clamp_range(value.as_str().unwrap_or_default()));
    }
    if let Some(name) = sysctls.remove(DOMAIN_NAME) {
        spec.insert("domainname".to_owned(), name);
    }
    Ok(())
}

/// `low high` with both ends inside the map; "1 0" is the kernel's way to say nobody.
fn clamp_range(range: &str) -> String {
    let mut ends = range.split_whitespace().map(|end| end.parse::<u64>().ok());
    let last = u64::from(ids::SIZE - 1);
    match (ends.next().flatten(), ends.next().flatten()) {
        (Some(low), Some(high)) if low <= high && low <= last => format!("{low} {}", high.min(last)),
        _ => "1 0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ping_group_range_stays_inside_the_map() {
        assert_eq!(clamp_range("0 2147483647"), "0 65535");
        assert_eq!(clamp_range("100 200"), "100 200");
        assert_eq!(clamp_range("70000 80000"), "1 0");
        assert_eq!(clamp_range("1 0"), "1 0");
        assert_eq!(clamp_range("nonsense"), "1 0");
    }

    #[test]
    fn the_domain_name_is_set_by_its_field() {
        let mut spec =
            json!({"linux": {"sysctl": {DOMAIN_NAME: "example.org"}}}).as_object().unwrap().clone();
        adjust(&mut spec).unwrap();
        assert_eq!(Value::Object(spec), json!({"domainname": "example.org", "linux": {"sysctl": {}}}));
    }

    #[test]
    fn other_settings_are_left_alone() {
        let mut spec = json!({"linux": {"sysctl": {"kernel.msgmax": "1", PING_GROUP_RANGE: "0 2147483647"}}})
            .as_object()
            .unwrap()
            .clone();
        adjust(&mut spec).unwrap();
        assert_eq!(
            Value::Object(spec),
            json!({"linux": {"sysctl": {"kernel.msgmax": "1", PING_GROUP_RANGE: "0 65535"}}})
        );
    }
}
