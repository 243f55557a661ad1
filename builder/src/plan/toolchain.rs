//! What kernel and programs are compiled with: `packages.toml` of the toolchain's folder, and beside it a lock for each kind of
//! build machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use eci_contract::manifest::Architecture;
use serde::Deserialize;

use super::document;
use super::lock::{Lock, LockedPackage};

/// The schema number of `packages.toml`.
const VERSION: u32 = 1;
/// File name of the list.
const FILE: &str = "packages.toml";

/// `packages.toml`: names alone. What they depend on stands in the locks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    version: u32,
    packages: BTreeSet<String>,
    #[serde(default)]
    cross: BTreeMap<Architecture, Cross>,
    /// Symbolic links that maintainer scripts would make: absolute path, and what it holds.
    #[serde(default)]
    pub links: BTreeMap<String, String>,
}

/// What a build machine of another architecture needs besides.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cross {
    packages: BTreeSet<String>,
}

impl List {
    /// Reads the list in the toolchain's folder.
    ///
    /// # Errors
    /// [`document::Error`].
    pub fn read(folder: &Path) -> Result<Self, document::Error> {
        let path = folder.join(FILE);
        let list: Self = document::read(&path)?;
        document::check_version(&path, list.version, VERSION)?;
        Ok(list)
    }

    /// All names on the list.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let cross = self.cross.values().flat_map(|cross| &cross.packages);
        self.packages.iter().chain(cross).map(String::as_str)
    }

    /// Names of the packages that compile for `target` on a `host`; a foreign one ends in `:` and its Debian architecture.
    /// `None` where there is no way to.
    #[must_use]
    pub fn wanted(&self, host: Architecture, target: Architecture) -> Option<BTreeSet<&str>> {
        let cross = if host == target { None } else { Some(&self.cross.get(&target)?.packages) };
        Some(self.packages.iter().chain(cross.into_iter().flatten()).map(String::as_str).collect())
    }
}

/// Path of the lock for build machines of an architecture.
#[must_use]
pub fn lock_path(folder: &Path, host: Architecture) -> PathBuf {
    folder.join(format!("{}.lock", host.as_str()))
}

/// The packages of `lock` that compile for `target`, and a phrase for each of `wanted` that is not among them.
pub(super) fn choose(
    wanted: &BTreeSet<&str>,
    lock: &Lock,
    target: Architecture,
) -> (Vec<LockedPackage>, Vec<String>) {
    let locked = lock.of(target);
    let missing = wanted.iter().filter(|name| !locked.contains_key(**name));
    let drift = missing.map(|name| format!("`{name}` is not locked for {}", target.as_str())).collect();
    (locked.into_values().cloned().collect(), drift)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "version = 1\npackages = [\"gcc\"]\n[cross.aarch64]\npackages = [\"libstd:arm64\"]\n";

    #[test]
    fn another_architecture_takes_more_and_the_way_back_is_not_there() {
        let list: List = document::parse(Path::new(FILE), LIST).expect("sound");
        let (x86, arm) = (Architecture::X86_64, Architecture::Aarch64);
        assert_eq!(list.wanted(x86, x86), Some(BTreeSet::from(["gcc"])));
        assert_eq!(list.wanted(x86, arm), Some(BTreeSet::from(["gcc", "libstd:arm64"])));
        assert_eq!(list.wanted(arm, arm), Some(BTreeSet::from(["gcc"])));
        assert_eq!(list.wanted(arm, x86), None);
    }
}
