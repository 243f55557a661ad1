//! `/proc` and `/sys` of a container: what is hidden, and which kernel settings are its own.
//!
//! A container that has not asked to see all of `/proc` gets more of it hidden than Docker hides. One that has
//! (`--privileged`, `--security-opt systempaths=unconfined`) may write kernel settings: to nodes of its own.

use std::path::Path;

use eci_policy::rules::figure::FIGURES;
use eci_policy::rules::hidden_path::{From, HIDDEN};
use eci_policy::rules::own_node::{KERNEL_LOG, OWN_NODES};
use serde_json::{Value, json};

use crate::bundle::{Error, Spec, array, linux};

/// Where a container with own nodes has a second procfs. Mounts over `/proc` are locked in user namespaces inside of the
/// container, and the kernel lets a new procfs be mounted there only where one is in sight without any
/// (`mount_too_revealing`): this one. It shows nothing that the container could not mount itself. crun mounts a procfs only
/// right below the root; the folder for it comes from the layer in [`MOUNT_POINTS`], so that no image gets one.
pub const WHOLE_PROC: &str = "/.proc";

/// Folder of the VM that lies below the layers of a container with own nodes.
pub const MOUNT_POINTS: &str = "/usr/share/eci/mount-points";

/// Whether the container has asked to see all of `/proc`: Docker then sends no path to mask.
///
/// # Errors
/// The list is not an array.
pub fn sees_all(spec: &Spec) -> Result<bool, Error> {
    Ok(array(spec.get("linux"), "maskedPaths")?.is_empty())
}

/// Adds the hidden paths to those that Docker masks.
///
/// # Errors
/// The bundle has no `linux` object, or the list is not an array.
pub fn hide(spec: &mut Spec) -> Result<(), Error> {
    let sees_all = sees_all(spec)?;
    let mut masked = array(spec.get("linux"), "maskedPaths")?.to_vec();
    for hidden in HIDDEN.iter().filter(|hidden| hidden.from == From::Everyone || !sees_all) {
        let path = json!(hidden.path);
        if !masked.contains(&path) {
            masked.push(path);
        }
    }
    linux(spec)?.insert("maskedPaths".to_owned(), Value::Array(masked));
    Ok(())
}

/// A node of the container's own, to be made and mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it is mounted.
    pub destination: String,
    /// What it holds at first.
    pub content: String,
}

/// The nodes, with the values that `read` gives for a setting, `None` for one that the kernel does not have.
#[must_use]
pub fn nodes(read: impl Fn(&str) -> Option<String>) -> Vec<Node> {
    OWN_NODES
        .iter()
        .filter_map(|node| Some(Node { destination: node.path.to_owned(), content: read(node.path)? }))
        .collect()
}

/// Adds the whole procfs, the empty kernel log and the mounts of nodes, each with the file that was made for it, to those
/// that crun makes. It makes them in order, and `/proc`, `/dev` and `/sys` come before.
///
/// # Errors
/// The list of mounts is not an array.
pub fn mount(spec: &mut Spec, nodes: &[(Node, String)]) -> Result<(), Error> {
    let mounts =
        spec.get_mut("mounts").and_then(Value::as_array_mut).ok_or(Error::Field { field: "mounts" })?;
    let options = ["nosuid", "noexec", "nodev"];
    mounts.push(json!({"destination": WHOLE_PROC, "type": "proc", "source": "proc", "options": options}));
    let options = ["bind", "rprivate", "ro", "nosuid", "noexec"];
    mounts
        .push(json!({"destination": KERNEL_LOG, "type": "bind", "source": "/dev/null", "options": options}));
    for (node, source) in nodes {
        let options = ["bind", "rprivate", "nosuid", "noexec", "nodev"];
        mounts.push(
            json!({"destination": node.destination, "type": "bind", "source": source, "options": options}),
        );
    }
    Ok(())
}

