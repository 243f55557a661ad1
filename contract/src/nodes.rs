//! What `eci-runc` tells `eci-nodes` about a container: crun carries it with each listener, as `listenerMetadata`.

use serde::{Deserialize, Serialize};

/// The version of [`Ground`] that both know.
pub const VERSION: u32 = 1;

/// Where the nodes of a container may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ground {
    /// [`VERSION`].
    pub version: u32,
    /// Device number of the container's root filesystem (`st_dev`), which `eci-runc` mounted.
    pub root_device: u64,
}
