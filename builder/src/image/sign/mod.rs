//! Signatures for an image that was built without: taken from keys, from tokens, or from whoever has the keys on another machine.
//!
//! Invariant: what is put in place is what `verify` accepts, with the key and the certificate that the folder was built for; until
//! then nothing of the folder changes.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use eci_contract::disk::{ESP_NAME, Slot};
use eci_contract::manifest::Manifest;

use super::assemble::{self, CERTIFICATE_FILE, KEY_FILE, Placed, TO_BE_SIGNED_FILES, disk_file};
use super::digest::Sha256;
use super::esp::Esp;
use super::formats::{self, Format};
use super::provenance::{self, dsse::Envelope};
use super::secure_boot::{self, Certificate, Signer, root_hash};
use super::signature::{self, PublicKey, SIGNATURE_BYTES, SigningKey};
use super::signature_partition::{self, Signed};
use super::sums::{self, Sums};
use super::token::{self, Algorithm, Uri};
use super::verify::{self, Expected};
use super::{apple, disk, esp, manifest, uki, wsl};
use crate::staging::{self, Staging};
use crate::ui::{Ui, human_size};

/// No signature is larger: the largest form is a signed unified kernel image, of which ours has 13 MiB.
const MAX_SIGNATURE_BYTES: u64 = 512 << 20;

