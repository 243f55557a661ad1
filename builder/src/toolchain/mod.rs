//! The toolchain: compilers from locked packages, unpacked into the cache once, and a sandbox in which nothing else of this host is
//! there.
//!
//! Invariant: a toolchain in the cache is whole, and is the packages of its key.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use eci_sys::descriptors::close_on_exec_from;
use rustix::fs::syncfs;

use crate::cache;
use crate::image::digest::Sha256;
use crate::packages::{self, Archive, fetch};
use crate::plan::lock::LockedPackage;
use crate::plan::{Locked, Plan};
use crate::staging::{self, WorkFolder};
use crate::tool::{self, Tool};
use crate::ui::Ui;

mod sandbox;

pub use sandbox::{Access, PROGRAM, Sandbox};

/// Changes whenever the same packages are laid out in another way.
const LAYOUT: &str = "1";

/// Why there is no toolchain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// There is no folder to unpack in.
    #[error(transparent)]
    Staging(#[from] staging::Error),
    /// Its packages cannot be had.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// A package cannot be unpacked.
    #[error("cannot unpack the package `{name}`")]
    Package {
        /// Package name.
        name: String,
        /// What dpkg said.
        source: tool::Error,
    },
    /// A folder or link cannot be made.
    #[error("cannot make `{}`", .path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What this process was started with cannot be kept from a compiler.
    #[error("cannot mark inherited descriptors as closed on exec")]
    Descriptors(#[source] io::Error),
    /// This host lets us make none.
    #[error("cannot make a sandbox for the compiler")]
    Sandbox(#[source] tool::Error),
}

/// A toolchain that a plan asks for; nothing of it is fetched before it is needed.
#[derive(Clone, Copy, Debug)]
pub struct Toolchain<'a> {
    packages: &'a [LockedPackage],
    links: &'a BTreeMap<String, String>,
    from: packages::Source<'a>,
}

impl<'a> Toolchain<'a> {
    /// The toolchain of a plan, with packages `from` there.
    #[must_use]
    pub fn of(plan: &'a Plan<Locked>, from: packages::Source<'a>) -> Self {
        Self { packages: plan.toolchain(), links: &plan.toolchain_list().links, from }
    }

    /// A digest of everything in it.
    #[must_use]
    pub fn key(&self) -> Sha256 {
        let packages = self.packages.iter().map(|package| package.sha256.clone());
        let links = self.links.iter().map(|(path, target)| format!("{path} {target}"));
        let parts: Vec<String> = [LAYOUT.to_owned()].into_iter().chain(packages).chain(links).collect();
        Sha256::of(&[parts.join("\n").as_bytes()])
    }

    /// Unpacks it where the cache does not have it, and makes sure that this host gives it a sandbox.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(&self, ui: &Ui) -> Result<Root, Error> {
        // Whoever started us may have left some open: a log, a folder, a token.
        close_on_exec_from(3).map_err(Error::Descriptors)?;
        let bubblewrap = bubblewrap().map_err(Error::Sandbox)?;
        let folder = self.from.cache.folder("toolchains")?.join(self.key().to_string());
        let root = Root { folder, bubblewrap };
        if !root.folder.exists() {
            self.unpack(&root.folder, ui)?;
        }
        root.sandbox().tool("true").run(ui).map_err(Error::Sandbox)?;
        Ok(root)
    }

    fn unpack(&self, place: &Path, ui: &Ui) -> Result<(), Error> {
        let archives = packages::fetch("toolchain", self.packages.iter(), &self.from, ui)?;
        let stage = ui.stage("unpacking the toolchain");
        let work = WorkFolder::inside(&self.from.cache.folder("work")?, "toolchain")?;
        let root = work.path();
        unpack_all(&archives, root, ui)?;
        for (path, target) in self.links {
            let path = root.join(path.trim_start_matches('/'));
            symlink(target, &path).map_err(|source| Error::Make { path, source })?;
        }
        // A power cut must not leave a folder of empty files under a name that says that it is whole.
        let failed = |source| Error::Make { path: place.to_owned(), source };
        File::open(root).and_then(|folder| Ok(syncfs(folder)?)).map_err(failed)?;
        match fs::rename(root, place) {
            // Another builder was first; its folder is as good.
            Err(_) if place.exists() => {}
            renamed => renamed.map_err(failed)?,
        }
        stage.done(&format!("{} packages", archives.len()));
        Ok(())
    }
}

/// Unpacks packages over each other, on all cores. No maintainer script is run.
fn unpack_all(archives: &[Archive], root: &Path, ui: &Ui) -> Result<(), Error> {
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    let failed = || failure.lock().expect("no worker panics while it holds the lock");
    let work = || {
        while let Some(archive) = archives.get(next.fetch_add(1, Ordering::Relaxed)) {
            let unpacked = Tool::new("dpkg-deb").arg("--extract").arg(&archive.path).arg(root).run(ui);
            if let Err(source) = unpacked {
                failed().get_or_insert(Error::Package { name: archive.package.name.clone(), source });
                next.store(archives.len(), Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(work);
        }
    });
    failed().take().map_or(Ok(()), Err)
}

/// Whether this host lets us make sandboxes: tried with its own programs inside.
///
/// # Errors
/// What bubblewrap says.
pub fn probe(ui: &Ui) -> Result<(), tool::Error> {
    Root { folder: PathBuf::from("/"), bubblewrap: bubblewrap()? }.sandbox().tool("true").run(ui)
}

fn bubblewrap() -> Result<PathBuf, tool::Error> {
    tool::find(PROGRAM).ok_or_else(|| tool::Error::Missing { program: PROGRAM.to_owned() })
}

/// An unpacked toolchain.
#[derive(Clone, Debug)]
pub struct Root {
    folder: PathBuf,
    bubblewrap: PathBuf,
}

impl Root {
    /// A sandbox with this toolchain in it and nothing else.
    #[must_use]
    pub fn sandbox(&self) -> Sandbox {
        Sandbox::new(&self.folder, &self.bubblewrap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::packages::Offline;
    use crate::plan::lock::tests::locked;

    #[test]
    fn the_key_depends_on_packages_and_links() {
        let home = tempfile::tempdir().expect("temporary folder");
        let cache = Cache::at(home.path()).expect("cache");
        let from = packages::Source { cache: &cache, mirror: None, offline: Offline::Yes };
        let (one, mut other) = ([locked("gcc")], [locked("gcc")]);
        other[0].sha256 = "cd".repeat(32);
        let links = BTreeMap::from([("/usr/bin/cc".to_owned(), "gcc".to_owned())]);
        let key = |packages, links| Toolchain { packages, links, from }.key();
        assert_eq!(key(&one, &links), key(&one, &links));
        assert_ne!(key(&one, &links), key(&other, &links));
        assert_ne!(key(&one, &links), key(&one, &BTreeMap::new()));
    }
}