/// Adds mounts of the files that tell the container of its own limits, which are in `folder`, where it has the file systems that
/// they belong to.
///
/// # Errors
/// The list of mounts is not an array.
pub fn show_figures(spec: &mut Spec, folder: &Path) -> Result<(), Error> {
    let mounts =
        spec.get_mut("mounts").and_then(Value::as_array_mut).ok_or(Error::Field { field: "mounts" })?;
    let has = |destination: &str, kind: &str| {
        mounts.iter().any(|mount| mount["destination"] == destination && mount["type"] == kind)
    };
    let (has_proc, has_sys) = (has("/proc", "proc"), has("/sys", "sysfs"));
    let options = ["bind", "rprivate", "ro", "nosuid", "noexec", "nodev"];
    for row in FIGURES {
        let has_place = if row.path.starts_with("/proc/") { has_proc } else { has_sys };
        if has_place {
            let source = folder.join(row.file);
            mounts
                .push(json!({"destination": row.path, "type": "bind", "source": source, "options": options}));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(masked: &Value) -> Spec {
        json!({"linux": {"maskedPaths": masked}, "mounts": []}).as_object().unwrap().clone()
    }

    #[test]
    fn an_ordinary_container_keeps_dockers_masks_and_gets_ours() {
        let mut spec = spec(&json!(["/proc/keys", "/proc/asound"]));
        hide(&mut spec).unwrap();
        let masked = spec["linux"]["maskedPaths"].as_array().unwrap();
        assert_eq!(masked.len(), HIDDEN.len() + 1);
        assert!(masked.contains(&json!("/proc/asound")) && masked.contains(&json!("/sys/firmware")));
    }

    #[test]
    fn one_that_sees_all_of_proc_still_does_not_see_the_machine() {
        for masked in [json!([]), json!(null)] {
            let mut spec = spec(&masked);
            assert!(sees_all(&spec).unwrap());
            hide(&mut spec).unwrap();
            let masked = spec["linux"]["maskedPaths"].as_array().unwrap();
            assert!(masked.contains(&json!("/sys/firmware")));
            assert!(!masked.iter().any(|path| path.as_str().unwrap().starts_with("/proc")));
        }
        assert!(sees_all(&spec(&json!("x"))).is_err());
    }

    #[test]
    fn figures_lie_over_the_file_systems_that_are_there() {
        let mut spec = json!({"mounts": [{"destination": "/proc", "type": "proc"}, {"destination": "/sys", "type": "bind"}]});
        let spec = spec.as_object_mut().unwrap();
        show_figures(spec, Path::new("/run/eci/2")).unwrap();
        let mounts = spec["mounts"].as_array().unwrap();
        let shown: Vec<_> = mounts[2..].iter().map(|mount| mount["destination"].as_str().unwrap()).collect();
        assert_eq!(shown, ["/proc/cpuinfo", "/proc/loadavg", "/proc/meminfo", "/proc/stat"]);
        assert_eq!(mounts[4]["source"], "/run/eci/2/meminfo");
        assert!(mounts[4]["options"].as_array().unwrap().contains(&json!("ro")));
        assert!(show_figures(&mut Spec::new(), Path::new("/x")).is_err());
    }

    #[test]
    fn nodes_begin_with_the_vms_value_and_absent_ones_are_left_out() {
        let mut nodes = nodes(|path| (path == "/proc/sys/kernel/panic").then(|| "1\n".to_owned()));
        let node = nodes.pop().unwrap();
        assert!(nodes.is_empty() && node.content == "1\n");
        let mut spec = spec(&json!([]));
        mount(&mut spec, &[(node, "/run/eci/3".to_owned())]).unwrap();
        assert_eq!(spec["mounts"][0]["destination"], WHOLE_PROC);
        assert_eq!(spec["mounts"][1]["destination"], "/dev/kmsg");
        assert_eq!(spec["mounts"][1]["source"], "/dev/null");
        assert_eq!(spec["mounts"][2]["source"], "/run/eci/3");
        assert_eq!(spec["mounts"][2]["destination"], "/proc/sys/kernel/panic");
    }
}
