//! Folders of the host that a machine has: what they are called, and the disk that names them.
//!
//! A share is at the same path in the VM as on the host, so that `docker run -v $PWD:/src` and what `docker inspect` says of it need no
//! translation. The hypervisor attaches each as a virtiofs device with the tag [`tag`], and a disk with the serial number [`DISK_NAME`]
//! that carries a [`ShareDisk`] ([`crate::json_disk`]).

use serde::{Deserialize, Serialize};

/// Serial number of the virtio disk.
pub const DISK_NAME: &str = "eci-shares";
/// Version of what is on it.
pub const VERSION: u32 = 1;
/// Most bytes of the JSON.
pub const MAX_BYTES: usize = 64 * 1024;
/// Most shares of a machine: each is a device of its own.
pub const MOST: usize = 16;
/// Most bytes of a path.
pub const MAX_PATH: usize = 1024;

/// Folders of the root in which shares may be. The root is read-only, so each has to be in the image (`rootfs/folders.toml`), and the
/// engine may bind from these alone (`rootfs/apparmor/dockerd`). Nothing of the VM is in any of them.
pub const TOPS: [&str; 14] = [
    "/Users",
    "/Volumes",
    "/data",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/projects",
    "/root",
    "/scratch",
    "/srv",
    "/work",
    "/workspace",
    "/workspaces",
];

/// What is on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShareDisk {
    /// [`VERSION`].
    pub version: u32,
    /// The shares; the tag of each is by its place in this list.
    pub shares: Vec<Share>,
}

/// A folder of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Share {
    /// Where it is, on the host and in the VM.
    pub path: String,
    /// Nothing in it can be changed from the VM.
    #[serde(default)]
    pub read_only: bool,
}

/// How each tag begins.
pub const TAG: &str = "eci-share-";

/// The tag of the virtiofs device of the share at this place in the list.
#[must_use]
pub fn tag(index: usize) -> String {
    format!("{TAG}{index}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_folders_of_the_root_in_order() {
        assert!(TOPS.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(TOPS.iter().all(|top| top.rfind('/') == Some(0) && top.len() > 1));
    }
}
