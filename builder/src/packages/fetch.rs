//! Bringing locked packages into the cache: apt's own helper downloads (it resumes, and knows the host's proxies), we
//! check size and digest before a file gets its name, and again at each use.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use sha2::{Digest, Sha256};

use super::Archive;
use super::mirror::{self, Mirror};
use crate::cache::{self, Cache};
use crate::plan::lock::LockedPackage;
use crate::tool::{self, Tool};
use crate::ui::{Stage, Ui, human_size};

/// Downloads at a time. Mirrors ask clients to be modest, and more brings nothing on a usual line.
const PARALLEL: usize = 4;

const HELPER: &str = "/usr/lib/apt/apt-helper";

/// Whether the network may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offline {
    /// What is missing is fetched.
    No,
    /// What is missing is an error.
    Yes,
}

/// Why packages are not at hand.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// No mirror is known.
    #[error(transparent)]
    Mirror(#[from] mirror::Error),
    /// The network may not be used and the cache lacks packages.
    #[error("not in the cache, and the network may not be used: {}", .names.join(", "))]
    Offline {
        /// Names and versions.
        names: Vec<String>,
    },
    /// The mirror did not give the file.
    #[error(
        "cannot fetch `{name}` {version}; where the mirror has a newer one, run `eci-builder lock` to move to it"
    )]
    Download {
        /// Package name.
        name: String,
        /// Its locked version.
        version: String,
        /// What apt's helper said.
        source: tool::Error,
    },
    /// The file is not what the lock says.
    #[error("`{name}` is not what is locked: expected sha256 {expected}, got {got}")]
    Mismatch {
        /// Package name.
        name: String,
        /// The locked digest.
        expected: String,
        /// The file's digest.
        got: String,
    },
    /// A file of the cache cannot be read or written.
    #[error("cannot use `{}`", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Where packages come from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Where they are looked for first, and kept.
    pub cache: &'a Cache,
    /// Root of the mirror that the configuration names.
    pub mirror: Option<&'a str>,
    /// Whether a mirror is asked at all.
    pub offline: Offline,
}

/// Makes sure that the cache has every one of `packages`, and that each is what the lock says. `what` they are is the stage's name.
///
/// # Errors
/// Every variant of [`Error`].
pub fn fetch<'a>(
    what: &'static str,
    packages: impl Iterator<Item = &'a LockedPackage>,
    from: &Source<'_>,
    ui: &Ui,
) -> Result<Vec<Archive>, Error> {
    let stage = ui.stage(what);
    let folder = from.cache.folder("packages")?;
    let partial = from.cache.folder("packages/partial")?;
    let _ours = lock_folder(&folder)?;
    let archives: Vec<Archive> = packages
        .map(|package| Archive {
            path: folder.join(format!("{}.deb", package.sha256)),
            package: package.clone(),
        })
        .collect();
    let mut missing = Vec::new();
    for archive in &archives {
        if !is_intact(archive, ui)? {
            missing.push(archive);
        }
    }
    let bytes = missing.iter().map(|archive| archive.package.size).sum();
    if !missing.is_empty() {
        if from.offline == Offline::Yes {
            return Err(Error::Offline {
                names: missing.iter().map(|archive| named(&archive.package)).collect(),
            });
        }
        let mirror = Mirror::find(from.mirror, ui)?;
        download_all(&missing, bytes, &Downloads { mirror, partial, ui: *ui }, &stage)?;
    }
    stage.done(&format!("{} packages, {} fetched", archives.len(), human_size(bytes)));
    Ok(archives)
}

/// Where downloads come from and where they wait until they are checked.
struct Downloads {
    mirror: Mirror,
    partial: PathBuf,
    ui: Ui,
}

/// Downloads with [`PARALLEL`] workers; the first error stops them all after their current file.
fn download_all(missing: &[&Archive], bytes: u64, source: &Downloads, stage: &Stage) -> Result<(), Error> {
    let next = AtomicUsize::new(0);
    let done = AtomicU64::new(0);
    let failure = Mutex::new(None);
    let failed = || failure.lock().expect("no worker panics while it holds the lock");
    stage.progress(0, bytes);
    let work = || {
        while let Some(archive) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = download(archive, source) {
                failed().get_or_insert(error);
                next.store(missing.len(), Ordering::Relaxed);
                return;
            }
            let before = done.fetch_add(archive.package.size, Ordering::Relaxed);
            stage.progress(before + archive.package.size, bytes);
            stage.message(&archive.package.name);
        }
    };
    thread::scope(|scope| {
        for _ in 0..PARALLEL.min(missing.len()) {
            scope.spawn(work);
        }
    });
    match failed().take() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn download(archive: &Archive, source: &Downloads) -> Result<(), Error> {
    let package = &archive.package;
    // Named by digest, so that a broken download is taken up again where it stopped.
    let partial = source.partial.join(format!("{}.deb", package.sha256));
    let helper = Tool::new(HELPER)
        .args(["-q", "-o", "APT::Sandbox::User=root", "download-file"])
        .arg(address(&source.mirror, package))
        .arg(&partial)
        .arg(format!("SHA256:{}", package.sha256));
    helper.run(&source.ui).map_err(|error| not_fetched(package, &partial, error))?;
    check(package, &partial)?;
    fs::rename(&partial, &archive.path).map_err(|source| Error::File { path: archive.path.clone(), source })
}

