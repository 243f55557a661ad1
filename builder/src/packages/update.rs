//! Making a lock: which version of each package that a plan asks for, and what changed. Only `eci-builder lock` does
//! so; a build takes what is locked.

use std::collections::{BTreeMap, BTreeSet};

use eci_contract::manifest::Architecture;
use serde::Serialize;

use super::apt::{self, Apt, Stanza};
use super::mirror::Mirror;
use crate::plan::lock::{Archive, Lock, LockedPackage, debian_architecture};
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
    /// The newest version's address and the indexes do not go together.
    #[error("apt names no usable file for `{name}`")]
    NoFile {
        /// Package name.
        name: String,
    },
}

/// Names of `wanted` and of all packages that they depend on; one that is not for the architecture `native` has its own behind a `:`.
///
/// # Errors
/// What apt says where they cannot be installed together.
pub fn closure(
    wanted: &BTreeSet<&str>,
    native: Architecture,
    apt: &Apt,
    ui: &Ui,
) -> Result<BTreeSet<String>, Error> {
    let names: Vec<&str> = wanted.iter().copied().collect();
    let uris = apt.closure(&names, ui)?;
    Ok(uris.iter().filter_map(|uri| name_of_file(&percent_decode(uri), native)).collect())
}

/// `…/gcc_4%3a14.2.0-1_amd64.deb` is of the package `gcc`.
fn name_of_file(path: &str, native: Architecture) -> Option<String> {
    let (_, file) = path.rsplit_once('/')?;
    let (name, rest) = file.split_once('_')?;
    let (_, architecture) = rest.strip_suffix(".deb")?.rsplit_once('_')?;
    let is_native = architecture == "all" || architecture == debian_architecture(native);
    Some(if is_native { name.to_owned() } else { format!("{name}:{architecture}") })
}

/// Locks `wanted`, which are for the architecture `native` where they do not say otherwise, for `target`. Entries of `old` for other
/// targets stay; those for this one stay where they can still be had and `refresh` does not say otherwise.
///
/// # Errors
/// Every variant of [`Error`].
pub fn update(
    wanted: &BTreeSet<&str>,
    old: &Lock,
    (native, target): (Architecture, Architecture),
    refresh: &Refresh,
    (apt, mirror): (&Apt, &Mirror),
    ui: &Ui,
) -> Result<(Lock, Vec<Change>), Error> {
    let names: Vec<&str> = wanted.iter().copied().collect();
    let uris = apt.candidates(&names, ui)?;
    let stanzas = apt.stanzas(&names, ui)?;
    let newest = newest(&uris, mirror);
    let locked = old.of(target);
    let mut packages: Vec<LockedPackage> =
        old.packages.iter().filter(|package| package.target != target).cloned().collect();
    for name in names {
        let known: Vec<&Stanza> = stanzas.iter().filter(|stanza| is_of(stanza, name, native)).collect();
        packages.push(choose(name, locked.get(name).copied(), &known, &newest, target, refresh)?);
    }
    let lock = Lock::new(packages);
    let changes = changes(&locked, &lock.of(target));
    Ok((lock, changes))
}

/// Whether it is the package that `name` stands for.
fn is_of(stanza: &Stanza, name: &str, native: Architecture) -> bool {
    match name.split_once(':') {
        Some((name, architecture)) => stanza.name == name && stanza.architecture == architecture,
        None => {
            let native = [debian_architecture(native), "all"];
            stanza.name == name && native.contains(&stanza.architecture.as_str())
        }
    }
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
        name: name.to_owned(),
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
    fn a_file_s_name_has_package_and_architecture() {
        let name = |file| name_of_file(&format!("http://m.invalid/pool/{file}"), Architecture::X86_64);
        assert_eq!(name("gcc_4%3a14.2.0-1_amd64.deb").as_deref(), Some("gcc"));
        assert_eq!(name("linux-libc-dev_6.12.1-1_all.deb").as_deref(), Some("linux-libc-dev"));
        assert_eq!(name("libstd-rust-dev_1.85.1_arm64.deb").as_deref(), Some("libstd-rust-dev:arm64"));
        assert_eq!(name("noise"), None);
    }

    #[test]
    fn a_name_stands_for_one_architecture() {
        let (native, mut foreign) = (stanza("1", "ab"), stanza("1", "ab"));
        foreign.architecture = "arm64".to_owned();
        let is = |stanza: &Stanza, name| is_of(stanza, name, Architecture::X86_64);
        assert!(is(&native, "crun") && is(&foreign, "crun:arm64"));
        assert!(!is(&foreign, "crun") && !is(&native, "crun:arm64") && !is(&native, "tini"));
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
