//! The id map of a container: 65,536 ids of the VM, container id 0 first.
//!
//! Ids on disk stay as the image has them; the id-mapped mounts shift them on the way. A file whose owner on disk is
//! above 65,535 has no place in the map: it appears as nobody (65534), and a container cannot make, own or take over
//! such a file. Two containers that share a volume see the same owners in it, whatever their ranges are.

use serde_json::{Value, json};

use crate::bundle::{Error, Spec, linux};

/// Ids in a range.
pub const SIZE: u32 = eci_policy::rules::resource::IDS;

/// A container's range of host ids, by its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// Host id of the container's root.
    pub base: u32,
}

impl Range {
    /// The range as a line of `/proc/<pid>/uid_map`.
    #[must_use]
    pub fn to_map(self) -> String {
        format!("0 {} {SIZE}\n", self.base)
    }

    /// Reads such a file back; `None` unless it is exactly one whole range.
    #[must_use]
    pub fn from_map(text: &str) -> Option<Self> {
        let mut fields = text.split_whitespace();
        let (inside, base, size) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?);
        (inside == "0" && size == "65536" && fields.next().is_none()).then_some(Self { base })
    }

    /// Whether host id `id` lies in the range.
    #[must_use]
    pub fn contains(self, id: u32) -> bool {
        id.checked_sub(self.base).is_some_and(|offset| offset < SIZE)
    }
}

/// How the container comes by its user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserNamespace {
    /// A new one with this range.
    New(Range),
    /// The one at this path.
    Join(String),
}

/// Gives `spec` its user namespace and takes out any other wish for one.
///
/// # Errors
/// The bundle has no `linux` object or no list of namespaces.
pub fn set(spec: &mut Spec, namespace: &UserNamespace) -> Result<(), Error> {
    let linux = linux(spec)?;
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    let row = match namespace {
        UserNamespace::New(range) => {
            let map = json!([{"containerID": 0, "hostID": range.base, "size": SIZE}]);
            linux.insert("uidMappings".to_owned(), map.clone());
            linux.insert("gidMappings".to_owned(), map);
            json!({"type": "user"})
        }
        UserNamespace::Join(path) => json!({"type": "user", "path": path}),
    };
    let namespaces = linux
        .get_mut("namespaces")
        .and_then(Value::as_array_mut)
        .ok_or(Error::Field { field: "namespaces" })?;
    namespaces.retain(|namespace| namespace.get("type") != Some(&json!("user")));
    namespaces.push(row);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Range = Range { base: 100_000 };

    #[test]
    fn a_map_survives_the_kernels_format() {
        assert_eq!(Range::from_map("         0     100000      65536\n"), Some(FIRST));
        assert_eq!(Range::from_map(&FIRST.to_map()), Some(FIRST));
    }

    #[test]
    fn the_initial_map_and_partial_maps_are_no_ranges() {
        for map in ["0 0 4294967295", "0 100000 65535", "1 100000 65536", "0 100000 65536\n65536 0 1", ""] {
            assert_eq!(Range::from_map(map), None, "{map}");
        }
    }

    #[test]
    fn a_range_ends_before_the_next() {
        assert!(FIRST.contains(100_000) && FIRST.contains(165_535));
        assert!(!FIRST.contains(99_999) && !FIRST.contains(165_536));
    }

    #[test]
    fn a_wish_for_another_map_is_replaced() {
        let mut spec = json!({"linux": {"namespaces": [{"type": "user", "path": "/proc/1/ns/user"}],
            "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}})
        .as_object()
        .unwrap()
        .clone();
        set(&mut spec, &UserNamespace::New(FIRST)).unwrap();
        assert_eq!(
            spec["linux"]["uidMappings"],
            json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}])
        );
        assert_eq!(spec["linux"]["namespaces"], json!([{"type": "user"}]));
    }
}
