//! Updates: a signed image becomes the next version of an instance.
//!
//! [`judge`] says whether it may (pure). [`stage`] checks everything of it and lays it beside the instance's disk; [`apply`] puts it
//! into the slot that is not booted, on trial. The two are apart because an instance may run: it then gets the new version when it
//! is started again. Nothing in the VM writes to a slot.
//!
//! Invariant: until the last step of [`apply`], one change of the partition table, the instance boots what it booted before.

pub mod apply;
pub mod judge;
pub mod stage;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use super::{artifacts, home, own_disk};
use crate::image::{disk, manifest, verify};
use crate::staging;

/// Why an update was not brought in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image cannot be looked at.
    #[error(transparent)]
    Artifacts(#[from] artifacts::Error),
    /// Its manifest cannot be used.
    #[error("the manifest of `{}`", .folder.display())]
    Manifest {
        /// Folder of the image.
        folder: PathBuf,
        /// What is wrong.
        source: manifest::Error,
    },
    /// It cannot be checked.
    #[error("cannot check the image")]
    Verify(#[from] verify::Error),
    /// It is not what its manifest says, or was signed by another key.
    #[error("`{}` is not to be trusted:{}", .folder.display(), .failed.iter().map(|line| format!("\n    {line}")).collect::<String>())]
    Untrusted {
        /// Folder of the image.
        folder: PathBuf,
        /// Checks that failed.
        failed: Vec<String>,
    },
    /// What the instance runs is not signed by the key beside it: nobody can say whose updates it takes.
    #[error("the manifest of `{}` is not signed by the key beside it", .folder.display())]
    NoAnchor {
        /// Folder of what the instance runs.
        folder: PathBuf,
    },
    /// It may not follow what the instance runs.
    #[error(transparent)]
    Refused(#[from] judge::Refusal),
    /// A partition of the image is not there, or larger than its place on the instance's disk.
    #[error("the partition `{name}` of `{}` {problem}", .path.display())]
    Partition {
        /// The disk.
        path: PathBuf,
        /// The partition.
        name: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// After it was written, a slot does not read as the manifest says.
    #[error("slot {slot} of `{}` reads with root hash {found} in place of {wanted}", .path.display())]
    ReadBack {
        /// The disk.
        path: PathBuf,
        /// The slot.
        slot: eci_contract::disk::Slot,
        /// The manifest's.
        wanted: String,
        /// What was computed.
        found: String,
    },
    /// The disk cannot be read.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The instance's disk cannot be used.
    #[error(transparent)]
    OwnDisk(#[from] own_disk::Error),
    /// A folder cannot be staged.
    #[error(transparent)]
    Staging(#[from] staging::Error),
    /// The instance's folder cannot be used.
    #[error(transparent)]
    Home(#[from] home::Error),
}
