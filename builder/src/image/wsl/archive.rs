//! Writing the archive, and reading one back to what it was made of.
//!
//! Invariant: what [`open`] accepts is byte for byte what [`write()`] makes of the parts that it gives, compression aside.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use ring::digest::{Context, Digest, SHA256};
use tar::{EntryType, Header};
use tempfile::NamedTempFile;

use super::members::{Content, Kind, MEMBERS, Member, Parts, distribution};

/// First bytes of every gzip file with deflate in it (RFC 1952).
pub const MAGIC: &[u8] = &[0x1f, 0x8b, 8];
/// Larger members are not read into memory; the largest is PID 1, with 2 MiB.
const MAX_SMALL_BYTES: u64 = 64 << 20;
/// Neither is the root copied when it is larger than any of ours by far: 80 MB.
const MAX_ROOT_BYTES: u64 = 4 << 30;

/// Why an archive cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot {operation} `{}`", .path.display())]
    File {
        /// "read" or "write".
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It has another member than it should at a place.
    #[error("`{}` is no archive of ours: {what}", .path.display())]
    Foreign {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// Writes the archive as the new file `to`. Equal parts give equal bytes: no clock, owner 0, one order.
///
/// # Errors
/// [`Error::File`].
pub fn write(parts: &Parts<'_>, to: &Path) -> Result<(), Error> {
    let failed = |source| Error::File { operation: "write", path: to.to_owned(), source };
    let file = OpenOptions::new().write(true).create_new(true).open(to).map_err(failed)?;
    let encoder: GzEncoder<_> =
        GzBuilder::new().mtime(0).operating_system(255).write(BufWriter::new(file), Compression::default());
    let encoder = write_members(parts, encoder).map_err(failed)?;
    encoder.finish().and_then(|mut file| file.flush()).map_err(failed)
}

fn write_members<W: Write>(parts: &Parts<'_>, to: W) -> io::Result<W> {
    let mut tar = tar::Builder::new(to);
    let distribution = distribution(parts.name);
    for member in MEMBERS {
        match &member.kind {
            Kind::Folder(_) | Kind::Link(_) => tar.append(&header(member, 0)?, io::empty())?,
            Kind::File(_, Content::Root) => {
                let file = File::open(parts.root)?;
                let size = file.metadata()?.len();
                tar.append(&header(member, size)?, BufReader::new(file))?;
            }
            Kind::File(_, content) => {
                let bytes = match content {
                    Content::Init => parts.init,
                    Content::Key => parts.key,
                    Content::Manifest => parts.manifest,
                    Content::Signature => parts.signature,
                    Content::Tree => parts.tree,
                    Content::Distribution => distribution.as_bytes(),
                    Content::Fixed(text) => text.as_bytes(),
                    Content::Root => unreachable!("it was matched before"),
                };
                let size = u64::try_from(bytes.len()).map_err(io::Error::other)?;
                tar.append(&header(member, size)?, bytes)?;
            }
        }
    }
    tar.into_inner()
}

fn header(member: &Member, size: u64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_path(member.path)?;
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    match &member.kind {
        Kind::Folder(mode) => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(*mode);
        }
        Kind::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            header.set_link_name(target)?;
            header.set_mode(0o777);
        }
        Kind::File(mode, _) => {
            header.set_entry_type(EntryType::Regular);
            header.set_mode(*mode);
        }
    }
    header.set_cksum();
    Ok(header)
}

/// An archive's parts.
#[derive(Debug, Default)]
pub struct Opened {
    name: String,
    /// PID 1.
    pub init: Vec<u8>,
    /// Public key, raw.
    pub key: Vec<u8>,
    /// The manifest.
    pub manifest: Vec<u8>,
    /// Its signature.
    pub signature: Vec<u8>,
    /// Superblock and hash tree.
    pub tree: Vec<u8>,
    /// A copy of the root file system's image.
    pub root: Option<NamedTempFile>,
}

impl Opened {
    /// The parts, to write them again; `None` without a root, which [`open`] never gives.
    #[must_use]
    pub fn parts(&self) -> Option<Parts<'_>> {
        Some(Parts {
            name: &self.name,
            init: &self.init,
            key: &self.key,
            manifest: &self.manifest,
            signature: &self.signature,
            root: self.root.as_ref()?.path(),
            tree: &self.tree,
        })
    }
}

