//! The mounts of a bundle: which are ours to lay, how, and which crun makes.

use eci_policy::Verdict;
use eci_policy::rules::mount_destination;
use eci_sys::mounts as flags;
use serde_json::{Value, json};

use super::place::below;
use crate::bundle::{Error, Spec, array, text};

/// A bind or volume of the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Position in the bundle's list.
    pub position: usize,
    /// Source as the bundle names it.
    pub source: String,
    /// Destination in the container, absolute.
    pub destination: String,
    /// Mount attributes to set, bits of [`eci_sys::mounts`].
    pub attributes: u64,
    /// Propagation, one of [`eci_sys::mounts`]' three.
    pub propagation: u64,
}

impl Bind {
    /// Whether it is to be read-only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.attributes & flags::READ_ONLY != 0
    }
}

/// The mounts of a bundle.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    /// Binds and volumes, in order.
    pub binds: Vec<Bind>,
    /// Destinations of file systems that crun mounts itself.
    pub made_by_crun: Vec<String>,
}

impl Mounts {
    /// Whether something laid at `destination` before crun starts would be covered by a mount of crun's. Such a
    /// bind stays in the bundle and only gets another source.
    #[must_use]
    pub fn covers(&self, destination: &str) -> bool {
        self.made_by_crun.iter().any(|made| below(destination, made).is_some())
    }
}

/// File systems that a bundle may ask crun to make: all are new instances that belong to the container.
const MADE_BY_CRUN: &[&str] = &["proc", "tmpfs", "devpts", "mqueue", "sysfs", "cgroup", "cgroup2"];

/// Options of a bind that are attributes of the mount. `r` in front means mounts below too, of which there are none:
/// a source is cloned without what is mounted below it.
const ATTRIBUTES: &[(&str, u64)] = &[
    ("ro", flags::READ_ONLY),
    ("rro", flags::READ_ONLY),
    ("nosuid", flags::NO_SUID),
    ("rnosuid", flags::NO_SUID),
    ("nodev", flags::NO_DEVICES),
    ("rnodev", flags::NO_DEVICES),
    ("noexec", flags::NO_EXEC),
    ("rnoexec", flags::NO_EXEC),
    ("noatime", flags::NO_ATIME),
    ("rnoatime", flags::NO_ATIME),
];

const PROPAGATIONS: &[(&str, u64)] = &[
    ("slave", flags::SLAVE),
    ("rslave", flags::SLAVE),
    ("shared", flags::SHARED),
    ("rshared", flags::SHARED),
];

/// Sorts the mounts of `spec`, or refuses one by its destination or type.
///
/// # Errors
/// The list is not an array, or a mount has no destination.
pub fn read(spec: &Spec) -> Result<Result<Mounts, Verdict>, Error> {
    let list = Value::Object(spec.clone());
    let mut mounts = Mounts::default();
    for (position, row) in array(Some(&list), "mounts")?.iter().enumerate() {
        let destination =
            text(row, "destination").and_then(normalise).ok_or(Error::Field { field: "destination" })?;
        let options: Vec<&str> = array(Some(row), "options")?.iter().filter_map(Value::as_str).collect();
        let kind = text(row, "type").unwrap_or_default();
        let is_bind = kind == "bind" || options.contains(&"bind") || options.contains(&"rbind");
        let is_procfs = !is_bind && kind == "proc" && destination == "/proc";
        let verdict = mount_destination::judge(&destination);
        if verdict != Verdict::Allow && !is_procfs {
            return Ok(Err(verdict));
        }
        if is_bind {
            mounts.binds.push(Bind {
                position,
                source: text(row, "source").ok_or(Error::Field { field: "source" })?.to_owned(),
                destination,
                attributes: collect(ATTRIBUTES, &options),
                propagation: PROPAGATIONS
                    .iter()
                    .rfind(|(name, _)| options.contains(name))
                    .map_or(flags::PRIVATE, |(_, bits)| *bits),
            });
        } else if MADE_BY_CRUN.contains(&kind) {
            mounts.made_by_crun.push(destination);
        } else {
            return Ok(Err(mount_destination::deny_type(kind, &destination)));
        }
    }
    Ok(Ok(mounts))
}

/// Takes the binds that were laid out of `spec`, and gives the others their new source.
///
/// # Errors
/// The list is not an array.
pub fn rewrite(spec: &mut Spec, fates: &[(usize, Fate)]) -> Result<(), Error> {
    let Some(rows) = spec.get_mut("mounts") else { return Ok(()) };
    let rows = rows.as_array_mut().ok_or(Error::Field { field: "mounts" })?;
    for (position, fate) in fates {
        let Some(Value::Object(row)) = rows.get_mut(*position) else { continue };
        match fate {
            Fate::Laid => {}
            Fate::Source(path) => {
                row.insert("source".to_owned(), Value::String(path.clone()));
            }
            Fate::OwnCgroups { read_only } => {
                row.insert("type".to_owned(), json!("cgroup"));
                row.insert("source".to_owned(), json!("cgroup"));
                let access = if *read_only { "ro" } else { "rw" };
                row.insert("options".to_owned(), json!(["nosuid", "nodev", "noexec", access]));
            }
        }
    }
    let mut position = 0;
    rows.retain(|_| {
        let laid = fates.iter().any(|(at, fate)| *at == position && *fate == Fate::Laid);
        position += 1;
        !laid
    });
    Ok(())
}

