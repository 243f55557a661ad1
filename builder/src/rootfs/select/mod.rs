//! Taking from a package what the lists ask for, and refusing what no image may have in what is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use eci_contract::manifest::Architecture;

use super::tree::{self, Origin, Tree};
use crate::packages::{Archive, deb};
use crate::plan::list::{Bundle, Files, List, Permit};

/// What is taken from a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// What the lists ask for.
    Listed,
    /// The same, and the terms of its licence in any case: kernel or stub of the image are made of it.
    Elsewhere,
}

/// The rule by which the terms of licences are taken.
const TERMS: &str = "The terms of a licence travel with what they are of.";
/// Permission bits that no file may have in its package: setuid, setgid, sticky, and writing for everyone.
const REFUSED_BITS: u32 = 0o7002;

/// Why a package cannot be taken from.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The package cannot be read.
    #[error(transparent)]
    Deb(#[from] deb::Error),
    /// A node cannot be added.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// The content of an entry cannot be read.
    #[error("cannot read `{path}` of the package `{package}`")]
    Content {
        /// Path in the package.
        path: String,
        /// Binary package name.
        package: String,
        /// What was wrong.
        source: io::Error,
    },
    /// A file that a rule asks for may not be in an image.
    #[error("`{path}` of the package `{package}` is {what}, and the rule \"{rule}\" asks for it")]
    Refused {
        /// Path in the package.
        path: String,
        /// Binary package name.
        package: String,
        /// What is wrong with it.
        what: &'static str,
        /// The rule's why.
        rule: String,
    },
    /// The terms of a package's licence would not be in the image.
    #[error("the package `{package}` has no file with the terms of its licence, nothing like `{}`", .patterns.join("` or `"))]
    NoTerms {
        /// Binary package name.
        package: String,
        /// The lists' patterns.
        patterns: Vec<String>,
    },
    /// A rule asks for what the package does not have.
    #[error("the package `{package}` has nothing like `{pattern}`, which the rule \"{rule}\" asks for")]
    NoMatch {
        /// Binary package name.
        package: String,
        /// The rule's pattern.
        pattern: String,
        /// The rule's why.
        rule: String,
    },
}

/// Adds what `lists` ask for from `archive` to the tree, with the terms of its licence.
///
/// # Errors
/// Every variant of [`Error`].
pub fn take(
    (archive, used): (&Archive, Use),
    lists: &[&List],
    target: Architecture,
    tree: &mut Tree,
) -> Result<(), Error> {
    let mut selection = Selection::new(&archive.package.name, lists, target);
    if selection.is_empty() && used == Use::Listed {
        return Ok(());
    }
    deb::entries(&archive.path, |entry, content| selection.visit(&entry, content, tree))?;
    selection.finish(tree)
}

/// What is wanted of one package, and what was found so far.
struct Selection<'a> {
    package: &'a str,
    rules: Vec<&'a Files>,
    terms: Vec<&'a str>,
    has_terms: bool,
    bundles: Vec<(&'a Bundle, BTreeMap<String, Vec<u8>>)>,
    matched: BTreeSet<(usize, usize)>,
}

