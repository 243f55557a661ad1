//! Which namespaces a bundle shares, and with whom.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::bundle::{Error, Spec, array, linux, text};

/// Namespaces that must not be the VM's, in Docker's words and order, which are the specification's too.
const ISOLATED: &[&str] = &["pid", "ipc", "uts", "network", "cgroup", "mount"];

/// All that a bundle may list: those above, and two that are not taken from it but made anew.
const KNOWN: &[&str] = &["pid", "ipc", "uts", "network", "cgroup", "mount", "user", "time"];

/// Takes every row out of `spec` that is not about a namespace that crun is to make or join: of kinds that are not known,
/// and the time namespace, which is made before crun starts. An empty path is none here; crun would open it.
///
/// # Errors
/// The bundle has no `linux` object or no list of namespaces.
pub fn strip(spec: &mut Spec) -> Result<(), Error> {
    let rows = linux(spec)?.get_mut("namespaces").and_then(Value::as_array_mut);
    let rows = rows.ok_or(Error::Field { field: "namespaces" })?;
    rows.retain(|row| text(row, "type").is_some_and(|kind| kind != "time" && KNOWN.contains(&kind)));
    for row in rows.iter_mut().filter_map(Value::as_object_mut) {
        if row.get("path").and_then(Value::as_str) == Some("") {
            row.remove("path");
        }
    }
    Ok(())
}

/// Has crun join a namespace of `kind` that `spec` names by `path` by another one.
///
/// # Errors
/// As [`strip`]; nothing was judged by another path.
pub fn lead(spec: &mut Spec, kind: &str, path: &Path, by: &Path) -> Result<(), Error> {
    let rows = linux(spec)?.get_mut("namespaces").and_then(Value::as_array_mut);
    let rows = rows.ok_or(Error::Field { field: "namespaces" })?;
    let by = by.to_str().ok_or(Error::Field { field: "namespaces" })?;
    for row in rows.iter_mut().filter(|row| text(row, "type") == Some(kind)) {
        if row.get("path").and_then(Value::as_str).is_some_and(|found| Path::new(found) == path) {
            row["path"] = by.into();
        }
    }
    Ok(())
}

/// The namespaces of a bundle.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Those that the bundle leaves out: the specification's way to say "the runtime's own", which is the VM's.
    pub missing: Vec<&'static str>,
    /// Those that are joined, by path.
    pub joined: Vec<(&'static str, PathBuf)>,
}

/// Sorts the namespaces of `spec`.
///
/// # Errors
/// The list is not an array.
pub fn read(spec: &Spec) -> Result<Namespaces, Error> {
    let rows = array(spec.get("linux"), "namespaces")?;
    let mut namespaces = Namespaces::default();
    for kind in ISOLATED {
        let mut found = rows.iter().filter(|row| text(row, "type") == Some(kind)).peekable();
        if found.peek().is_none() {
            namespaces.missing.push(kind);
        }
        for path in
            found.filter_map(|row| row.get("path").and_then(Value::as_str)).filter(|path| !path.is_empty())
        {
            namespaces.joined.push((kind, PathBuf::from(path)));
        }
    }
    Ok(namespaces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_rows(rows: &Value) -> Namespaces {
        read(json!({"linux": {"namespaces": rows}}).as_object().unwrap()).unwrap()
    }

    #[test]
    fn what_is_left_out_is_the_hosts() {
        let rows = json!([{"type": "mount"}, {"type": "uts"}, {"type": "ipc"}, {"type": "cgroup"}]);
        assert_eq!(read_rows(&rows).missing, ["pid", "network"]);
        assert_eq!(read(&Spec::new()).unwrap().missing, ISOLATED);
    }

    #[test]
    fn paths_are_joined_and_empty_paths_are_not() {
        let rows = json!([{"type": "network", "path": "/n"}, {"type": "pid", "path": ""}]);
        assert_eq!(read_rows(&rows).joined, [("network", PathBuf::from("/n"))]);
    }

    #[test]
    fn a_path_that_was_judged_leads_to_what_was_judged() {
        let rows = json!([{"type": "pid", "path": "/p"}, {"type": "ipc", "path": "/p"}, {"type": "uts"}]);
        let mut spec = json!({"linux": {"namespaces": rows}}).as_object().unwrap().clone();
        lead(&mut spec, "pid", Path::new("/p"), Path::new("/bound")).unwrap();
        let rows = json!([{"type": "pid", "path": "/bound"}, {"type": "ipc", "path": "/p"}, {"type": "uts"}]);
        assert_eq!(spec["linux"]["namespaces"], rows);
    }

    #[test]
    fn time_and_what_is_not_known_are_left_out() {
        let rows = json!([{"type": "time", "path": "/proc/1/ns/time"}, {"type": "pid", "path": ""}, {"type": "new"}, {}]);
        let mut spec = json!({"linux": {"namespaces": rows}}).as_object().unwrap().clone();
        strip(&mut spec).unwrap();
        assert_eq!(spec["linux"]["namespaces"], json!([{"type": "pid"}]));
    }

    #[test]
    fn a_second_row_cannot_hide_a_path() {
        let rows = json!([{"type": "network"}, {"type": "network", "path": "/proc/1/ns/net"}]);
        assert_eq!(read_rows(&rows).joined, [("network", PathBuf::from("/proc/1/ns/net"))]);
    }
}
