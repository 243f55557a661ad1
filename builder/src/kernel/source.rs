//! The kernel's source as Debian ships it: a tar.xz inside the data member of a package, read in one stream.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use xz2::read::XzDecoder;

use crate::image::digest::Sha256;

/// Why the source cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The package cannot be read.
    #[error("cannot read the kernel source `{}`", .path.display())]
    Read {
        /// The package.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The package is not the one that the lock file names.
    #[error("the kernel source `{}` has sha256 {found}, the lock file says {locked}", .path.display())]
    Digest {
        /// The package.
        path: PathBuf,
        /// What it has.
        found: Sha256,
        /// What it should have.
        locked: Sha256,
    },
    /// The package does not hold what a source package holds.
    #[error("the kernel source `{}` holds no {wanted}", .path.display())]
    Missing {
        /// The package.
        path: PathBuf,
        /// The member that is not there.
        wanted: &'static str,
    },
    /// The source cannot be written out.
    #[error("cannot unpack the kernel source to `{}`", .path.display())]
    Unpack {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Checks that a package is the one that was locked.
///
/// # Errors
/// [`Error::Read`] and [`Error::Digest`].
pub fn check(package: &Path, locked: Sha256) -> Result<(), Error> {
    let found =
        Sha256::of_file(package).map_err(|source| Error::Read { path: package.to_owned(), source })?;
    if found == locked { Ok(()) } else { Err(Error::Digest { path: package.to_owned(), found, locked }) }
}

/// Unpacks the source tree of a package into `folder` and gives the tree's top.
///
/// # Errors
/// [`Error::Read`], [`Error::Missing`] and [`Error::Unpack`].
pub fn unpack(package: &Path, folder: &Path) -> Result<PathBuf, Error> {
    let read = |source| Error::Read { path: package.to_owned(), source };
    let missing = |wanted| Error::Missing { path: package.to_owned(), wanted };
    let mut archive = ar::Archive::new(File::open(package).map_err(read)?);
    while let Some(member) = archive.next_entry() {
        let member = member.map_err(read)?;
        if member.header().identifier() == b"data.tar.xz" {
            let found = unpack_data(XzDecoder::new(member), folder)
                .map_err(|source| Error::Unpack { path: folder.to_owned(), source })?;
            return found.ok_or_else(|| missing("linux-source-*.tar.xz"));
        }
    }
    Err(missing("data.tar.xz"))
}

fn unpack_data(data: impl Read, folder: &Path) -> io::Result<Option<PathBuf>> {
    for entry in tar::Archive::new(data).entries()? {
        let entry = entry?;
        let path = entry.path()?.into_owned();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(top) = name.strip_suffix(".tar.xz").filter(|top| top.starts_with("linux-source-")) else {
            continue;
        };
        tar::Archive::new(XzDecoder::new(entry)).unpack(folder)?;
        return Ok(Some(folder.join(top)));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use xz2::write::XzEncoder;

    fn tar_xz(path: &str, bytes: &[u8]) -> Vec<u8> {
        let mut tar = tar::Builder::new(XzEncoder::new(Vec::new(), 0));
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(bytes.len()).expect("small"));
        header.set_mode(0o644);
        tar.append_data(&mut header, path, bytes).expect("appended");
        tar.into_inner().and_then(XzEncoder::finish).expect("compressed")
    }

    fn package(folder: &Path, member: &str, data: &[u8]) -> PathBuf {
        let path = folder.join("source.deb");
        let mut archive = ar::Builder::new(File::create(&path).expect("package"));
        let size = u64::try_from(data.len()).expect("small");
        archive.append(&ar::Header::new(member.as_bytes().to_vec(), size), data).expect("appended");
        path
    }

    #[test]
    fn unpacks_the_tree_inside_the_tar_inside_the_package() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let inner = tar_xz("linux-source-9.9/Makefile", b"VERSION = 9");
        let deb = package(folder.path(), "data.tar.xz", &tar_xz("usr/src/linux-source-9.9.tar.xz", &inner));
        let tree = unpack(&deb, folder.path()).expect("unpacked");
        assert_eq!(fs::read(tree.join("Makefile")).expect("unpacked"), b"VERSION = 9");
    }

    #[test]
    fn a_package_without_source_is_named_with_what_it_lacks() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let deb = package(folder.path(), "data.tar.xz", &tar_xz("usr/share/doc/x", b""));
        let error = unpack(&deb, folder.path()).expect_err("no source");
        assert!(error.to_string().ends_with("source.deb` holds no linux-source-*.tar.xz"), "{error}");
        let deb = package(folder.path(), "control.tar.xz", b"");
        let error = unpack(&deb, folder.path()).expect_err("no data");
        assert!(error.to_string().ends_with("source.deb` holds no data.tar.xz"), "{error}");
    }

    #[test]
    fn a_package_with_another_digest_is_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let deb = package(folder.path(), "data.tar.xz", b"");
        let right = Sha256::of_file(&deb).expect("digest");
        check(&deb, right).expect("the locked package");
        let mut wrong = right;
        wrong.0[31] ^= 1;
        assert!(matches!(check(&deb, wrong), Err(Error::Digest { found, .. }) if found == right));
    }
}
