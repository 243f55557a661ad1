//! Containers that may have the engine's socket, and what they may do with it: what PID 1 tells runtime and gate of an
//! administrator's settings, in the file [`crate::paths::SOCKET_POLICY`]. Without the file no container has one.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::paths::{CONTAINER_SOCKET, RUN_DIR};

/// Version of the file.
pub const VERSION: u32 = 2;
/// Most [`SocketPolicy::lists`]: the gate has a socket for each, besides the one for all, and PID 1 keeps them.
pub const MOST_LISTS: usize = 32;

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SocketPolicy {
    /// [`VERSION`].
    pub version: u32,
    /// Images whose containers may have it, as Docker's settings write them: `name[:tag]`, `name:*`, `name@sha256:…`, `repository/*:*`, `*`.
    pub images: Vec<String>,
    /// Images that were made from one of them may have it as well.
    pub allow_derived_images: bool,
    /// What they may ask for.
    pub commands: CommandList,
    /// What containers of some images may ask for instead: of the first that has theirs.
    pub lists: Vec<ImageCommands>,
}

/// A list of commands for some images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageCommands {
    /// Which, as [`SocketPolicy::images`] has them. It lets no image have the socket that is not there, too.
    pub images: Vec<String>,
    /// What their containers may ask for.
    pub commands: CommandList,
}

/// The socket that the gate filters by the list of this number in [`SocketPolicy::lists`], or by that for all. The runtime mounts it in place of
/// what the container named.
#[must_use]
pub fn filtered_by(list: Option<usize>) -> PathBuf {
    match list {
        None => PathBuf::from(CONTAINER_SOCKET),
        Some(number) => PathBuf::from(format!("{RUN_DIR}/socket-{number}.sock")),
    }
}

/// Docker's `commandList`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommandList {
    /// What it means to be on it.
    #[serde(rename = "type")]
    pub kind: ListKind,
    /// Commands as `docker --help` names them.
    pub commands: Vec<String>,
}

/// What it means to be on a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListKind {
    /// What is on it is refused.
    #[default]
    Deny,
    /// What is not on it is refused.
    Allow,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_list_has_a_socket_and_users_know_one_of_them() {
        assert_eq!(filtered_by(None), PathBuf::from("/run/docker.sock"));
        assert_eq!(filtered_by(Some(3)), PathBuf::from("/run/eci/socket-3.sock"));
    }
}
