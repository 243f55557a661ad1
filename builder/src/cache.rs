//! Where downloads and built kernels are kept between builds: `$XDG_CACHE_HOME/eci`, never the checkout.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither `XDG_CACHE_HOME` nor `HOME` is set to an absolute path.
    #[error("no cache folder: neither XDG_CACHE_HOME nor HOME is an absolute path")]
    NoHome,
    /// A folder of the cache cannot be made.
    #[error("cannot make the cache folder `{}`", .path.display())]
    Create {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The cache folder. It holds nothing that a build cannot fetch or make again.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the user's cache, making its folder.
    ///
    /// # Errors
    /// [`Error::NoHome`] and [`Error::Create`].
    pub fn open() -> Result<Self, Error> {
        let base = absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
            .ok_or(Error::NoHome)?;
        Self::at(&base.join("eci"))
    }

    /// Opens a cache at a folder of the caller's choice, making it.
    ///
    /// # Errors
    /// [`Error::Create`].
    pub fn at(root: &Path) -> Result<Self, Error> {
        let cache = Self { root: root.to_owned() };
        cache.folder("")?;
        Ok(cache)
    }

    /// A folder inside the cache, made if missing.
    ///
    /// # Errors
    /// [`Error::Create`].
    pub fn folder(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).map_err(|source| Error::Create { path: path.clone(), source })?;
        Ok(path)
    }
}

fn absolute(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}
