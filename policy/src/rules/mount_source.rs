//! What may be mounted into a container: its own files and volumes, folders that the host shares, and what has a stand-in; nothing else.
//!
//! Why: with any folder of the VM a container changes the engine's settings, reads other containers' data or the
//! keys. The caller says what the source *opens* (file system and place in it), so volumes made with
//! `-o type=none -o o=bind`, symlinks and `/proc/<pid>/root` all end here.

use super::{PREFIX, stand_in};
use crate::Verdict;

/// Identifier of the rule.
pub const ID: &str = "restricted-host-mount";

/// The engine's `--init` program: what `/usr/bin/docker-init` is a link to in the image.
const INIT_PROGRAM: &str = "/usr/bin/tini-static";

/// Who made the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `docker run` and its kin.
    Container,
    /// A step of an image build.
    Build,
}

/// What an opened source really is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the file system of the engine's data, at this path below the engine's folder.
    EngineData(String),
    /// A tmpfs that is mounted nowhere but below the engine's folder, at this path in it.
    EngineMemory(String),
    /// An overlay that the engine mounted at this path below its folder.
    EngineOverlay(String),
    /// On a folder that the host shares.
    Share,
    /// Anything else, by its real path.
    Vm(String),
}

/// A mount that a container asks for.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The name that was asked for; only ever used in messages.
    pub requested: &'a str,
    /// What it opens.
    pub place: &'a Place,
    /// Destination in the container.
    pub destination: &'a str,
    /// Id of the container.
    pub container: &'a str,
    /// Who made the bundle.
    pub origin: Origin,
    /// Whether the mount is asked for read-only.
    pub read_only: bool,
}

/// Files of another container that a container gets when it shares that one's network, and where it gets them.
const SHARED_FILES: &[(&str, &str)] =
    &[("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")];

/// Judges the source of a bind or volume.
#[must_use]
pub fn judge(source: Source<'_>) -> Verdict {
    let allowed = match source.place {
        Place::EngineData(path) => {
            is_volume(path) || is_container_file(path, &source) || is_build_state(path, &source)
        }
        Place::EngineMemory(path) => {
            is_volume(path) || is_container_memory(path, &source) || is_build_state(path, &source)
        }
        Place::EngineOverlay(_) => source.origin == Origin::Build,
        // No build names a folder of the host: its files come from the client.
        Place::Share => source.origin == Origin::Container,
        Place::Vm(path) => {
            (path == INIT_PROGRAM && source.destination == "/sbin/docker-init" && source.read_only)
                || stand_in::find(path, source.destination, source.read_only).is_some()
        }
    };
    if allowed {
        return Verdict::Allow;
    }
    Verdict::Deny {
        rule: ID,
        message: format!(
            "{PREFIX}: can't mount {} because it's configured as a restricted host mount",
            source.requested
        ),
        remedy: "use a named volume, or share the host's folder with the machine: `eci-builder run --share DIR`",
    }
}

/// `volumes/<name>/_data` and everything below.
fn is_volume(path: &str) -> bool {
    let mut parts = path.split('/');
    parts.next() == Some("volumes")
        && parts.next().is_some_and(|name| !name.is_empty())
        && parts.next() == Some("_data")
}

fn is_container_file(path: &str, source: &Source<'_>) -> bool {
    let Some((id, file)) = path.strip_prefix("containers/").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    SHARED_FILES.iter().any(|(name, destination)| {
        file == *name && (id == source.container || source.destination == *destination)
    })
}

/// `containers/<id>/mounts/<kind>`: shared memory (another container's only as `/dev/shm`), secrets and configs.
fn is_container_memory(path: &str, source: &Source<'_>) -> bool {
    let Some((id, rest)) = path.strip_prefix("containers/").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    rest.starts_with("mounts/")
        && (id == source.container || (rest == "mounts/shm" && source.destination == "/dev/shm"))
}

