//! What the first stage (initramfs or WSL) tells the system stage, through the `/run` that both share.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;

use eci_contract::disk::{Medium, Slot};
use eci_contract::manifest::Manifest;
use eci_contract::paths;
use eci_contract::status::Step;
use serde::{Deserialize, Serialize};

use crate::measured::Told;

/// Where [`Handover`] is kept; beside the manifest at [`paths::RUN_MANIFEST`].
const PATH: &str = "/run/eci/handover.json";

/// What the system stage runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Platform {
    /// A machine of its own, kernel included.
    #[default]
    Machine,
    /// A distro of WSL 2, which shares kernel and network with others.
    Wsl,
}

/// What happened before the root was switched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handover {
    /// When the first stage began, in milliseconds since power-on.
    pub started_ms: u64,
    /// What it ran on.
    pub platform: Platform,
    /// Name of the mapped device that the root is on.
    pub verity_device: String,
    /// The disk that the root is on, without `/dev/`; empty where that is no disk of ours.
    pub disk: String,
    /// What kind of disk that is.
    #[serde(default, skip_serializing_if = "Medium::is_disk")]
    pub medium: Medium,
    /// Bytes of its sectors.
    pub sector: u64,
    /// The slot that the root is in.
    pub slot: Slot,
    /// Whether that slot still has to get the engine ready for the first time.
    pub on_trial: bool,
    /// Whether this boot has taken a try from the slot.
    pub counted: bool,
    /// Whether the firmware boots signed programs alone; then the kernel has checked the root hash's signature itself.
    /// Missing where the first stage is of an older image: a kernel that was not part of the update.
    #[serde(default)]
    pub secure_boot: bool,
    /// What it measured.
    #[serde(default)]
    pub measured: Told,
    /// Its steps.
    pub steps: Vec<Step>,
}

/// Why nothing could be handed over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be written or read.
    #[error("cannot {operation} `{path}`")]
    File {
        /// `read` or `write`.
        operation: &'static str,
        /// The file.
        path: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file is not what the first stage writes.
    #[error("`{path}` is not understood")]
    Parse {
        /// The file.
        path: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Keeps the hand-over and the verified bytes of the manifest.
///
/// # Errors
/// When `/run` cannot be written.
pub fn write(handover: &Handover, manifest: &[u8]) -> Result<(), Error> {
    let file = |path| move |source| Error::File { operation: "write", path, source };
    let bytes = serde_json::to_vec(handover).map_err(|source| Error::Parse { path: PATH, source })?;
    let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(paths::RUN_DIR);
    made.map_err(file(paths::RUN_DIR))?;
    fs::write(PATH, bytes).map_err(file(PATH))?;
    fs::write(paths::RUN_MANIFEST, manifest).map_err(file(paths::RUN_MANIFEST))
}

/// Reads both back.
///
/// # Errors
/// When one is missing or malformed: then this root was not booted by our first stage.
pub fn read() -> Result<(Handover, Manifest), Error> {
    Ok((read_json(PATH)?, read_json(paths::RUN_MANIFEST)?))
}

fn read_json<T: for<'a> Deserialize<'a>>(path: &'static str) -> Result<T, Error> {
    let bytes = fs::read(path).map_err(|source| Error::File { operation: "read", path, source })?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Parse { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file() {
        let error = Error::File { operation: "read", path: PATH, source: io::ErrorKind::NotFound.into() };
        assert_eq!(error.to_string(), "cannot read `/run/eci/handover.json`");
        let source = serde_json::from_str::<Handover>("{").unwrap_err();
        assert_eq!(
            Error::Parse { path: PATH, source }.to_string(),
            "`/run/eci/handover.json` is not understood"
        );
    }
}