/// Why a folder is not signed.
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
    /// The manifest is none of ours.
    #[error("cannot use `{}`", .path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Why not.
        source: manifest::Error,
    },
    /// The provenance is none.
    #[error("cannot use `{}`", .path.display())]
    Provenance {
        /// The provenance.
        path: PathBuf,
        /// Why not.
        source: provenance::Error,
    },
    /// There is nothing to do.
    #[error("`{}` is signed already", .folder.display())]
    Signed {
        /// The folder.
        folder: PathBuf,
    },
    /// A file is not the one that the build left there.
    #[error("`{}` is not what {} says", .path.display(), sums::FILE)]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The folder has no disk image of a form that we know.
    #[error("`{}` has no disk image", .folder.display())]
    NoDisk {
        /// The folder.
        folder: PathBuf,
    },
    /// The disk image lacks a partition.
    #[error("`{}` has no single partition `{name}`", .path.display())]
    NoPartition {
        /// The disk image.
        path: PathBuf,
        /// Name of the partition.
        name: &'static str,
    },
    /// The image's key cannot be read.
    #[error(transparent)]
    Key(#[from] signature::Error),
    /// The Secure Boot key or its certificate cannot be used.
    #[error(transparent)]
    SecureBoot(#[from] secure_boot::Error),
    /// The key is not the one that the image trusts.
    #[error("`{}` is key {found}; the image is built for key {wanted}", .path.display())]
    OtherKey {
        /// The key file.
        path: PathBuf,
        /// Id of the key in it.
        found: String,
        /// Id of the key in the image.
        wanted: String,
    },
    /// The file is no Ed25519 signature.
    #[error("`{from}` has {bytes} bytes; an Ed25519 signature has {SIGNATURE_BYTES}")]
    NotEd25519 {
        /// The file.
        from: String,
        /// Its size.
        bytes: usize,
    },
    /// The token does not sign.
    #[error(transparent)]
    Token(#[from] token::Error),
    /// The signature is one of something else, or of somebody else.
    #[error("`{from}` is not a signature of `{}` by key {key}", .signed.display())]
    OtherSignature {
        /// The signature's file, or the token that made it.
        from: String,
        /// What it should be a signature of.
        signed: PathBuf,
        /// Id of the key in the image.
        key: String,
    },
    /// The unified kernel image cannot be signed.
    #[error("cannot sign `{}`", .path.display())]
    Uki {
        /// The unified kernel image.
        path: PathBuf,
        /// Why not.
        source: secure_boot::SignatureError,
    },
    /// The signature of the unified kernel image is none that firmware would take.
    #[error("`{from}` is not a signature of `{}`", .signed.display())]
    OtherUki {
        /// The signature's file, or the token that made it.
        from: String,
        /// The unified kernel image.
        signed: PathBuf,
        /// Why not, of the image with the signature on it.
        source: secure_boot::SignatureError,
    },
    /// The root hash cannot be signed.
    #[error("cannot sign the root hash")]
    RootHash(#[source] root_hash::Error),
    /// The signature of the root hash is none that the kernel would take.
    #[error("`{from}` is not a signature of the root hash")]
    OtherRootHash {
        /// The signature's file, or the token that made it.
        from: String,
        /// Why not.
        source: root_hash::Error,
    },
    /// The signed unified kernel image does not go onto its partition.
    #[error("cannot make the EFI system partition")]
    Esp(#[from] esp::Error),
    /// A disk image cannot be read or written.
    #[error("cannot make the disk image")]
    Disk(#[from] disk::Error),
    /// A disk image cannot be converted.
    #[error("cannot convert the disk image")]
    Format(#[from] formats::Error),
    /// The distro for WSL cannot be read.
    #[error("cannot sign the distro for WSL")]
    Wsl(#[from] wsl::Error),
    /// Something else cannot be written.
    #[error(transparent)]
    Place(#[from] assemble::Error),
    /// The output folder cannot be used.
    #[error("cannot write the artifacts")]
    Staging(#[from] staging::Error),
    /// What was made cannot be looked at.
    #[error("cannot verify what was signed")]
    Verify(#[from] verify::Error),
    /// With its signatures the image still is not one that `verify` accepts.
    #[error("signed, `{}` would not hold: {}", .folder.display(), .failures.join("; "))]
    Unsound {
        /// The folder.
        folder: PathBuf,
        /// The checks that failed, with their reasons.
        failures: Vec<String>,
    },
}

/// Where a signature comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// This private key, a PEM file.
    Key(PathBuf),
    /// A private key on a token.
    Token(Box<Uri>),
    /// This file, made with the key elsewhere.
    Signature(PathBuf),
}

/// Where the signatures come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Ed25519, over the bytes of `manifest.json`. A signature is its 64 bytes.
    pub manifest: Source,
    /// Ed25519 by the same key, over the bytes of `provenance.intoto.json.tbs`.
    pub provenance: Source,
    /// RSA, for the unified kernel image. A signature has one of the forms of [`secure_boot::attach`].
    pub secure_boot: Source,
    /// RSA by the same key, for the root hash. A signature has one of the forms of [`root_hash::accept`].
    pub root_hash: Source,
}

/// Signs an output folder that was built with [`assemble::Signing::Later`]. Keys give the bytes that a build with them gives.
///
/// # Errors
/// [`Error`]; the folder is as it was before, unless the putting in place itself fails.
pub fn sign(folder: &Path, by: &Sources, ui: &Ui) -> Result<Vec<Placed>, Error> {
    let stage = ui.stage("signatures");
    let image = Unsigned::read(folder)?;
    let signed = Signed {
        root_hash: image.manifest.root.root_hash.clone(),
        fingerprint: image.certificate.fingerprint(),
        root_hash_signature: image.signed_root_hash(&by.root_hash)?,
        signature: image.signature(&by.manifest, &image.bytes, manifest::FILE)?,
        manifest: image.bytes.clone(),
    };
    let provenance = image.signed_provenance(&by.provenance)?;
    let uki = image.signed_uki(&by.secure_boot)?;
    stage.done(&format!("key {}, {}", image.key.id(), image.certificate.name()));

    let staging = Staging::beside(folder)?;
    let names = image.stage_unchanged(&staging)?;
    assemble::write(&staging, manifest::SIGNATURE_FILE, &signed.signature)?;
    assemble::write(&staging, root_hash::FILE, &signed.root_hash_signature)?;
    assemble::write(&staging, provenance::FILE, &provenance)?;
    assemble::write(&staging, uki::FILE, &uki)?;
    let stage = ui.stage("disk");
    let bytes = image.stage_disks(&signed, &uki, &staging, ui)?;
    stage.done(&human_size(bytes));
    image.stage_distro(&signed, &staging)?;
    let stage = ui.stage("verify");
    assemble::sum(&staging, &names)?;
    image.verify(&staging, ui)?;
    let placed = assemble::place(staging, &names, folder)?;
    stage.done("");
    Ok(placed)
}

/// A folder that waits for its signatures.
struct Unsigned<'a> {
    folder: &'a Path,
    bytes: Vec<u8>,
    manifest: Manifest,
    key: PublicKey,
    certificate: Certificate,
    sums: Sums,
}

impl<'a> Unsigned<'a> {
    /// Reads the folder and holds every file but the disks against its sum: what was damaged on the way is not signed.
    fn read(folder: &'a Path) -> Result<Self, Error> {
        let path = |name: &str| folder.join(name);
        let read =
            |name: &str| fs::read(path(name)).map_err(|source| Error::Read { path: path(name), source });
        let bytes = read(manifest::FILE)?;
        let malformed = |source| Error::Manifest { path: path(manifest::FILE), source };
        let manifest = manifest::parse(&bytes).map_err(malformed)?;
        if !read(manifest::SIGNATURE_FILE)?.is_empty() {
            return Err(Error::Signed { folder: folder.to_owned() });
        }
        let text = read(sums::FILE)?;
        let sums = Sums::parse(&String::from_utf8_lossy(&text));
        let sums = sums.map_err(|_| Error::Changed { path: path(sums::FILE) })?;
        let key = PublicKey::read(&path(KEY_FILE))?;
        let certificate = Certificate::read(&path(CERTIFICATE_FILE))?;
        if let Some(on) = certificate.expired(SystemTime::now()) {
            return Err(secure_boot::Error::Expired { path: path(CERTIFICATE_FILE), on }.into());
        }
        let image = Self { folder, bytes, manifest, key, certificate, sums };
        image.check_sums(|name| !image.is_disk(name))?;
        Ok(image)
    }

    fn check_sums(&self, of: impl Fn(&str) -> bool) -> Result<(), Error> {
        for (name, sum) in self.sums.0.iter().filter(|(name, _)| of(name)) {
            let path = self.path(name);
            match Sha256::of_file(&path) {
                Ok(digest) if digest == *sum => {}
                Ok(_) => return Err(Error::Changed { path }),
                Err(source) => return Err(Error::Read { path, source }),
            }
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The image's signature of `message`, which is what the file `name` of the folder has.
    fn signature(&self, source: &Source, message: &[u8], name: &str) -> Result<Vec<u8>, Error> {
        match source {
            Source::Key(path) => {
                let key = SigningKey::read(path)?;
                let (found, wanted) = (key.public().id(), self.key.id());
                if key.public() == self.key {
                    Ok(key.sign(message).to_vec())
                } else {
                    Err(Error::OtherKey { path: path.clone(), found, wanted })
                }
            }
            Source::Token(uri) => {
                let signature = token::sign(uri, Algorithm::Ed25519, message)?;
                self.check_signature(signature, uri.to_string(), message, name)
            }
            Source::Signature(path) => {
                self.check_signature(read_signature(path)?, path.display().to_string(), message, name)
            }
        }
    }

    fn check_signature(
        &self,
        signature: Vec<u8>,
        from: String,
        message: &[u8],
        name: &str,
    ) -> Result<Vec<u8>, Error> {
        if signature.len() != SIGNATURE_BYTES {
            return Err(Error::NotEd25519 { from, bytes: signature.len() });
        }
        if self.key.verifies(message, &signature) {
            return Ok(signature);
        }
        Err(Error::OtherSignature { from, signed: self.path(name), key: self.key.id() })
    }

    /// The provenance's bytes with the image's signature.
    fn signed_provenance(&self, source: &Source) -> Result<Vec<u8>, Error> {
        let path = self.path(provenance::FILE);
        let envelope = provenance::read(&path).map_err(|source| Error::Provenance { path, source })?;
        let envelope = Envelope::unsigned(envelope.statement().to_owned());
        let signature = self.signature(source, &envelope.to_be_signed(), provenance::TO_BE_SIGNED_FILE)?;
        Ok(envelope.signed(&self.key, &signature).to_bytes())
    }

    fn signed_uki(&self, source: &Source) -> Result<Vec<u8>, Error> {
        let at = self.path(uki::FILE);
        let image = fs::read(&at).map_err(|source| Error::Read { path: at.clone(), source })?;
        let failed = |source| Error::Uki { path: at.clone(), source };
        let (signature, from) = match source {
            Source::Key(path) => {
                let signer = Signer::read(path, &self.path(CERTIFICATE_FILE))?;
                return secure_boot::sign(&image, &signer).map_err(failed);
            }
            Source::Token(uri) => {
                let message = secure_boot::to_be_signed(&image).map_err(failed)?;
                (token::sign(uri, Algorithm::RsaSha256, &message)?, uri.to_string())
            }
            Source::Signature(path) => (read_signature(path)?, path.display().to_string()),
        };
        let attached = secure_boot::attach(&image, &signature, &self.certificate);
        attached.map_err(|source| Error::OtherUki { from, signed: at, source })
    }

    /// The signature of the root hash.
    fn signed_root_hash(&self, source: &Source) -> Result<Vec<u8>, Error> {
        let root_hash = self.manifest.root.root_hash.parse().expect("a parsed manifest has a root hash");
        let (signature, from) = match source {
            Source::Key(path) => {
                let signer = Signer::read(path, &self.path(CERTIFICATE_FILE))?;
                return root_hash::sign(root_hash, &signer).map_err(Error::RootHash);
            }
            Source::Token(uri) => {
                let message = root_hash::to_be_signed(root_hash);
                (token::sign(uri, Algorithm::RsaSha256, &message)?, uri.to_string())
            }
            Source::Signature(path) => (read_signature(path)?, path.display().to_string()),
        };
        let accepted = root_hash::accept(root_hash, &signature, &self.certificate);
        accepted.map_err(|source| Error::OtherRootHash { from, source })
    }

    /// Stages what signing does not change, and gives the names of all that a signed folder has.
    fn stage_unchanged(&self, staging: &Staging) -> Result<Vec<String>, Error> {
        let names = self.sums.0.keys().filter(|name| !TO_BE_SIGNED_FILES.contains(&name.as_str()));
        let names: Vec<_> = names.cloned().collect();
        let changed = |name: &str| {
            [uki::FILE, manifest::SIGNATURE_FILE, root_hash::FILE, provenance::FILE].contains(&name)
                || self.is_disk(name)
                || apple::names().iter().any(|in_folder| in_folder == name)
                || self.one(Format::Wsl).as_deref() == Some(name)
        };
        for name in names.iter().filter(|name| !changed(name)) {
            let copied = fs::copy(self.path(name), staging.path(name));
            copied.map_err(|source| Error::Read { path: self.path(name), source })?;
        }
        Ok(names)
    }

    /// Forms and file names of the disk images that the sums name.
    fn disks(&self) -> Vec<(Format, String)> {
        let Manifest { name, version, architecture, .. } = &self.manifest;
        let named = Format::DISKS.map(|format| (format, disk_file(name, version, *architecture, format)));
        named.into_iter().filter(|(_, name)| self.sums.0.contains_key(name)).collect()
    }

    /// File name of what is there once in this form, if the sums name it.
    fn one(&self, format: Format) -> Option<String> {
        let Manifest { name, version, architecture, .. } = &self.manifest;
        Some(disk_file(name, version, *architecture, format)).filter(|name| self.sums.0.contains_key(name))
    }

    /// Whether a file is the disk, in whatever form, or the CD.
    fn is_disk(&self, name: &str) -> bool {
        self.disks().iter().any(|(_, disk)| disk == name) || self.one(Format::Iso).as_deref() == Some(name)
    }

    /// Whether the sums name the folder for Apple's framework.
    fn has_apple(&self) -> bool {
        apple::names().iter().any(|name| self.sums.0.contains_key(name))
    }

    /// Makes the distro for WSL anew with the manifest's signature, if the folder has one.
    fn stage_distro(&self, signed: &Signed, staging: &Staging) -> Result<(), Error> {
        let Some(name) = self.one(Format::Wsl) else { return Ok(()) };
        let opened = wsl::open(&self.path(&name))?;
        let parts = opened.parts().expect("an opened archive has a root");
        let parts = wsl::Parts { manifest: &signed.manifest, signature: &signed.signature, ..parts };
        Ok(assemble::write_wsl(&parts, staging, &name)?)
    }

    /// Makes disk and CD anew around the signatures, in every form that the folder has. Gives the size of the first in bytes.
    fn stage_disks(&self, signed: &Signed, uki: &[u8], staging: &Staging, ui: &Ui) -> Result<u64, Error> {
        let (disks, cd) = (self.disks(), self.one(Format::Iso));
        self.check_sums(|name| self.is_disk(name))?;
        let of_cd = match &cd {
            Some(name) => {
                let to = staging.path(name);
                let bytes = self.rewrite(&self.path(name), signed, uki, &to, ui)?;
                assemble::set_mode(&to)?;
                Some(bytes)
            }
            None => None,
        };
        let in_folder = || self.has_apple().then(|| apple::beside(apple::DISK));
        let Some(first) = disks.first().map(|(_, name)| name.clone()).or_else(in_folder) else {
            return of_cd.ok_or_else(|| Error::NoDisk { folder: self.folder.to_owned() });
        };
        let Manifest { name, version, architecture, .. } = &self.manifest;
        let raw = staging.path(&disk_file(name, version, *architecture, Format::Raw));
        let bytes = self.rewrite(&self.path(&first), signed, uki, &raw, ui)?;
        if self.has_apple() {
            apple::stage(&raw, staging).map_err(assemble::Error::from)?;
        }
        assemble::convert(&raw, &disks, staging, ui)?;
        Ok(bytes)
    }

    /// Copies a disk image to a raw one with the signatures in it, and gives the bytes of its partitions.
    fn rewrite(&self, path: &Path, signed: &Signed, uki: &[u8], to: &Path, ui: &Ui) -> Result<u64, Error> {
        let from = formats::open(path, ui)?.file;
        let table = disk::read(&from, path)?;
        let named =
            |name| table.named(name).ok_or_else(|| Error::NoPartition { path: path.to_owned(), name });
        let (esp, signature) = (named(ESP_NAME)?, named(Slot::A.names()[2])?);
        let root_hash: Sha256 = signed.root_hash.parse().expect("a parsed manifest has a root hash");
        let place = (esp.start, esp.length);
        let volume = Esp::new(self.manifest.architecture, uki, disk::esp_volume(root_hash), place)?;
        let text = signature_partition::to_bytes(signed);
        let (volume, text): (&mut dyn Read, &mut dyn Read) = (&mut volume.reader(), &mut text.as_slice());
        disk::rewrite(&from, vec![(esp, volume), (signature, text)], to)?;
        Ok(table.partitions.iter().map(|partition| partition.length).sum())
    }

    fn verify(&self, staging: &Staging, ui: &Ui) -> Result<(), Error> {
        let certificate = Some(self.certificate.clone());
        let expected = Expected { key: self.key, certificate, flavour: self.manifest.flavour };
        let report = verify::verify(&staging.path(""), &expected, ui)?;
        if report.holds() {
            return Ok(());
        }
        Err(Error::Unsound { folder: self.folder.to_owned(), failures: report.failures() })
    }
}

fn read_signature(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_SIGNATURE_BYTES).read_to_end(&mut bytes));
    read.map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
