//! The audit log: what was refused to whom, a [`Denial`] as a line of JSON each, oldest first.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Version of a line.
pub const VERSION: u32 = 1;
/// What stands for a container in a line that is about none.
pub const OF_ENGINE: &str = "engine";
/// Ending of the older of the two files that the log is kept in.
const OLDER: &str = ".1";

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// [`VERSION`].
    pub version: u32,
    /// When, by the VM's clock: RFC 3339, in UTC.
    pub time: String,
    /// The program that refused.
    pub by: String,
    /// What was to be done: `create` or `exec`, or method and path of a request to the engine.
    pub action: String,
    /// The container's id, as the engine has it; [`OF_ENGINE`] where the engine itself was to do something.
    pub container: String,
    /// The image that the container was to be made from, as it was named. None in a step of a build, and for a plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Stable identifier of the rule.
    pub rule: String,
    /// What was refused and why, as the user was told.
    pub message: String,
    /// What can be done instead.
    pub remedy: String,
}

/// The older of the two files that a log is kept in.
#[must_use]
pub fn older(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(OLDER);
    name.into()
}
