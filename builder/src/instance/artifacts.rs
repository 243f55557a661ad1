//! What an instance boots: the output folder of a build or a slot of its own disk, checked against its manifest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use eci_contract::manifest::{self, Artifact, Manifest};

use crate::image::assemble::disk_file;
use crate::image::digest::{Sha256, to_hex};
use crate::image::formats::Format;
use crate::image::manifest::SIGNATURE_FILE;

/// Why a folder cannot be booted from.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no manifest.
    #[error("`{}` holds no appliance: it has no manifest.json", .folder.display())]
    NoManifest {
        /// The folder.
        folder: PathBuf,
    },
    /// The manifest cannot be used.
    #[error("cannot understand `{}`", .path.display())]
    Manifest {
        /// Its path.
        path: PathBuf,
        /// Where it goes wrong.
        source: serde_json::Error,
    },
    /// The manifest is of another version, or names a file outside its folder.
    #[error("`{}` is not a manifest that this version can use", .path.display())]
    Unusable {
        /// Its path.
        path: PathBuf,
    },
    /// It was built to be signed later, and still waits for that: PID 1 would refuse it.
    #[error("`{}` is not signed yet", .folder.display())]
    Unsigned {
        /// The folder.
        folder: PathBuf,
    },
    /// An artifact cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An artifact is not the one that the manifest names.
    #[error("`{}` is not what the manifest says: sha256 {found} instead of {wanted}", .path.display())]
    Digest {
        /// Its path.
        path: PathBuf,
        /// The digest in the manifest.
        wanted: String,
        /// The digest of the file.
        found: String,
    },
}

/// Files that were found to be what their manifest says. The disk is not hashed: dm-verity does that, block by block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifacts {
    /// The folder, absolute.
    pub folder: PathBuf,
    /// Kernel image.
    pub kernel: PathBuf,
    /// Initial RAM file system.
    pub initrd: PathBuf,
    /// Raw disk image.
    pub disk: PathBuf,
    /// The manifest.
    pub manifest: Manifest,
}

impl Artifacts {
    /// Reads the manifest in `folder` and checks kernel and initrd.
    ///
    /// # Errors
    /// [`Error`].
    pub fn check(folder: &Path) -> Result<Self, Error> {
        Self::with_disk(folder, None)
    }

    /// The same for a slot of an instance's own disk, of which `folder` has what boots it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn check_slot(folder: &Path, disk: &Path) -> Result<Self, Error> {
        Self::with_disk(folder, Some(disk))
    }

    fn with_disk(folder: &Path, disk: Option<&Path>) -> Result<Self, Error> {
        let path = folder.join("manifest.json");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoManifest { folder: folder.to_owned() });
            }
            text => text.map_err(|source| Error::Read { path: path.clone(), source })?,
        };
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|source| Error::Manifest { path: path.clone(), source })?;
        let plain = |file: &str| Path::new(file).file_name().is_some_and(|name| name == file);
        if manifest.schema != manifest::SCHEMA
            || !plain(&manifest.kernel.file)
            || !plain(&manifest.initrd.file)
        {
            return Err(Error::Unusable { path });
        }
        if fs::read(folder.join(SIGNATURE_FILE)).is_ok_and(|signature| signature.is_empty()) {
            return Err(Error::Unsigned { folder: folder.to_owned() });
        }
        let read = |path: PathBuf| path.canonicalize().map_err(|source| Error::Read { path, source });
        let folder = read(folder.to_owned())?;
        let beside = disk_file(&manifest.name, &manifest.version, manifest.architecture, Format::Raw);
        Ok(Self {
            kernel: check_file(&folder, &manifest.kernel)?,
            initrd: check_file(&folder, &manifest.initrd)?,
            disk: read(disk.map_or_else(|| folder.join(beside), Path::to_owned))?,
            folder,
            manifest,
        })
    }
}

fn check_file(folder: &Path, artifact: &Artifact) -> Result<PathBuf, Error> {
    let path = folder.join(&artifact.file);
    let digest = Sha256::of_file(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let found = to_hex(&digest.0);
    if found == artifact.sha256 {
        Ok(path)
    } else {
        Err(Error::Digest { path, wanted: artifact.sha256.clone(), found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("temporary folder");
        for name in ["vmlinuz", "initrd.img", "eci-1-x86_64.raw"] {
            fs::write(folder.path().join(name), name).expect("artifact");
        }
        write_manifest(folder.path(), "vmlinuz");
        folder
    }

    fn write_manifest(folder: &Path, kernel: &str) {
        let artifact = |file: &str| {
            let sha256 = to_hex(&Sha256::of(&[file.as_bytes()]).0);
            serde_json::json!({ "file": file, "size": file.len(), "sha256": sha256 })
        };
        let manifest = serde_json::json!({
            "schema": 1, "name": "eci", "version": "1", "architecture": "x86_64", "flavour": "shipped",
            "root": { "filesystem": "erofs", "algorithm": "sha256", "rootHash": "00", "salt": "00",
                "dataBlockSize": 4096, "hashBlockSize": 4096, "dataBlocks": 1, "hashStartBlock": 1 },
            "kernel": artifact(kernel), "initrd": artifact("initrd.img"),
            "uki": { "file": "eci.efi", "authenticodeSha256": "00" }, "versions": {},
        });
        fs::write(folder.join("manifest.json"), manifest.to_string()).expect("manifest");
    }

    #[test]
    fn a_folder_as_it_was_built_is_taken() {
        let folder = folder();
        let artifacts = Artifacts::check(folder.path()).expect("sound");
        assert!(artifacts.disk.ends_with("eci-1-x86_64.raw"));
    }

    #[test]
    fn a_changed_kernel_is_refused() {
        let folder = folder();
        fs::write(folder.path().join("vmlinuz"), "vmlinux").expect("changed");
        assert!(matches!(Artifacts::check(folder.path()), Err(Error::Digest { .. })));
    }

    #[test]
    fn a_manifest_that_names_a_file_elsewhere_is_refused() {
        let folder = folder();
        for kernel in ["../vmlinuz", "/etc/hostname", "a/b", ".."] {
            write_manifest(folder.path(), kernel);
            assert!(matches!(Artifacts::check(folder.path()), Err(Error::Unusable { .. })), "{kernel}");
        }
    }

    #[test]
    fn a_folder_that_waits_for_its_signatures_says_so() {
        let folder = folder();
        fs::write(folder.path().join("manifest.json.sig"), [1; 64]).expect("signature");
        Artifacts::check(folder.path()).expect("PID 1 looks at what it says");
        fs::write(folder.path().join("manifest.json.sig"), []).expect("signature");
        let error = Artifacts::check(folder.path()).expect_err("unsigned").to_string();
        assert!(error.ends_with("` is not signed yet"), "{error}");
    }

    #[test]
    fn a_folder_without_a_manifest_says_so() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let error = Artifacts::check(folder.path()).expect_err("empty").to_string();
        assert!(error.ends_with("it has no manifest.json"), "{error}");
    }
}
