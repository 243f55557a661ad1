//! The closure of programs and libraries: everything that a program needs is in the image, and every library is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use eci_contract::manifest::Architecture;
use object::elf::{self, FileHeader64};
use object::endian::Endianness;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};

use super::resolve::{Destination, resolve};
use super::tree::{Kind, Origin, Tree};

/// Why the closure does not hold.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the tree cannot be read back.
    #[error("cannot read `{path}` of the root file system")]
    Read {
        /// Path in the image.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file begins as a program does and is none.
    #[error("`{path}`, from {origin}, is not a sound ELF file")]
    Malformed {
        /// Path in the image.
        path: String,
        /// Who brought it.
        origin: Box<Origin>,
        /// What the parser said.
        source: object::read::Error,
    },
    /// A program is for another processor.
    #[error("`{path}`, from {origin}, is not for {}", .target.as_str())]
    Foreign {
        /// Path in the image.
        path: String,
        /// Who brought it.
        origin: Box<Origin>,
        /// What the image is for.
        target: Architecture,
    },
    /// A library or loader is missing.
    #[error("`{path}`, from {origin}, needs `{needed}`, which no rule brings in")]
    Missing {
        /// Path in the image.
        path: String,
        /// Who brought it.
        origin: Box<Origin>,
        /// Name of a library, or path of a loader.
        needed: String,
    },
    /// A library is there for nobody.
    #[error("`{path}`, from {origin}, is a library that nothing needs")]
    Unused {
        /// Path in the image.
        path: String,
        /// Who brought it.
        origin: Box<Origin>,
    },
}

/// What a program or library needs to be loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Needs {
    loader: Option<String>,
    libraries: Vec<String>,
}

/// Checks the closure of all programs and libraries in the tree.
///
/// # Errors
/// Every variant of [`Error`].
pub fn check_closure(tree: &Tree, target: Architecture) -> Result<(), Error> {
    let folders = library_folders(target);
    let mut used = BTreeSet::new();
    for (path, needs) in read_all(tree, target)? {
        let libraries =
            needs.libraries.iter().map(|name| (name, folders.map(|at| format!("{at}/{name}")).to_vec()));
        let loader = needs.loader.iter().map(|path| (path, vec![path.clone()]));
        for (needed, places) in libraries.chain(loader) {
            let Some(found) = places.iter().find_map(|place| reach(tree, place)) else {
                let origin = Box::new(tree.get(&path).map_or(Origin::Parent, |node| node.origin.clone()));
                return Err(Error::Missing { path, origin, needed: needed.clone() });
            };
            used.extend(found);
        }
    }
    let in_library_folder =
        |path: &str| path.rsplit_once('/').is_some_and(|(folder, _)| folders.contains(&folder));
    for (path, node) in tree.nodes() {
        let library = path.contains(".so") && in_library_folder(path);
        if library && !matches!(node.kind, Kind::Folder { .. }) && !used.contains(path) {
            return Err(Error::Unused { path: path.to_owned(), origin: Box::new(node.origin.clone()) });
        }
    }
    Ok(())
}

/// Where Debian's loader looks without a configuration, in its order.
fn library_folders(target: Architecture) -> [&'static str; 3] {
    match target {
        Architecture::X86_64 => ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"],
        Architecture::Aarch64 => ["/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"],
    }
}

/// The file at `place` and the links on the way.
fn reach(tree: &Tree, place: &str) -> Option<Vec<String>> {
    let Destination::Node { path, mut links } = resolve(tree, place) else { return None };
    matches!(tree.get(&path)?.kind, Kind::File { .. }).then(|| {
        links.push(path);
        links
    })
}

fn read_all(tree: &Tree, target: Architecture) -> Result<BTreeMap<String, Needs>, Error> {
    let mut all = BTreeMap::new();
    for (path, node) in tree.nodes() {
        if !matches!(node.kind, Kind::File { .. }) {
            continue;
        }
        let bytes =
            fs::read(tree.on_disk(path)).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        if !bytes.starts_with(&elf::ELFMAG) {
            continue;
        }
        let (machine, needs) = parse(&bytes).map_err(|source| Error::Malformed {
            path: path.to_owned(),
            origin: Box::new(node.origin.clone()),
            source,
        })?;
        if machine != machine_of(target) {
            return Err(Error::Foreign {
                path: path.to_owned(),
                origin: Box::new(node.origin.clone()),
                target,
            });
        }
        all.insert(path.to_owned(), needs);
    }
    Ok(all)
}

/// Machine and needs of an ELF file.
fn parse(bytes: &[u8]) -> Result<(u16, Needs), object::read::Error> {
    let header = FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let mut needs = Needs::default();
    for segment in header.program_headers(endian, bytes)? {
        if let Some(loader) = segment.interpreter(endian, bytes)? {
            needs.loader = Some(String::from_utf8_lossy(loader).into_owned());
        }
    }
    let sections = header.sections(endian, bytes)?;
    if let Some((entries, names)) = sections.dynamic(endian, bytes)? {
        let names = sections.strings(endian, bytes, names)?;
        for entry in entries.iter().filter(|entry| entry.tag32(endian) == Some(elf::DT_NEEDED)) {
            needs.libraries.push(String::from_utf8_lossy(entry.string(endian, names)?).into_owned());
        }
    }
    Ok((header.e_machine(endian), needs))
}

fn machine_of(target: Architecture) -> u16 {
    match target {
        Architecture::X86_64 => elf::EM_X86_64,
        Architecture::Aarch64 => elf::EM_AARCH64,
    }
}

#[cfg(test)]
mod tests;
