//! Making a lock: which version of each package that a plan asks for, and what changed. Only `eci-builder lock` does
//! so; a build takes what is locked.

use std::collections::{BTreeMap, BTreeSet};

use eci_contract::manifest::Architecture;
use serde::Serialize;

use super::apt::{self, Apt, Stanza};
use super::mirror::Mirror;
use crate::plan::lock::{Archive, Lock, LockedPackage};
use crate::ui::Ui;

/// Which locked versions may change although they can still be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// None.
    Nothing,
    /// Those of these packages.
    Packages(BTreeSet<String>),
    /// All.
    Everything,
}

/// What became of one package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// It was not locked before.
    Added {
        /// Package name.
        name: String,
        /// Its version.
        version: String,
    },
    /// It has another version or file.
    Updated {
        /// Package name.
        name: String,
        /// The version before.
        from: String,
        /// The version now.
        to: String,
    },
    /// Nothing asks for it any more.
    Removed {
        /// Package name.
        name: String,
        /// The version before.
        version: String,
    },
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// apt gave no answer.
    #[error(transparent)]
    Apt(#[from] apt::Error),
    /// A package is to be updated that is not asked for.
    #[error("`{name}` cannot be updated: nothing asks for it")]
    NotWanted {
        /// Package name.
        name: String,
    },
    /// The newest version's address and the indexes do not go together.
    #[error("apt names no usable file for `{name}`")]
    NoFile {
        /// Package name.
        name: String,
    },
}

/// Locks `wanted` for `target`. Entries of `old` for other targets stay; those for this one stay where they can still
/// be had and `refresh` does not say otherwise.
///
/// # Errors
/// Every variant of [`Error`].
pub fn update(
    wanted: &BTreeSet<&str>,
    old: &Lock,
    target: Architecture,
    refresh: &Refresh,
    (apt, mirror): (&Apt, &Mirror),
    ui: &Ui,
) -> Result<(Lock, Vec<Change>), Error> {
    if let Refresh::Packages(names) = refresh {
        if let Some(name) = names.iter().find(|name| !wanted.contains(name.as_str())) {
            return Err(Error::NotWanted { name: name.clone() });
        }
    }
    let names: Vec<&str> = wanted.iter().copied().collect();
    let uris = apt.candidates(&names, ui)?;
    let stanzas = apt.stanzas(&names, ui)?;
    let newest = newest(&uris, mirror);
    let locked = old.of(target);
    let mut packages: Vec<LockedPackage> =
        old.packages.iter().filter(|package| package.target != target).cloned().collect();
    for name in names {
        let known: Vec<&Stanza> = stanzas.iter().filter(|stanza| stanza.name == name).collect();
        packages.push(choose(name, locked.get(name).copied(), &known, &newest, target, refresh)?);
    }
    let lock = Lock::new(packages);
    let changes = changes(&locked, &lock.of(target));
    Ok((lock, changes))
}

/// Decoded paths of the newest versions, each with its archive.
fn newest(uris: &[String], mirror: &Mirror) -> BTreeMap<String, Archive> {
    let decoded = uris.iter().map(|uri| percent_decode(uri));
    decoded.filter_map(|uri| mirror.split(&uri).map(|(archive, path)| (path.to_owned(), archive))).collect()
}

fn choose(
    name: &str,
    locked: Option<&LockedPackage>,
    known: &[&Stanza],
    newest: &BTreeMap<String, Archive>,
    target: Architecture,
    refresh: &Refresh,
) -> Result<LockedPackage, Error> {
    let may_change = match refresh {
        Refresh::Nothing => false,
        Refresh::Packages(names) => names.contains(name),
        Refresh::Everything => true,
    };
    if let Some(locked) = locked.filter(|_| !may_change) {
        if known.iter().any(|stanza| stanza.path == locked.path && stanza.sha256 == locked.sha256) {
            return Ok(locked.clone());
        }
    }
    let found = known.iter().find_map(|stanza| newest.get(&stanza.path).map(|archive| (stanza, *archive)));
    let (stanza, archive) = found.ok_or_else(|| Error::NoFile { name: name.to_owned() })?;
    Ok(LockedPackage {
        name: stanza.name.clone(),
        target,
        version: stanza.version.clone(),
        architecture: stanza.architecture.clone(),
        archive,
        path: stanza.path.clone(),
        size: stanza.size,
        sha256: stanza.sha256.clone(),
        source: stanza.source.clone(),
        source_version: stanza.source_version.clone(),
    })
}