/// Reads an archive. It has to have each member once, in order, with the same metadata and fixed contents that [`write()`] gives it,
/// and nothing else.
///
/// # Errors
/// [`Error`].
pub fn open(path: &Path) -> Result<Opened, Error> {
    let read = |source| Error::File { operation: "read", path: path.to_owned(), source };
    let foreign = |what: String| Error::Foreign { path: path.to_owned(), what };
    let file = File::open(path).map_err(read)?;
    let mut stream = Hashed::new(GzDecoder::new(BufReader::new(file)));
    let opened = read_members(&mut stream).map_err(|error| match error {
        Reading::Io(source) => read(source),
        Reading::Foreign(what) => foreign(what),
    })?;
    io::copy(&mut stream, &mut io::sink()).map_err(read)?;
    let (found, decoder) = stream.finish();
    // Whoever unpacks it with another program may go on with what follows the first stream.
    if io::copy(&mut decoder.into_inner(), &mut io::sink()).map_err(read)? > 0 {
        return Err(foreign("something follows the archive".to_owned()));
    }
    let parts = opened.parts().ok_or_else(|| foreign("it has no root file system".to_owned()))?;
    let again = write_members(&parts, Hashed::new(io::sink())).map_err(read)?;
    if again.finish().0.as_ref() == found.as_ref() {
        Ok(opened)
    } else {
        Err(foreign("a member's metadata, or what is between members, differs".to_owned()))
    }
}

enum Reading {
    Io(io::Error),
    Foreign(String),
}

impl From<io::Error> for Reading {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn read_members(stream: &mut impl Read) -> Result<Opened, Reading> {
    let mut opened = Opened::default();
    let mut members = MEMBERS.iter();
    let mut archive = tar::Archive::new(stream);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let found = String::from_utf8_lossy(&entry.path_bytes()).trim_end_matches('/').to_owned();
        let Some(member) = members.next() else {
            return Err(Reading::Foreign(format!("`{found}` is one member too many")));
        };
        if found != member.path {
            return Err(Reading::Foreign(format!("`{found}` is where `{}` should be", member.path)));
        }
        read_member(member, &mut entry, &mut opened)?;
    }
    match members.next() {
        None => Ok(opened),
        Some(missing) => Err(Reading::Foreign(format!("`{}` is missing", missing.path))),
    }
}

fn read_member(
    member: &Member,
    entry: &mut tar::Entry<'_, impl Read>,
    opened: &mut Opened,
) -> Result<(), Reading> {
    let Kind::File(_, content) = member.kind else { return Ok(()) };
    if content == Content::Root {
        if entry.size() > MAX_ROOT_BYTES {
            return Err(Reading::Foreign(format!("`{}` has {} bytes", member.path, entry.size())));
        }
        let mut file = NamedTempFile::new()?;
        io::copy(entry, &mut file)?;
        file.rewind()?;
        opened.root = Some(file);
        return Ok(());
    }
    if entry.size() > MAX_SMALL_BYTES {
        return Err(Reading::Foreign(format!("`{}` has {} bytes", member.path, entry.size())));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes)?;
    match content {
        Content::Init => opened.init = bytes,
        Content::Key => opened.key = bytes,
        Content::Manifest => opened.manifest = bytes,
        Content::Signature => opened.signature = bytes,
        Content::Tree => opened.tree = bytes,
        Content::Distribution => {
            let text = String::from_utf8_lossy(&bytes);
            let name = text.lines().find_map(|line| line.strip_prefix("defaultName="));
            name.unwrap_or_default().clone_into(&mut opened.name);
        }
        Content::Fixed(text) if bytes == text.as_bytes() => {}
        Content::Fixed(_) => return Err(Reading::Foreign(format!("`{}` differs", member.path))),
        Content::Root => unreachable!("it was matched before"),
    }
    Ok(())
}

/// A stream with the digest of all that went through it.
struct Hashed<S> {
    stream: S,
    digest: Context,
}

impl<S> Hashed<S> {
    fn new(stream: S) -> Self {
        Self { stream, digest: Context::new(&SHA256) }
    }

    fn finish(self) -> (Digest, S) {
        (self.digest.finish(), self.stream)
    }
}

impl<S: Read> Read for Hashed<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.digest.update(&buffer[..count]);
        Ok(count)
    }
}

impl<S: Write> Write for Hashed<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.stream.write(bytes)?;
        self.digest.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests;
