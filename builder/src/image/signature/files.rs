//! Key files: made once, readable by their owner alone, never overwritten.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Error, SigningKey, pem, random_seed};

/// File name of the private key.
pub const PRIVATE_NAME: &str = "image.key";
/// File name of the public key.
pub const PUBLIC_NAME: &str = "image.pub";

/// Makes a key pair in `folder`: [`PRIVATE_NAME`] with mode 0600 and [`PUBLIC_NAME`].
///
/// # Errors
/// [`Error::Exists`] when either file is there, [`Error::Write`], [`Error::Random`].
pub fn generate(folder: &Path) -> Result<SigningKey, Error> {
    let (private, public) = (folder.join(PRIVATE_NAME), folder.join(PUBLIC_NAME));
    for path in [&private, &public] {
        if path.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: path.clone() });
        }
    }
    fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.to_owned(), source })?;
    let seed = random_seed()?;
    let key = SigningKey::from_seed(&seed);
    write_new(private, &pem::private(&seed), 0o600)?;
    write_new(public, &pem::public(&key.public().0), 0o644)?;
    Ok(key)
}

/// The key that this host signs with when none was named: made in `folder` on first use, the same ever after.
///
/// # Errors
/// [`Error`].
pub fn host_key(folder: &Path) -> Result<SigningKey, Error> {
    let path = folder.join(PRIVATE_NAME);
    if path.exists() {
        return SigningKey::read(&path);
    }
    // Made beside and renamed, so that a second build at the same moment finds a whole key or none.
    let write = |source| Error::Write { path: folder.to_owned(), source };
    let parent = folder.parent().unwrap_or(folder);
    fs::create_dir_all(parent).map_err(write)?;
    let fresh = tempfile::tempdir_in(parent).map_err(write)?;
    let key = generate(fresh.path())?;
    match fs::rename(fresh.path(), folder) {
        Ok(()) => Ok(key),
        Err(_) if path.exists() => SigningKey::read(&path),
        Err(source) => Err(write(source)),
    }
}

fn write_new(path: PathBuf, text: &str, mode: u32) -> Result<(), Error> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(mode).open(&path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists { path },
        _ => Error::Write { path, source },
    })
}
