//! Config disks: made of a checked file, a key and an edition; [`eci_contract::config_disk`] has the format.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use eci_contract::config_disk::{ConfigDisk, MAX_BYTES, VERSION, signed};
use eci_contract::json_disk::{carrying, text};

use crate::image::sign::Source;
use crate::image::signature::{self, SigningKey};
use crate::image::token::{self, Algorithm};

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot {operation} `{}`", .path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is something else.
    #[error("`{}` is not a config disk", .path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] signature::Error),
    /// The token does not sign.
    #[error(transparent)]
    Token(#[from] token::Error),
}

/// Writes a config disk, in the place of one that is there.
///
/// # Errors
/// [`Error`]; what was there is still there.
pub fn write(settings: &[u8], edition: u64, key: &Source, path: &Path) -> Result<(), Error> {
    let message = signed(edition, settings);
    let signature = match key {
        Source::Key(key) => SigningKey::read(key)?.sign(&message).to_vec(),
        Source::Token(uri) => token::sign(uri, Algorithm::Ed25519, &message)?,
        Source::Signature(signature) => fs::read(signature).map_err(failed("read", signature))?,
    };
    let disk = ConfigDisk {
        version: VERSION,
        edition,
        settings: BASE64.encode(settings),
        signature: BASE64.encode(signature),
    };
    let bytes = carrying(serde_json::to_vec(&disk).expect("texts and numbers are JSON"));
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    fs::write(&beside, bytes).map_err(failed("write", &beside))?;
    fs::rename(&beside, path).map_err(failed("replace", path))
}

/// Reads a config disk. Whose it is the VM finds out.
///
/// # Errors
/// [`Error::File`] and [`Error::Other`].
pub fn read(path: &Path) -> Result<ConfigDisk, Error> {
    let bytes = super::head(path, MAX_BYTES).map_err(failed("read", path))?;
    serde_json::from_slice(text(&bytes)).map_err(|source| Error::Other { path: path.to_owned(), source })
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { operation, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::signature::{PRIVATE_NAME, PUBLIC_NAME, PublicKey, generate};

    #[test]
    fn a_disk_has_what_the_key_signed() {
        let folder = tempfile::tempdir().expect("temporary folder");
        generate(folder.path()).expect("keys");
        let (key, path) = (Source::Key(folder.path().join(PRIVATE_NAME)), folder.path().join("disk"));
        let public = PublicKey::read(&folder.path().join(PUBLIC_NAME)).expect("a key");
        for length in [2, 2_900, 32 * 1024] {
            let settings = vec![b' '; length];
            write(&settings, 3, &key, &path).expect("written");
            let bytes = fs::read(&path).expect("there");
            assert!(bytes.len() <= MAX_BYTES);
            let disk = read(&path).expect("a disk");
            assert_eq!((disk.edition, BASE64.decode(disk.settings).expect("base64")), (3, settings.clone()));
            let signature = BASE64.decode(disk.signature).expect("base64");
            assert!(public.verifies(&signed(3, &settings), &signature));
            assert!(!public.verifies(&signed(4, &settings), &signature));
        }
    }

    #[test]
    fn a_bad_key_leaves_what_was_there_and_something_else_is_no_disk() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("disk");
        fs::write(&path, "before").expect("written");
        write(b"{}", 1, &Source::Key(folder.path().join("none")), &path).expect_err("no key");
        assert_eq!(fs::read(&path).expect("there"), b"before");
        let error = read(&path).expect_err("no disk").to_string();
        assert_eq!(error, format!("`{}` is not a config disk", path.display()));
        assert!(matches!(read(&folder.path().join("none")), Err(Error::File { .. })));
    }
}
