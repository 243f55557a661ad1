//! Containers that may have the engine's socket, and what they may do with it: what PID 1 tells runtime and gate of an
//! administrator's settings, in the file [`crate::paths::SOCKET_POLICY`]. Without the file no container has one.

use serde::{Deserialize, Serialize};

/// Version of the file.
pub const VERSION: u32 = 1;

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
