//! The allow-list: which files of which packages go into the image, each group with a why (`rootfs/files.toml`).

use std::path::{Path, PathBuf};

use eci_contract::manifest::Architecture;
use serde::Deserialize;

use super::document;

/// The schema number of list files.
const VERSION: u32 = 1;

/// What a list adds to the image.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    version: u32,
    /// Patterns, as in [`Files::paths`], of the terms of a licence: what they match is taken from every package that anything
    /// in the image is from.
    #[serde(default)]
    pub terms: Vec<String>,
    /// Packages and what is taken from each.
    #[serde(default, rename = "package")]
    pub packages: Vec<Package>,
    /// Symbolic links that a package's own script would have made.
    #[serde(default, rename = "link")]
    pub links: Vec<Link>,
    /// Files joined from many.
    #[serde(default, rename = "bundle")]
    pub bundles: Vec<Bundle>,
    /// Programs of ours.
    #[serde(default, rename = "program")]
    pub programs: Vec<Program>,
}

/// A Debian package and what is taken from it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Binary package name.
    pub name: String,
    /// Groups of files.
    #[serde(default)]
    pub files: Vec<Files>,
}

/// Files that are wanted for one reason.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// Why the image has them.
    pub why: String,
    /// Absolute paths in the package; `*` stands for any characters within one path component.
    pub paths: Vec<String>,
    /// Another place in the image, for a group of exactly one path without `*`.
    #[serde(default)]
    pub to: Option<String>,
    /// Only for this architecture.
    #[serde(default)]
    pub arch: Option<Architecture>,
    /// A refusal that is lifted for these files. Only a list of the test flavour may do so.
    #[serde(default)]
    pub permits: Option<Permit>,
}

/// A refusal that a test list can lift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permit {
    /// The file may be a shell.
    Shell,
}

/// A symbolic link.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Absolute path in the image.
    pub path: String,
    /// What it holds.
    pub target: String,
    /// Why the image has it.
    pub why: String,
    /// Only for this architecture.
    #[serde(default)]
    pub arch: Option<Architecture>,
    /// As in [`Files::permits`].
    #[serde(default)]
    pub permits: Option<Permit>,
}

/// A file joined from files of one package, in the order of their names.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Absolute path in the image.
    pub path: String,
    /// Binary package name.
    pub package: String,
    /// Pattern of the parts, as in [`Files::paths`].
    pub parts: String,
    /// Why the image has it.
    pub why: String,
}

/// A program of ours and its place in the image.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// File name in the folder of built programs.
    pub name: String,
    /// Absolute path in the image.
    pub path: String,
    /// Why it is there.
    pub why: String,
}

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not well formed.
    #[error(transparent)]
    Document(#[from] document::Error),
    /// A path is not absolute or not in its shortest form.
    #[error("`{}`: `{value}` is not a plain absolute path", .path.display())]
    BadPath {
        /// The list.
        path: PathBuf,
        /// The path as written.
        value: String,
    },
    /// `to` names one place for many files.
    #[error("`{}`: a group of `{package}` has `to` and not exactly one path without `*`", .path.display())]
    ManyToOne {
        /// The list.
        path: PathBuf,
        /// The package.
        package: String,
    },
    /// A group has no reason.
    #[error("`{}`: `{subject}` has an empty `why`", .path.display())]
    NoReason {
        /// The list.
        path: PathBuf,
        /// Package or path.
        subject: String,
    },
}

impl List {
    /// Reads and checks a list.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let list: Self = document::read(path)?;
        list.checked(path)
    }

    /// Every package that the list takes files from, in its order.
    pub fn package_names(&self) -> impl Iterator<Item = &str> {
        let bundled = self.bundles.iter().map(|bundle| bundle.package.as_str());
        self.packages.iter().map(|package| package.name.as_str()).chain(bundled)
    }

    /// Whether a group lifts a refusal.
    #[must_use]
    pub fn permits_anything(&self) -> bool {
        let files = self.packages.iter().flat_map(|package| &package.files);
        files
            .map(|files| files.permits)
            .chain(self.links.iter().map(|link| link.permits))
            .any(|of| of.is_some())
    }

    fn checked(self, path: &Path) -> Result<Self, Error> {
        document::check_version(path, self.version, VERSION)?;
        for pattern in &self.terms {
            check_path(path, pattern)?;
        }
        for package in &self.packages {
            for files in &package.files {
                check_files(path, &package.name, files)?;
            }
        }
        let links = self.links.iter().map(|link| (&link.path, &link.why));
        let bundles = self.bundles.iter().map(|bundle| (&bundle.path, &bundle.why));
        let programs = self.programs.iter().map(|program| (&program.path, &program.why));
        for (place, why) in links.chain(bundles).chain(programs) {
            check_path(path, place)?;
            check_reason(path, place, why)?;
        }
        Ok(self)
    }
}

fn check_files(list: &Path, package: &str, files: &Files) -> Result<(), Error> {
    check_reason(list, package, &files.why)?;
    for place in files.paths.iter().chain(&files.to) {
        check_path(list, place)?;
    }
    let single = matches!(files.paths.as_slice(), [only] if !only.contains('*'));
    if files.to.is_some() && !single {
        return Err(Error::ManyToOne { path: list.to_owned(), package: package.to_owned() });
    }
    Ok(())
}

fn check_path(list: &Path, value: &str) -> Result<(), Error> {
    let plain = value
        .strip_prefix('/')
        .is_some_and(|rest| rest.split('/').all(|component| !matches!(component, "" | "." | "..")));
    if plain { Ok(()) } else { Err(Error::BadPath { path: list.to_owned(), value: value.to_owned() }) }
}

fn check_reason(list: &Path, subject: &str, why: &str) -> Result<(), Error> {
    if why.trim().is_empty() {
        return Err(Error::NoReason { path: list.to_owned(), subject: subject.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<List, Error> {
        let path = Path::new("files.toml");
        document::parse::<List>(path, text)?.checked(path)
    }

    fn group(lines: &str) -> String {
        format!("version = 1\n[[package]]\nname = \"a\"\n[[package.files]]\n{lines}\n")
    }

    #[test]
    fn a_group_without_a_reason_is_refused() {
        let error = check(&group("why = \" \"\npaths = [\"/usr/bin/a\"]")).expect_err("no reason");
        assert_eq!(error.to_string(), "`files.toml`: `a` has an empty `why`");
    }

    #[test]
    fn paths_that_climb_or_start_nowhere_are_refused() {
        for path in ["/usr/../etc/shadow", "usr/bin/a", "/usr//bin", "/", "/usr/./bin/a"] {
            let text = group(&format!("why = \"x\"\npaths = [\"{path}\"]"));
            assert!(matches!(check(&text), Err(Error::BadPath { .. })), "{path}");
        }
        check(&group("why = \"x\"\npaths = [\"/usr/lib/*/liba.so.1*\"]")).expect("a plain pattern");
    }

    #[test]
    fn many_files_cannot_go_to_one_place() {
        let text = group("why = \"x\"\npaths = [\"/usr/bin/*\"]\nto = \"/usr/bin/a\"");
        assert!(matches!(check(&text), Err(Error::ManyToOne { .. })));
    }

    #[test]
    fn bundles_count_as_packages() {
        let text =
            "version = 1\n[[bundle]]\npath = \"/etc/b\"\npackage = \"p\"\nparts = \"/c/*\"\nwhy = \"x\"\n";
        assert_eq!(check(text).expect("sound").package_names().collect::<Vec<_>>(), ["p"]);
    }
}
