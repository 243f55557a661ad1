//! Reading a Debian package: an `ar` archive with a compressed tar of files (deb(5)). Streaming; nothing touches the
//! disk here.
//!
//! Invariant: an entry reaches the caller under a plain absolute path, as a folder, file, symbolic link or a kind that
//! the caller has to refuse. A package with a name that climbs is refused whole.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use tar::EntryType;

/// Why a package cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or its frame not be read.
    #[error("cannot read the package `{}`", .path.display())]
    Read {
        /// The package file.
        path: PathBuf,
        /// What was wrong.
        source: io::Error,
    },
    /// It has no member with files, or one in a compression that Debian does not use.
    #[error("`{}` has no data.tar.xz, data.tar.zst or data.tar", .path.display())]
    NoData {
        /// The package file.
        path: PathBuf,
    },
    /// An entry's name leaves the root, or is no text.
    #[error("`{}` has an entry with the name `{name}`", .path.display())]
    BadName {
        /// The package file.
        path: PathBuf,
        /// The name, lossily.
        name: String,
    },
}

/// One entry of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Absolute path, in its shortest form; `/` for the root.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Whether it has extended attributes, which file capabilities are.
    pub attributes: bool,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A file with a content of this many bytes.
    File(u64),
    /// A symbolic link and what it holds.
    Symlink(String),
    /// A hard link to another entry.
    HardLink,
    /// A device node, a named pipe, or something unheard of.
    Special,
}

/// Calls `visit` for each entry of the package at `path`, with a reader of its content.
///
/// # Errors
/// `E` from `visit`, or one made of [`Error`].
pub fn entries<E: From<Error>>(
    path: &Path,
    mut visit: impl FnMut(Entry, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut frame = ar::Archive::new(BufReader::new(file));
    while let Some(member) = frame.next_entry() {
        let member = member.map_err(failed)?;
        let name = member.header().identifier().to_owned();
        let Some(data) = decompress(&name, member) else { continue };
        let mut tar = tar::Archive::new(data.map_err(failed)?);
        for entry in tar.entries().map_err(failed)? {
            let mut entry = entry.map_err(failed)?;
            let described = describe(path, &mut entry)?;
            visit(described, &mut entry)?;
        }
        return Ok(());
    }
    Err(Error::NoData { path: path.to_owned() }.into())
}

/// The content of the regular file at an absolute `wanted` path in the package; `None` where it has none.
///
/// # Errors
/// [`Error`].
pub fn file(package: &Path, wanted: &str) -> Result<Option<Vec<u8>>, Error> {
    let mut found = None;
    entries(package, |entry, content| {
        if entry.path == wanted && matches!(entry.kind, Kind::File(_)) {
            let mut bytes = Vec::new();
            let failed = |source| Error::Read { path: package.to_owned(), source };
            content.read_to_end(&mut bytes).map_err(failed)?;
            found = Some(bytes);
        }
        Ok::<_, Error>(())
    })?;
    Ok(found)
}

/// A reader of the member's tar, or `None` for a member that holds no files.
fn decompress<'a>(name: &[u8], member: impl Read + 'a) -> Option<io::Result<Box<dyn Read + 'a>>> {
    match name {
        b"data.tar" => Some(Ok(Box::new(member))),
        b"data.tar.xz" => Some(Ok(Box::new(xz2::read::XzDecoder::new(member)))),
        b"data.tar.zst" => Some(zstd::Decoder::new(member).map(|data| Box::new(data) as Box<dyn Read>)),
        _ => None,
    }
}

fn describe(package: &Path, entry: &mut tar::Entry<'_, impl Read>) -> Result<Entry, Error> {
    let failed = |source| Error::Read { path: package.to_owned(), source };
    let attributes = match entry.pax_extensions().map_err(failed)? {
        None => false,
        Some(mut extensions) => extensions.any(|extension| {
            extension.is_ok_and(|extension| extension.key_bytes().starts_with(b"SCHILY.xattr."))
        }),
    };
    let name = entry.path_bytes().into_owned();
    let plain = absolute(&name).ok_or_else(|| bad_name(package, &name))?;
    let header = entry.header();
    let kind = match header.entry_type() {
        EntryType::Directory => Kind::Folder,
        EntryType::Regular | EntryType::Continuous => Kind::File(entry.size()),
        EntryType::Symlink => {
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            Kind::Symlink(String::from_utf8(target).map_err(|error| bad_name(package, error.as_bytes()))?)
        }
        EntryType::Link => Kind::HardLink,
        _ => Kind::Special,
    };
    let mode = header.mode().map_err(failed)? & 0o7777;
    Ok(Entry { path: plain, kind, mode, attributes })
}

/// `./usr/bin/` becomes `/usr/bin`; a name that climbs or is no text becomes `None`.
fn absolute(name: &[u8]) -> Option<String> {
    let mut plain = String::new();
    for component in Path::new(OsStr::from_bytes(name)).components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => {
                plain.push('/');
                plain.push_str(part.to_str()?);
            }
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(if plain.is_empty() { "/".to_owned() } else { plain })
}

fn bad_name(package: &Path, name: &[u8]) -> Error {
    Error::BadName { path: package.to_owned(), name: String::from_utf8_lossy(name).into_owned() }
}

#[cfg(test)]
pub(crate) mod tests;