fn changes(before: &BTreeMap<&str, &LockedPackage>, after: &BTreeMap<&str, &LockedPackage>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (name, new) in after {
        let name = (*name).to_owned();
        match before.get(name.as_str()) {
            None => changes.push(Change::Added { name, version: new.version.clone() }),
            Some(old) if old != new => {
                changes.push(Change::Updated { name, from: old.version.clone(), to: new.version.clone() });
            }
            Some(_) => {}
        }
    }
    let removed = before.iter().filter(|(name, _)| !after.contains_key(*name));
    changes.extend(
        removed.map(|(name, old)| Change::Removed { name: (*name).to_owned(), version: old.version.clone() }),
    );
    changes
}

/// Decodes `%2b` and the like; apt writes addresses so, indexes do not.
fn percent_decode(text: &str) -> String {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(u8::is_ascii) {
            Some(byte) => {
                decoded.push(char::from(byte));
                decoded.push_str(&part[2..]);
            }
            None => {
                decoded.push('%');
                decoded.push_str(part);
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::lock::tests::locked;

    fn stanza(version: &str, sha256: &str) -> Stanza {
        let of = locked("crun");
        Stanza {
            name: of.name,
            version: version.to_owned(),
            architecture: of.architecture,
            path: format!("pool/main/x/crun_{version}_amd64.deb"),
            size: of.size,
            sha256: sha256.to_owned(),
            source: of.source,
            source_version: version.to_owned(),
        }
    }

    fn chosen(known: &[&Stanza], refresh: &Refresh) -> Result<String, Error> {
        let newest = BTreeMap::from([(stanza("3.0-1", "").path, Archive::Debian)]);
        let old = locked("crun");
        choose("crun", Some(&old), known, &newest, Architecture::X86_64, refresh).map(|found| found.version)
    }

    #[test]
    fn a_locked_version_stays_while_it_can_be_had() {
        let (old, new) = (stanza("2.0-1", &"ab".repeat(32)), stanza("3.0-1", "cd"));
        assert_eq!(chosen(&[&new, &old], &Refresh::Nothing).expect("kept"), "1:2.0-1");
        assert_eq!(chosen(&[&new, &old], &Refresh::Everything).expect("newest"), "3.0-1");
        let this = Refresh::Packages(BTreeSet::from(["crun".to_owned()]));
        assert_eq!(chosen(&[&new, &old], &this).expect("newest"), "3.0-1");
        let other = Refresh::Packages(BTreeSet::from(["tini".to_owned()]));
        assert_eq!(chosen(&[&new, &old], &other).expect("kept"), "1:2.0-1");
    }

    #[test]
    fn a_version_that_is_gone_or_has_other_bytes_gives_way() {
        let (new, changed) = (stanza("3.0-1", "cd"), stanza("2.0-1", "other"));
        assert_eq!(chosen(&[&new], &Refresh::Nothing).expect("newest"), "3.0-1");
        assert_eq!(chosen(&[&changed, &new], &Refresh::Nothing).expect("newest"), "3.0-1");
        assert!(matches!(chosen(&[], &Refresh::Nothing), Err(Error::NoFile { .. })));
    }

    #[test]
    fn changes_tell_what_came_went_and_moved() {
        let (kept, gone, mut moved, added) = (locked("a"), locked("b"), locked("c"), locked("d"));
        let before = Lock::new(vec![kept.clone(), gone, moved.clone()]);
        moved.version = "9".to_owned();
        let after = Lock::new(vec![kept, moved, added]);
        let target = Architecture::X86_64;
        let version = || "1:2.0-1".to_owned();
        assert_eq!(
            changes(&before.of(target), &after.of(target)),
            [
                Change::Updated { name: "c".to_owned(), from: version(), to: "9".to_owned() },
                Change::Added { name: "d".to_owned(), version: version() },
                Change::Removed { name: "b".to_owned(), version: version() },
            ]
        );
    }

    #[test]
    fn addresses_are_decoded_once() {
        assert_eq!(percent_decode("a%2bb%252b%zz%"), "a+b%2b%zz%");
    }
}
