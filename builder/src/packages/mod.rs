//! Debian packages: where they come from, which versions, the files themselves, and what is in them.
//!
//! Invariant: a file is used only after its size and sha256 were checked against the lock, each time; no maintainer
//! script is run, and nothing is unpacked but what a rule asks for.
//!
//! [`mirror`] finds an archive, [`apt`] asks the host's apt what it has, [`update`] makes a lock of that (only for
//! `eci-builder lock`), [`mod@fetch`] brings what is locked, [`deb`] reads it. [`version`] knows Debian's order of versions.

use std::path::PathBuf;

use crate::plan::lock::LockedPackage;

pub mod apt;
pub mod deb;
pub mod fetch;
pub mod mirror;
pub mod update;
pub mod version;

pub use fetch::{Offline, Source, fetch};

/// A package file in the cache that is what the lock says.
#[derive(Clone, Debug)]
pub struct Archive {
    /// The lock's entry.
    pub package: LockedPackage,
    /// The file.
    pub path: PathBuf,
}
