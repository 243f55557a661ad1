//! From what a path opened to the place that policy judges.
//!
//! The caller opens the path and asks the kernel for the real path and the mount id of what it got. From the mount
//! table follows which file system it is and where in it, whatever links and binds led there.

use eci_contract::shares::TAG;
use eci_policy::rules::mount_source::Place;

use super::mountinfo::Mount;

/// File system of the host's shares. Nobody but PID 1 mounts one: the engine's AppArmor profile has no such type. Others are mounted
/// elsewhere, as Windows' drives are in WSL 2, by names of their own.
const SHARE: &str = "virtiofs";

/// What a path opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Id of the mount it is on.
    pub mount: u64,
    /// Real path in this mount namespace.
    pub path: String,
}

/// The mount table and the engine's folder in it.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// All mounts.
    pub mounts: &'a [Mount],
    /// The engine's folder, opened.
    pub engine: &'a Opened,
}

impl Table<'_> {
    /// The place that `opened` is in.
    #[must_use]
    pub fn locate(&self, opened: &Opened) -> Place {
        self.locate_known(opened).unwrap_or_else(|| Place::Vm(opened.path.clone()))
    }

    /// The mount that `opened` is on.
    #[must_use]
    pub fn mount_of(&self, opened: &Opened) -> Option<&Mount> {
        self.mounts.iter().find(|mount| mount.id == opened.mount)
    }

    fn locate_known(&self, opened: &Opened) -> Option<Place> {
        let mount = self.mount_of(opened)?;
        if mount.filesystem == SHARE && mount.source.starts_with(TAG) {
            return Some(Place::Share);
        }
        let engine_mount = self.mount_of(self.engine)?;
        let engine_path = path_in_filesystem(engine_mount, &self.engine.path)?;
        if mount.device == engine_mount.device {
            return below(&path_in_filesystem(mount, &opened.path)?, &engine_path).map(Place::EngineData);
        }
        let at = below(&mount.mount_point, &self.engine.path)?;
        let inside = below(&opened.path, &mount.mount_point)?;
        let path =
            [at.as_str(), inside.as_str()].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
        match mount.filesystem.as_str() {
            "tmpfs" if self.only_below_engine(&mount.device) => Some(Place::EngineMemory(path.join("/"))),
            "overlay" => Some(Place::EngineOverlay(path.join("/"))),
            _ => None,
        }
    }

    /// A tmpfs of the VM that was bound below the engine's folder is mounted elsewhere too.
    fn only_below_engine(&self, device: &str) -> bool {
        self.mounts
            .iter()
            .filter(|mount| mount.device == device)
            .all(|mount| below(&mount.mount_point, &self.engine.path).is_some())
    }
}

/// Path inside of the file system of what is at `path` on `mount`.
fn path_in_filesystem(mount: &Mount, path: &str) -> Option<String> {
    let inside = below(path, &mount.mount_point)?;
    let root = mount.root.trim_end_matches('/');
    Some(if inside.is_empty() && !root.is_empty() { root.to_owned() } else { format!("{root}/{inside}") })
}

/// The part of `path` below `folder`, empty for the folder itself, `None` when it is elsewhere.
#[must_use]
pub fn below(path: &str, folder: &str) -> Option<String> {
    let rest = path.strip_prefix(folder.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_start_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
1 0 254:0 / / ro - erofs /dev/dm-0 ro
2 1 0:20 / /run rw - tmpfs tmpfs rw
3 1 254:8 /docker /var/lib/docker rw - ext4 /dev/vdb rw
4 3 0:30 / /var/lib/docker/containers/c1/mounts/shm rw - tmpfs shm rw
5 3 0:31 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw
6 3 0:20 / /var/lib/docker/volumes/run/_data rw - tmpfs tmpfs rw
7 3 254:0 /etc /var/lib/docker/volumes/etc/_data ro - erofs /dev/dm-0 ro
8 3 254:8 /docker/containers /var/lib/docker/volumes/own/_data rw - ext4 /dev/vdb rw
9 1 254:8 / /mnt rw - ext4 /dev/vdb rw
10 1 0:40 / /home rw - tmpfs tmpfs rw
11 10 0:41 / /home/a rw - virtiofs eci-share-0 rw
12 3 0:41 /src /var/lib/docker/volumes/src/_data rw - virtiofs eci-share-0 rw
13 1 0:42 / /mnt/c rw - virtiofs drvfsC0 rw
14 3 254:8 /docker/volumes /var/lib/docker/volumes rw,nosymfollow - ext4 /dev/vdb rw";

    fn place(mount: u64, path: &str) -> Place {
        let mounts = super::super::mountinfo::parse(MOUNTS);
        let engine = Opened { mount: 3, path: "/var/lib/docker".to_owned() };
        Table { mounts: &mounts, engine: &engine }.locate(&Opened { mount, path: path.to_owned() })
    }

    #[test]
    fn a_volume_is_where_its_files_are() {
        assert_eq!(
            place(3, "/var/lib/docker/volumes/v/_data"),
            Place::EngineData("volumes/v/_data".to_owned())
        );
        assert_eq!(place(9, "/mnt/docker/volumes/v/_data"), Place::EngineData("volumes/v/_data".to_owned()));
        assert_eq!(
            place(14, "/var/lib/docker/volumes/v/_data"),
            Place::EngineData("volumes/v/_data".to_owned())
        );
    }

    #[test]
    fn a_volume_that_is_a_bind_of_something_else_is_that() {
        assert!(matches!(place(7, "/var/lib/docker/volumes/etc/_data"), Place::Vm(_)));
        assert!(matches!(place(6, "/var/lib/docker/volumes/run/_data"), Place::Vm(_)));
        assert_eq!(place(8, "/var/lib/docker/volumes/own/_data"), Place::EngineData("containers".to_owned()));
        assert!(matches!(place(9, "/mnt/elsewhere"), Place::Vm(_)));
    }

    #[test]
    fn the_engines_own_mounts_are_told_apart() {
        assert_eq!(
            place(4, "/var/lib/docker/containers/c1/mounts/shm"),
            Place::EngineMemory("containers/c1/mounts/shm".to_owned())
        );
        assert_eq!(
            place(5, "/var/lib/docker/overlay2/x/merged/sub"),
            Place::EngineOverlay("overlay2/x/merged/sub".to_owned())
        );
    }

    #[test]
    fn a_share_is_one_wherever_it_is_bound_and_the_folders_above_it_are_the_vms() {
        assert_eq!(place(11, "/home/a/src"), Place::Share);
        assert_eq!(place(12, "/var/lib/docker/volumes/src/_data"), Place::Share);
        assert_eq!(place(10, "/home"), Place::Vm("/home".to_owned()));
        assert_eq!(place(13, "/mnt/c"), Place::Vm("/mnt/c".to_owned()));
    }

    #[test]
    fn an_unknown_mount_is_the_vms() {
        assert!(matches!(place(99, "/var/lib/docker/volumes/v/_data"), Place::Vm(_)));
    }

    #[test]
    fn a_longer_name_is_not_below() {
        assert_eq!(below("/var/lib/docker2/x", "/var/lib/docker"), None);
        assert_eq!(below("/var/lib/docker", "/var/lib/docker"), Some(String::new()));
    }
}