impl<'a> Selection<'a> {
    fn new(package: &'a str, lists: &[&'a List], target: Architecture) -> Self {
        let groups = lists.iter().flat_map(|list| &list.packages).filter(|of| of.name == package);
        let rules = groups
            .flat_map(|of| &of.files)
            .filter(|files| files.arch.is_none_or(|arch| arch == target))
            .collect();
        let bundles = lists.iter().flat_map(|list| &list.bundles).filter(|bundle| bundle.package == package);
        let bundles = bundles.map(|bundle| (bundle, BTreeMap::new())).collect();
        let terms: Vec<_> = lists.iter().flat_map(|list| &list.terms).map(String::as_str).collect();
        let has_terms = terms.is_empty();
        Self { package, rules, terms, has_terms, bundles, matched: BTreeSet::new() }
    }

    fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.bundles.is_empty()
    }

    fn visit(&mut self, entry: &deb::Entry, content: &mut dyn Read, tree: &mut Tree) -> Result<(), Error> {
        for (bundle, parts) in &mut self.bundles {
            if matches(&bundle.parts, &entry.path) {
                refuse(entry, self.package, &bundle.why)?;
                let mut bytes = Vec::new();
                content.read_to_end(&mut bytes).map_err(|source| unreadable(entry, self.package, source))?;
                parts.insert(entry.path.clone(), bytes);
                return Ok(());
            }
        }
        let mut first = None;
        for (index, files) in self.rules.iter().enumerate() {
            for (number, pattern) in files.paths.iter().enumerate() {
                if matches(pattern, &entry.path) {
                    self.matched.insert((index, number));
                    first.get_or_insert(*files);
                }
            }
        }
        if let Some(files) = first {
            return self.add(files, entry, content, tree);
        }
        if self.terms.iter().any(|pattern| matches(pattern, &entry.path)) {
            refuse(entry, self.package, TERMS)?;
            self.has_terms = true;
            let origin = self.origin(&entry.path);
            return match &entry.kind {
                deb::Kind::File(_) => Ok(tree.add_file(&entry.path, content, false, origin)?),
                deb::Kind::Symlink(target) => Ok(tree.add_symlink(&entry.path, target, origin)?),
                _ => Ok(()),
            };
        }
        Ok(())
    }

    /// The origin of what no rule permits to be more than a file.
    fn origin(&self, path: &str) -> Origin {
        Origin::Package { name: self.package.to_owned(), path: path.to_owned(), shell_permitted: false }
    }

    fn add(
        &self,
        files: &Files,
        entry: &deb::Entry,
        content: &mut dyn Read,
        tree: &mut Tree,
    ) -> Result<(), Error> {
        refuse(entry, self.package, &files.why)?;
        let place = files.to.as_deref().unwrap_or(&entry.path);
        let origin = Origin::Package {
            name: self.package.to_owned(),
            path: entry.path.clone(),
            shell_permitted: files.permits == Some(Permit::Shell),
        };
        match &entry.kind {
            deb::Kind::Folder => tree.add_folder(place, 0o755, origin)?,
            deb::Kind::File(_) => tree.add_file(place, content, entry.mode & 0o100 != 0, origin)?,
            deb::Kind::Symlink(target) => tree.add_symlink(place, target, origin)?,
            deb::Kind::HardLink | deb::Kind::Special => unreachable!("`refuse` lets neither through"),
        }
        Ok(())
    }

    fn finish(self, tree: &mut Tree) -> Result<(), Error> {
        if !self.has_terms {
            let patterns = self.terms.iter().map(ToString::to_string).collect();
            return Err(Error::NoTerms { package: self.package.to_owned(), patterns });
        }
        for (index, files) in self.rules.iter().enumerate() {
            for (number, pattern) in files.paths.iter().enumerate() {
                if !self.matched.contains(&(index, number)) {
                    return Err(no_match(self.package, pattern, &files.why));
                }
            }
        }
        for (bundle, parts) in self.bundles {
            if parts.is_empty() {
                return Err(no_match(self.package, &bundle.parts, &bundle.why));
            }
            let origin = Origin::Package {
                name: self.package.to_owned(),
                path: bundle.parts.clone(),
                shell_permitted: false,
            };
            tree.add_file(&bundle.path, &mut join(parts.values()).as_slice(), false, origin)?;
        }
        Ok(())
    }
}

/// Says no to an entry that may not be in an image.
fn refuse(entry: &deb::Entry, package: &str, rule: &str) -> Result<(), Error> {
    let is_link = matches!(entry.kind, deb::Kind::Symlink(_));
    let what = match &entry.kind {
        deb::Kind::Special => "a device node or pipe",
        deb::Kind::HardLink => "a hard link",
        // Linux gives every link mode 0777; it means nothing.
        _ if entry.mode & REFUSED_BITS != 0 && !is_link => "setuid, setgid, sticky or writable for everyone",
        _ if entry.attributes => "marked with extended attributes, such as file capabilities",
        _ => return Ok(()),
    };
    let (path, package, rule) = (entry.path.clone(), package.to_owned(), rule.to_owned());
    Err(Error::Refused { path, package, what, rule })
}

/// Whether a path is like a pattern: component by component, `*` for any characters within one.
fn matches(pattern: &str, path: &str) -> bool {
    let mut components = path.split('/');
    let all =
        pattern.split('/').all(|part| components.next().is_some_and(|name| matches_component(part, name)));
    all && components.next().is_none()
}

fn matches_component(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(head) else { return false };
    (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| matches_component(tail, &rest[at..]))
}

/// Joins parts, each ended by a newline.
fn join<'a>(parts: impl Iterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    let mut joined = Vec::new();
    for part in parts {
        joined.extend_from_slice(part);
        if !part.ends_with(b"\n") {
            joined.push(b'\n');
        }
    }
    joined
}

fn no_match(package: &str, pattern: &str, rule: &str) -> Error {
    Error::NoMatch { package: package.to_owned(), pattern: pattern.to_owned(), rule: rule.to_owned() }
}

fn unreadable(entry: &deb::Entry, package: &str, source: io::Error) -> Error {
    Error::Content { path: entry.path.clone(), package: package.to_owned(), source }
}

#[cfg(test)]
mod tests;