/// BuildKit's executor state, layers, and its folder of temporary mounts; the engine alone puts them in a bundle.
fn is_build_state(path: &str, source: &Source<'_>) -> bool {
    source.origin == Origin::Build
        && ["buildkit/", "overlay2/", "tmp/"].iter().any(|folder| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(place: &Place, destination: &str, origin: Origin) -> Verdict {
        judge(Source { requested: "/x", place, destination, container: "c1", origin, read_only: true })
    }

    #[test]
    fn a_share_is_for_containers_and_not_for_builds() {
        assert_eq!(asked(&Place::Share, "/src", Origin::Container), Verdict::Allow);
        assert_ne!(asked(&Place::Share, "/src", Origin::Build), Verdict::Allow);
    }

    fn data(path: &str) -> Place {
        Place::EngineData(path.to_owned())
    }

    #[test]
    fn volumes_and_own_files_pass() {
        for (place, destination) in [
            (data("volumes/v/_data"), "/x"),
            (data("volumes/v/_data/sub/folder"), "/x"),
            (data("containers/c1/hosts"), "/anywhere"),
            (data("containers/c2/hosts"), "/etc/hosts"),
            (Place::EngineMemory("containers/c1/mounts/shm".to_owned()), "/dev/shm"),
            (Place::EngineMemory("containers/c2/mounts/shm".to_owned()), "/dev/shm"),
            (Place::EngineMemory("containers/c1/mounts/secrets".to_owned()), "/run/secrets/a"),
            (Place::EngineMemory("volumes/v/_data".to_owned()), "/x"),
            (Place::Vm(INIT_PROGRAM.to_owned()), "/sbin/docker-init"),
            (Place::Vm("/usr/lib/modules".to_owned()), "/lib/modules"),
            (Place::Vm("/sys/fs/cgroup".to_owned()), "/sys/fs/cgroup"),
        ] {
            assert_eq!(asked(&place, destination, Origin::Container), Verdict::Allow, "{place:?}");
        }
    }

    #[test]
    fn everything_else_of_the_vm_is_refused() {
        for (place, destination) in [
            (data("volumes"), "/x"),
            (data("volumes/v"), "/x"),
            (data("volumes/metadata.db"), "/x"),
            (data("containers/c1/config.v2.json"), "/x"),
            (data("containers/c2/hosts"), "/x"),
            (data("containers"), "/x"),
            (data("overlay2/abc/diff"), "/x"),
            (data("buildkit/cache.db"), "/x"),
            (data(""), "/x"),
            (Place::EngineMemory("containers/c2/mounts/secrets".to_owned()), "/run/secrets"),
            (Place::EngineOverlay("overlay2/abc/merged".to_owned()), "/x"),
            (Place::Vm("/etc".to_owned()), "/x"),
            (Place::Vm("/".to_owned()), "/host"),
            (Place::Vm(INIT_PROGRAM.to_owned()), "/x"),
            (Place::Vm("/usr/lib/modules".to_owned()), "/x"),
            (Place::Vm("/usr/lib".to_owned()), "/lib/modules"),
            (Place::Vm("/sys/fs/cgroup".to_owned()), "/x"),
        ] {
            assert_eq!(asked(&place, destination, Origin::Container).denied_by(), Some(ID), "{place:?}");
        }
    }

    #[test]
    fn only_builds_see_build_state() {
        for path in ["buildkit/executor/hosts.1", "overlay2/abc/diff", "tmp/buildkit-secrets1/s"] {
            assert_eq!(asked(&data(path), "/x", Origin::Build), Verdict::Allow, "{path}");
            assert_eq!(asked(&data(path), "/x", Origin::Container).denied_by(), Some(ID), "{path}");
        }
        assert_eq!(asked(&data("containers/c2/config.v2.json"), "/x", Origin::Build).denied_by(), Some(ID));
    }

    #[test]
    fn the_refusal_has_dockers_words() {
        let Verdict::Deny { message, .. } = asked(&Place::Vm("/etc".to_owned()), "/x", Origin::Container)
        else {
            panic!("allowed")
        };
        assert_eq!(
            message,
            "enhanced container isolation: can't mount /x because it's configured as a restricted host mount"
        );
    }
}
