//! The administrator's settings as a file of this host, read by the reader that PID 1 has, and as a config disk ([`disk`]).

pub mod disk;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use eci_policy::settings::{self, MAX_BYTES, Settings};

use crate::image::digest::Sha256;
use crate::image::signature;

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not understood, or asks for what no program enforces.
    #[error("`{}` cannot be used as settings", .path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: settings::Error,
    },
    /// The key for config disks cannot be used.
    #[error("the key for config disks")]
    Key(#[source] signature::Error),
}

/// A file's bytes.
///
/// # Errors
/// [`Error::Read`].
pub fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    // One more than may be: then the reader says that it is too long.
    head(path, MAX_BYTES + 1).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// The first bytes of a file, which may have no end.
fn head(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file's bytes and what they say.
///
/// # Errors
/// Every variant of [`Error`].
pub fn read(path: &Path) -> Result<(Vec<u8>, Settings), Error> {
    let bytes = bytes(path)?;
    let refused = |source| Error::Refused { path: path.to_owned(), source };
    let settings = settings::read(&bytes).map_err(refused)?;
    Ok((bytes, settings))
}

/// The digest that `status` and `inspect` show of a file.
#[must_use]
pub fn digest(bytes: &[u8]) -> Sha256 {
    Sha256::of(&[bytes])
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::fs;

    use super::*;

    #[test]
    fn errors_name_the_file_and_what_is_wrong_in_it() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("x.json");
        let error = read(&path).expect_err("nothing there");
        assert_eq!(error.to_string(), format!("cannot read `{}`", path.display()));
        fs::write(&path, "{}").expect("written");
        let error = read(&path).expect_err("no version");
        assert_eq!(error.to_string(), format!("`{}` cannot be used as settings", path.display()));
        let cause = error.source().expect("a cause").to_string();
        assert!(cause.starts_with("`configurationFileVersion` is missing"), "{cause}");
    }

    #[test]
    fn a_file_without_end_is_too_long() {
        let error = read(Path::new("/dev/zero")).expect_err("it has no end");
        assert!(error.source().expect("a cause").to_string().contains("are the most"), "{error}");
    }
}