/// What became of a bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in the tree already.
    Laid,
    /// crun has to bind it from this path.
    Source(String),
    /// crun mounts the container's own cgroups in its place.
    OwnCgroups {
        /// Whether they are read-only.
        read_only: bool,
    },
}

fn collect(table: &[(&str, u64)], options: &[&str]) -> u64 {
    table.iter().filter(|(name, _)| options.contains(name)).fold(0, |bits, (_, bit)| bits | bit)
}

/// An absolute path without empty, `.` and `..` parts; `None` when it has `..`.
fn normalise(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    (!parts.contains(&"..")).then(|| format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn planned(mounts: &Value) -> Result<Mounts, Verdict> {
        read(json!({"mounts": mounts}).as_object().unwrap()).unwrap()
    }

    #[test]
    fn binds_are_told_from_what_crun_makes() {
        let mounts = planned(&json!([
            {"destination": "/proc", "type": "proc"},
            {"destination": "/dev", "type": "tmpfs"},
            {"destination": "/data/", "type": "bind", "source": "/v", "options": ["rbind", "rro", "rslave"]},
        ]))
        .unwrap();
        assert_eq!(mounts.made_by_crun, ["/proc", "/dev"]);
        let bind = &mounts.binds[0];
        assert_eq!((bind.position, bind.destination.as_str(), bind.propagation), (2, "/data", flags::SLAVE));
        assert!(bind.is_read_only());
        assert!(mounts.covers("/dev/shm") && mounts.covers("/dev") && !mounts.covers("/device"));
    }

    #[test]
    fn file_systems_of_devices_and_other_types_are_refused() {
        for kind in ["ext4", "overlay", "nfs", "", "devtmpfs"] {
            assert!(
                planned(&json!([{"destination": "/x", "type": kind, "source": "/dev/vda"}])).is_err(),
                "{kind}"
            );
        }
    }

    #[test]
    fn a_bind_is_one_by_its_options_whatever_its_type_says() {
        let mounts =
            planned(&json!([{"destination": "/x", "type": "tmpfs", "source": "/etc", "options": ["bind"]}]));
        assert_eq!(mounts.unwrap().binds.len(), 1);
        for kind in ["bind", "proc"] {
            let mount = json!({"destination": "/proc", "type": kind, "source": "/v", "options": ["rbind"]});
            assert!(planned(&json!([mount])).is_err(), "{kind}");
        }
    }

    #[test]
    fn nothing_but_procfs_goes_over_proc() {
        for (kind, destination, sound) in [
            ("proc", "/proc", true),
            ("proc", "/proc/sys", false),
            ("proc", "/", false),
            ("tmpfs", "/proc", false),
            ("tmpfs", "/", false),
            ("tmpfs", "/proc/meminfo", true),
            ("tmpfs", "/run", true),
        ] {
            let planned = planned(&json!([{"destination": destination, "type": kind}]));
            assert_eq!(planned.is_ok(), sound, "{kind} at {destination}");
        }
    }

    #[test]
    fn laid_mounts_leave_the_bundle_and_others_get_their_source() {
        let mut spec =
            json!({"mounts": [{"destination": "/a"}, {"destination": "/b"}, {"destination": "/c"}]})
                .as_object()
                .unwrap()
                .clone();
        rewrite(&mut spec, &[(0, Fate::Laid), (2, Fate::Source("/s".to_owned()))]).unwrap();
        assert_eq!(spec["mounts"], json!([{"destination": "/b"}, {"destination": "/c", "source": "/s"}]));
    }

    #[test]
    fn a_bind_of_the_cgroup_tree_becomes_a_mount_of_the_container_s_own() {
        let row = json!({"destination": "/sys/fs/cgroup", "type": "bind", "source": "/sys/fs/cgroup",
            "options": ["rbind", "rshared", "rw"]});
        let mut spec = json!({"mounts": [row]}).as_object().unwrap().clone();
        rewrite(&mut spec, &[(0, Fate::OwnCgroups { read_only: false })]).unwrap();
        assert_eq!(
            spec["mounts"],
            json!([{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "nodev", "noexec", "rw"]}])
        );
    }

    #[test]
    fn destinations_with_dots_do_not_leave_the_root() {
        assert_eq!(normalise("//a/./b/"), Some("/a/b".to_owned()));
        assert_eq!(normalise("/a/../b"), None);
    }
}
