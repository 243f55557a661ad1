//! What `eci-runc` leaves for `eci-procfs`: a folder per container below [`crate::paths::PROCFS_DIR`], with a file for each of the
//! policy's figures, which is mounted over the kernel's in the container; and [`ORIGIN`].

use serde::{Deserialize, Serialize};

/// The version of [`Origin`] that both know.
pub const VERSION: u32 = 1;

/// File with the [`Origin`], in the container's folder below [`crate::paths::CONTAINERS_DIR`]: `eci-procfs` is waited for when a file
/// of the other one is read, so that itself it reads none there.
pub const ORIGIN: &str = "figures.json";

/// Extended attribute of a figure's file, by which it is known again wherever it is mounted: `<container id>/<file name>`. Only
/// a root of the VM can see or set it.
pub const FIGURE_XATTR: &str = "trusted.eci.figure";

/// What a container's figures are counted from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// [`VERSION`].
    pub version: u32,
    /// Its cgroup: a path from the root of the tree.
    pub cgroup: String,
    /// When it was started, in seconds since the VM's boot (`CLOCK_BOOTTIME`).
    pub started: u64,
}
