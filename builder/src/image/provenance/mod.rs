//! Where an image comes from, signed by its key: an in-toto statement with SLSA's provenance in a DSSE envelope.
//!
//! Invariant: its subjects are what no signature changes, so that it is signed in one go with the manifest; and no clock, host or path
//! is in it, so that two builds from one lock of one checkout give the same bytes.

pub mod dsse;
pub mod statement;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use eci_contract::manifest::Manifest;

use super::assemble::KERNEL_CONFIG_FILE;
use super::digest::Sha256;
use super::uki::pe;
use super::{manifest, sbom};
use dsse::Envelope;
use statement::{Digests, Resource};

/// File name of the envelope.
pub const FILE: &str = "provenance.intoto.json";
/// File name of what the image's key signs for an image that is not signed yet.
pub const TO_BE_SIGNED_FILE: &str = "provenance.intoto.json.tbs";
/// Name of the subject that is no file: the root file system, by its dm-verity root hash.
const ROOT: &str = "root";
/// Upper bound on an envelope in bytes. Ours have 30 KiB; a thousand packages would have a tenth of it.
const MAX_BYTES: u64 = 4 << 20;

/// Why there is no provenance, or it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than any envelope may be.
    #[error("`{}` is larger than {MAX_BYTES} bytes", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The unified kernel image has no digest.
    #[error("cannot use the unified kernel image `{}`", .path.display())]
    Uki {
        /// The unified kernel image.
        path: PathBuf,
        /// Why not.
        source: pe::Error,
    },
    /// The envelope is none.
    #[error(transparent)]
    Envelope(#[from] dsse::Error),
    /// What is in it is no provenance.
    #[error(transparent)]
    Statement(#[from] statement::Error),
}

/// Where an image comes from, as far as its own files do not say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Everything that goes into it or was used on it, with digests.
    pub materials: Vec<Resource>,
    /// Versions of programs of the host that its bytes depend on, by the programs' names.
    pub toolchain: BTreeMap<String, String>,
}

/// What the provenance of the image in `folder` is about, by name: the artifacts that are the same before and after signing.
///
/// # Errors
/// [`Error::Read`] and [`Error::Uki`].
pub fn subjects(folder: &Path, manifest: &Manifest) -> Result<BTreeMap<String, Digests>, Error> {
    let read = |path: PathBuf| move |source| Error::Read { path, source };
    let mut subjects = BTreeMap::new();
    let (kernel, initrd) = (manifest.kernel.file.as_str(), manifest.initrd.file.as_str());
    for name in [manifest::FILE, kernel, initrd, KERNEL_CONFIG_FILE, sbom::spdx::FILE, sbom::cyclonedx::FILE]
    {
        let path = folder.join(name);
        let digest = Sha256::of_file(&path).map_err(read(path))?;
        subjects.insert(name.to_owned(), Digests::sha256(digest));
    }
    let path = folder.join(&manifest.uki.file);
    let image = fs::read(&path).map_err(read(path.clone()))?;
    let digest = pe::authenticode_digest(&image).map_err(|source| Error::Uki { path, source })?;
    subjects.insert(manifest.uki.file.clone(), Digests::authenticode(digest));
    subjects.insert(ROOT.to_owned(), Digests::root_hash(&manifest.root.root_hash));
    Ok(subjects)
}

/// Reads an envelope.
///
/// # Errors
/// [`Error::Read`], [`Error::TooLarge`], [`Error::Envelope`].
pub fn read(path: &Path) -> Result<Envelope, Error> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
        Ok(count) if u64::try_from(count).is_ok_and(|count| count <= MAX_BYTES) => {
            Ok(Envelope::parse(&bytes)?)
        }
        Ok(_) => Err(Error::TooLarge { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join(FILE);
        let said = |path: &Path| {
            let error = read(path).expect_err("none").to_string();
            error.replace(&format!("{}/", folder.path().display()), "")
        };
        assert_eq!(said(&path), "cannot read `provenance.intoto.json`");
        fs::write(&path, "{}").expect("written");
        assert_eq!(said(&path), "it is no DSSE envelope");
        let large = usize::try_from(MAX_BYTES).expect("small") + 1;
        fs::write(&path, vec![b' '; large]).expect("written");
        assert_eq!(said(&path), "`provenance.intoto.json` is larger than 4194304 bytes");
        let error =
            Error::Uki { path: "eci.efi".into(), source: pe::authenticode_digest(b"").expect_err("none") };
        assert_eq!(error.to_string(), "cannot use the unified kernel image `eci.efi`");
    }
}
