//! Lock files: the exact packages that a build uses, each with its digest.
//!
//! A path is relative to its archive's root, so a lock names no mirror. Entries are sorted, so that a change shows as
//! the lines that changed.

use std::collections::BTreeMap;
use std::path::Path;

use eci_contract::manifest::Architecture;
use serde::{Deserialize, Serialize};

use super::document;

/// The schema number of lock files.
const VERSION: u32 = 1;

const HEADER: &str = "# Written by `eci-builder lock`, which is the only way to change it.\n";

/// The content of a lock file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    /// Locked packages, sorted by target and name.
    #[serde(default, rename = "package")]
    pub packages: Vec<LockedPackage>,
}

/// One package file in a Debian archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// Binary package name; in a toolchain's lock one that is not for the build machine ends in `:` and its Debian architecture.
    pub name: String,
    /// The architecture that the image is for.
    pub target: Architecture,
    /// Package version, epoch included.
    pub version: String,
    /// Debian architecture of the file: `amd64`, `arm64` or `all`.
    pub architecture: String,
    /// Which archive has the file.
    pub archive: Archive,
    /// Path of the file under the archive's root.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Source package.
    pub source: String,
    /// Version of the source package.
    pub source_version: String,
}

/// A Debian archive, named as its folder on a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Archive {
    /// The main archive.
    Debian,
    /// Security updates.
    DebianSecurity,
}

/// Debian's name of an architecture.
#[must_use]
pub fn debian_architecture(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "amd64",
        Architecture::Aarch64 => "arm64",
    }
}

impl Lock {
    /// A lock of these packages, sorted.
    #[must_use]
    pub fn new(mut packages: Vec<LockedPackage>) -> Self {
        packages.sort_by(|a, b| (a.target.as_str(), &a.name).cmp(&(b.target.as_str(), &b.name)));
        Self { version: VERSION, packages }
    }

    /// Reads a lock file.
    ///
    /// # Errors
    /// [`document::Error`].
    pub fn read(path: &Path) -> Result<Self, document::Error> {
        let lock: Self = document::read(path)?;
        document::check_version(path, lock.version, VERSION)?;
        Ok(lock)
    }

    /// The text of the lock file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let body = toml::to_string(self).expect("a lock has only strings, numbers and tables after them");
        format!("{HEADER}{body}")
    }

    /// The packages for one target, by name.
    pub fn of(&self, target: Architecture) -> BTreeMap<&str, &LockedPackage> {
        let mine = self.packages.iter().filter(|package| package.target == target);
        mine.map(|package| (package.name.as_str(), package)).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A locked package with a made-up file.
    pub(crate) fn locked(name: &str) -> LockedPackage {
        LockedPackage {
            name: name.to_owned(),
            target: Architecture::X86_64,
            version: "1:2.0-1".to_owned(),
            architecture: "amd64".to_owned(),
            archive: Archive::DebianSecurity,
            path: format!("pool/main/x/{name}_2.0-1_amd64.deb"),
            size: 7,
            sha256: "ab".repeat(32),
            source: name.to_owned(),
            source_version: "1:2.0-1".to_owned(),
        }
    }

    #[test]
    fn a_lock_survives_its_text_and_is_sorted() {
        let lock = Lock::new(vec![locked("b"), locked("a")]);
        let text = lock.to_text();
        assert!(text.find("name = \"a\"") < text.find("name = \"b\""), "{text}");
        assert!(text.contains("archive = \"debian-security\""), "{text}");
        assert_eq!(document::parse::<Lock>(Path::new("l"), &text).expect("our own text"), lock);
    }
}
