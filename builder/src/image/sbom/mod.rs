//! The bill of materials: every package, every program of ours and every file of the image, the same bytes every time.
//!
//! One model, [`Contents`], two renderings: [`spdx`] and [`cyclonedx`]. No clock is read, so neither tells a date but the
//! epoch, and what has to be unique derives from the root hash. [`licence`] reads copyright files.

pub mod cyclonedx;
pub mod licence;
pub mod spdx;

use std::collections::BTreeSet;
use std::fs::File as HostFile;
use std::io::{self, Read};
use std::path::Path;

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use serde::Serialize;

use super::digest::{Sha256, to_hex};
use licence::Licence;

/// Code name of the Debian release that packages come from; vulnerability scanners match on it.
pub const SUITE: &str = "trixie";
/// The licence of this project.
const OUR_LICENCE: &str = "Apache-2.0";
/// Bytes read at a time.
const BUFFER_BYTES: usize = 64 * 1024;

/// A Debian package that something in the image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Binary package name.
    pub name: String,
    /// Version, epoch included.
    pub version: String,
    /// Debian architecture.
    pub architecture: String,
    /// The source package.
    pub source: Source,
    /// SHA-256 of the package file.
    pub sha256: Sha256,
    /// Licences of the source package; `None` where no machine can read its copyright file.
    pub licence: Option<Licence>,
}

/// A Debian source package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Source {
    /// Name.
    pub name: String,
    /// Version, epoch included.
    pub version: String,
}

/// What the build made: the kernel, and the programs of this project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Name; no package has the same.
    pub name: String,
    /// Version; `None` for programs, which the builder takes as files.
    pub version: Option<String>,
    /// SHA-256 of the file.
    pub sha256: Sha256,
    /// Its licences, if they are known.
    pub licence: Option<Licence>,
    /// Name of the package with its source; `None` for programs of ours.
    pub from: Option<String>,
}

impl Built {
    /// A program of this project.
    #[must_use]
    pub fn program(name: &str, sha256: Sha256) -> Self {
        let licence = Some(Licence::known(OUR_LICENCE));
        Self { name: name.to_owned(), version: None, sha256, licence, from: None }
    }
}

/// A regular file in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Absolute path in the image.
    pub path: String,
    /// Name of the package, or of what this project built, that it is from; `None` for a file of the image itself.
    pub package: Option<String>,
    /// SHA-1, which the format requires; 40 hexadecimal digits.
    pub sha1: String,
    /// SHA-256.
    pub sha256: Sha256,
}

impl File {
    /// A file by its content.
    ///
    /// # Errors
    /// What reading gave.
    pub fn read(path: &str, package: Option<&str>, mut content: impl Read) -> io::Result<Self> {
        let (mut sha1, mut sha256) = (Context::new(&SHA1_FOR_LEGACY_USE_ONLY), Context::new(&SHA256));
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let count = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            sha1.update(&buffer[..count]);
            sha256.update(&buffer[..count]);
        }
        let sha256 = sha256.finish();
        Ok(Self {
            path: path.to_owned(),
            package: package.map(str::to_owned),
            sha1: to_hex(sha1.finish().as_ref()),
            sha256: Sha256(sha256.as_ref().try_into().expect("SHA-256 gives 32 bytes")),
        })
    }

    /// A file that lies at `host` on this machine.
    ///
    /// # Errors
    /// What opening or reading gave.
    pub fn of_host_file(path: &str, package: Option<&str>, host: &Path) -> io::Result<Self> {
        Self::read(path, package, HostFile::open(host)?)
    }
}

/// Everything in an image.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Packages, those with the source of the kernel and the stub of the unified kernel image included.
    pub packages: Vec<Package>,
    /// What the build made.
    pub built: Vec<Built>,
    /// Regular files of the root file system.
    pub files: Vec<File>,
}

/// What a bill of materials is of.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Image name.
    pub name: &'a str,
    /// Image version.
    pub version: &'a str,
    /// Root hash.
    pub root_hash: Sha256,
}

impl Contents {
    /// The same, sorted by name and path.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        self.built.sort_by(|a, b| a.name.cmp(&b.name));
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        self
    }

    fn sources(&self) -> BTreeSet<&Source> {
        self.packages.iter().map(|package| &package.source).collect()
    }

    fn files_of<'a>(&'a self, owner: Option<&'a str>) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |file| self.owner(file) == owner)
    }

    /// The name of what a file is from; `None` for the image itself.
    fn owner<'a>(&self, file: &'a File) -> Option<&'a str> {
        let names = self.packages.iter().map(|package| &package.name);
        let mut names = names.chain(self.built.iter().map(|built| &built.name));
        file.package.as_deref().filter(|owner| names.any(|name| name == owner))
    }
}

impl Package {
    /// Package URL, with the source package as scanners want it.
    /// Format: <https://github.com/package-url/purl-spec/blob/main/types-doc/deb-definition.md>.
    #[must_use]
    pub fn url(&self) -> String {
        let Self { name, version, architecture, source, .. } = self;
        let upstream = percent_encode(&format!("{}@{}", source.name, source.version));
        format!("{}?arch={architecture}&distro={SUITE}&upstream={upstream}", url(name, version))
    }
}

impl Source {
    /// Package URL.
    #[must_use]
    fn url(&self) -> String {
        format!("{}?arch=source&distro={SUITE}", url(&self.name, &self.version))
    }
}

fn url(name: &str, version: &str) -> String {
    format!("pkg:deb/debian/{}@{}", percent_encode(name), percent_encode(version))
}

fn percent_encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The other way round. What is no escape stays.
fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('%') {
        bytes.extend_from_slice(plain.as_bytes());
        let byte = escape.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(b'%'));
        rest = if byte.is_some() { &escape[2..] } else { escape };
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The version in a package URL.
pub(super) fn version_of(url: &str) -> Option<String> {
    let (name, _) = url.split_once('?').unwrap_or((url, ""));
    name.rsplit_once('@').map(|(_, version)| percent_decode(version))
}

/// The code name of the Debian release in a package URL.
pub(super) fn release_of(url: &str) -> Option<&str> {
    let (_, qualifiers) = url.split_once('?')?;
    qualifiers.split('&').find_map(|qualifier| qualifier.strip_prefix("distro="))
}

/// The name of a file in a bill: digits of its path's digest.
fn file_name(file: &File) -> String {
    to_hex(&Sha256::of(&[file.path.as_bytes()]).0[..16])
}

#[cfg(test)]
pub(super) mod tests;