/// apt's helper reports a wrong digest as a failed download and puts the file aside; say which of the two it was.
fn not_fetched(package: &LockedPackage, partial: &Path, source: tool::Error) -> Error {
    let aside = partial.with_extension("deb.FAILED");
    for file in [&aside, &partial.to_owned()] {
        if let (true, Err(mismatch @ Error::Mismatch { .. })) =
            (is_whole(file, package), check(package, file))
        {
            // The next try must not take up wrong bytes; failing to remove them only makes it fail the same way.
            drop(fs::remove_file(file));
            return mismatch;
        }
    }
    Error::Download { name: package.name.clone(), version: package.version.clone(), source }
}

fn is_whole(file: &Path, package: &LockedPackage) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.len() >= package.size)
}

/// `+` is written as apt writes it: some mirrors read a plain one as a space.
fn address(mirror: &Mirror, package: &LockedPackage) -> String {
    format!("{}{}", mirror.root(package.archive), package.path.replace('+', "%2b"))
}

/// Whether the cache has the file. One that has changed since it was put there is removed, and said.
fn is_intact(archive: &Archive, ui: &Ui) -> Result<bool, Error> {
    if !archive.path.exists() {
        return Ok(false);
    }
    match check(&archive.package, &archive.path) {
        Err(Error::Mismatch { .. }) => {
            ui.warn(&format!("`{}` changed in the cache; it is fetched again", archive.package.name));
            let path = archive.path.clone();
            fs::remove_file(&archive.path).map_err(|source| Error::File { path, source })?;
            Ok(false)
        }
        checked => checked.map(|()| true),
    }
}

fn check(package: &LockedPackage, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut digest = Sha256::new();
    let size = io::copy(&mut file, &mut digest).map_err(failed)?;
    let got = format!("{:x}", digest.finalize());
    if got == package.sha256 && size == package.size {
        return Ok(());
    }
    let got = if got == package.sha256 { format!("a size of {size}") } else { got };
    Err(Error::Mismatch { name: package.name.clone(), expected: package.sha256.clone(), got })
}

/// Held while the packages folder is worked on: two builders must not write one partial file.
fn lock_folder(folder: &Path) -> Result<File, Error> {
    let path = folder.join("lock");
    let failed = |source| Error::File { path: path.clone(), source };
    let file = File::create(&path).map_err(failed)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| failed(error.into()))?;
    Ok(file)
}

fn named(package: &LockedPackage) -> String {
    format!("{} {}", package.name, package.version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::lock::tests::locked;

    fn package(content: &[u8]) -> LockedPackage {
        let mut package = locked("a");
        package.size = content.len().try_into().expect("a short file");
        package.sha256 = format!("{:x}", Sha256::digest(content));
        package
    }

    #[test]
    fn a_changed_file_in_the_cache_is_not_used() {
        let home = tempfile::tempdir().expect("temporary folder");
        let archive = Archive { package: package(b"good"), path: home.path().join("a.deb") };
        fs::write(&archive.path, "good").expect("file");
        assert!(is_intact(&archive, &Ui::silent()).expect("readable"));
        fs::write(&archive.path, "gooD").expect("file");
        assert!(!is_intact(&archive, &Ui::silent()).expect("readable"));
        assert!(!archive.path.exists(), "it is gone");
    }

    #[test]
    fn a_mismatch_names_package_and_both_digests() {
        let home = tempfile::tempdir().expect("temporary folder");
        let path = home.path().join("a.deb");
        fs::write(&path, "bad!").expect("file");
        let error = check(&package(b"good"), &path).expect_err("other bytes").to_string();
        let (expected, got) = (Sha256::digest(b"good"), Sha256::digest(b"bad!"));
        assert_eq!(error, format!("`a` is not what is locked: expected sha256 {expected:x}, got {got:x}"));
    }

    #[test]
    fn addresses_are_of_the_locked_archive_and_escape_plus_signs() {
        let mut package = locked("libstdc++6");
        package.path = "pool/libstdc++6_1_amd64.deb".to_owned();
        assert_eq!(
            address(&Mirror::at("http://m.invalid"), &package),
            "http://m.invalid/debian-security/pool/libstdc%2b%2b6_1_amd64.deb"
        );
    }
}
