//! The kernel: fragments to configuration, configuration to image, built once per source, fragments and toolchain.
//!
//! Invariant: a kernel in the cache is whole, and its configuration has every value that a fragment asks for.

pub mod config;
pub mod fragments;
mod recipe;
pub mod source;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;

use eci_contract::manifest::Architecture;

use crate::cache::{self, Cache};
use crate::image::digest::Sha256;
use crate::toolchain::{self, Toolchain};
use crate::ui::{self, Ui};
use fragments::Fragments;
use recipe::Recipe;

pub use recipe::Error as RecipeError;

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cache cannot be used.
    #[error("cannot use the kernel cache")]
    Cache(#[from] cache::Error),
    /// A fragment is wrong.
    #[error("cannot use the kernel fragments")]
    Fragments(#[from] fragments::Error),
    /// The source is wrong.
    #[error("cannot use the kernel source")]
    Source(#[from] source::Error),
    /// There is nothing to compile with.
    #[error("cannot make the toolchain")]
    Toolchain(#[from] toolchain::Error),
    /// Configuration or compilation failed.
    #[error("cannot build the kernel")]
    Recipe(#[from] recipe::Error),
    /// A file of the cache cannot be read or written.
    #[error("cannot keep the built kernel in `{}`", .path.display())]
    Keep {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A built kernel in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Bootable image: `bzImage` on x86-64, uncompressed `Image` on aarch64.
    pub image: PathBuf,
    /// Its resolved configuration.
    pub config: PathBuf,
    /// What `uname -r` prints.
    pub release: String,
}

/// What a kernel is built from.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Debian's `linux-source-*` package.
    pub source: &'a Path,
    /// Its digest from the lock file.
    pub source_sha256: Sha256,
    /// Folder of the fragments.
    pub fragments: &'a Path,
    /// What the kernel runs on.
    pub architecture: Architecture,
    /// What it is compiled with.
    pub toolchain: Toolchain<'a>,
}

/// Gives the kernel from the cache, building it on a miss. An interrupted build leaves nothing in its place.
///
/// # Errors
/// [`Error`].
pub fn build(order: &Order<'_>, cache: &Cache, ui: &Ui) -> Result<Kernel, Error> {
    let fragments = Fragments::read(order.fragments, order.architecture)?;
    let key =
        recipe::key(order.architecture, order.source_sha256, &fragments, order.toolchain.key()).to_string();
    let place = cache.folder("kernels")?.join(&key);
    if let Some(kernel) = cached(&place)? {
        ui.stage("kernel").done(&format!("{}, from the cache", kernel.release));
        return Ok(kernel);
    }
    source::check(order.source, order.source_sha256)?;
    let toolchain = order.toolchain.open(ui)?;
    let stage = ui.stage("kernel");
    let workshop = Workshop::open(&cache.folder("kernel-build")?, &key)?;
    stage.message("unpacking the source");
    let tree = source::unpack(order.source, &workshop.folder)?;
    stage.message("configuring");
    let recipe = Recipe::new(order.architecture, toolchain.sandbox(), tree);
    let config = recipe.configure(&fragments, ui)?;
    let image = recipe.compile(&stage, ui)?;
    let release = recipe.release(ui)?;
    keep(&workshop, &image, &config, &release, &place)?;
    let kernel =
        cached(&place)?.ok_or_else(|| Error::Keep { path: place, source: io::ErrorKind::NotFound.into() })?;
    let size = fs::metadata(&kernel.image).map_or(0, |metadata| metadata.len());
    stage.done(&format!("{}, {}", kernel.release, ui::human_size(size)));
    Ok(kernel)
}

/// The kernel that stands in the cache, if it does.
fn cached(place: &Path) -> Result<Option<Kernel>, Error> {
    let release = place.join("release");
    match fs::read_to_string(&release) {
        Ok(text) => {
            let (image, config) = (place.join("vmlinuz"), place.join("config"));
            Ok(Some(Kernel { image, config, release: text.trim().to_owned() }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Keep { path: release, source }),
    }
}

/// Collects the results in a folder of the workshop and renames that folder into the cache: all of it or nothing.
fn keep(workshop: &Workshop, image: &Path, config: &Path, release: &str, place: &Path) -> Result<(), Error> {
    let folder = workshop.folder.join("result");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Keep { path, source }
    };
    fs::create_dir(&folder).map_err(failed(&folder))?;
    fs::copy(image, folder.join("vmlinuz")).map_err(failed(image))?;
    fs::copy(config, folder.join("config")).map_err(failed(config))?;
    fs::write(folder.join("release"), format!("{release}\n")).map_err(failed(&folder))?;
    for name in ["vmlinuz", "config", "release"] {
        let path = folder.join(name);
        fs::File::open(&path).and_then(|file| file.sync_all()).map_err(failed(&path))?;
    }
    match fs::rename(&folder, place) {
        // Another build of the same kernel was faster; its bytes are the same.
        Err(_) if place.join("release").exists() => Ok(()),
        renamed => renamed.map_err(failed(place)),
    }
}

/// A folder to build in, removed in the end. One whose process was killed is removed by the next build.
struct Workshop {
    folder: PathBuf,
}

impl Workshop {
    fn open(parent: &Path, key: &str) -> Result<Self, Error> {
        let short = key.get(..16).unwrap_or(key);
        remove_abandoned(parent);
        let folder = parent.join(format!("{short}-{}", process::id()));
        fs::create_dir_all(&folder).map_err(|source| Error::Keep { path: folder.clone(), source })?;
        Ok(Self { folder })
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // Best effort: what stays only takes space, and the next build tries again.
        drop(fs::remove_dir_all(&self.folder));
    }
}

fn remove_abandoned(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.rsplit_once('-')).map(|(_, pid)| pid);
        let alive = pid.is_some_and(|pid| Path::new("/proc").join(pid).exists());
        if !alive || pid == Some(process::id().to_string().as_str()) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_kept_whole_and_found_again() {
        let home = tempfile::tempdir().expect("temporary folder");
        let place = home.path().join("kernels-key");
        let workshop = Workshop::open(home.path(), "0123456789abcdef0123").expect("workshop");
        let (image, config) = (workshop.folder.join("bzImage"), workshop.folder.join(".config"));
        fs::write(&image, "image").expect("image");
        fs::write(&config, "config").expect("config");
        assert_eq!(cached(&place).expect("looked up"), None);
        keep(&workshop, &image, &config, "6.12.1", &place).expect("kept");
        keep_again(&workshop, &image, &config, &place);
        let folder = workshop.folder.clone();
        drop(workshop);
        assert!(!folder.exists());
        let kernel = cached(&place).expect("looked up").expect("kept");
        assert_eq!(kernel.release, "6.12.1");
        assert_eq!(fs::read_to_string(kernel.image).expect("image"), "image");
    }

    /// A second build of the same kernel finds the place taken and is content.
    fn keep_again(workshop: &Workshop, image: &Path, config: &Path, place: &Path) {
        keep(workshop, image, config, "6.12.1", place).expect("taken by the same kernel");
        fs::remove_dir_all(workshop.folder.join("result")).expect("its copy is still in the workshop");
    }

    #[test]
    fn a_workshop_whose_process_is_gone_is_removed() {
        let home = tempfile::tempdir().expect("temporary folder");
        let abandoned = home.path().join("0123456789abcdef-4194999");
        fs::create_dir(&abandoned).expect("abandoned");
        let workshop = Workshop::open(home.path(), "0123456789abcdef0123").expect("workshop");
        assert!(!abandoned.exists());
        assert!(workshop.folder.exists());
    }

    #[test]
    fn errors_name_operation_and_object() {
        let error = Error::Keep { path: "/x".into(), source: io::ErrorKind::NotFound.into() };
        assert_eq!(error.to_string(), "cannot keep the built kernel in `/x`");
        assert_eq!(Error::Cache(cache::Error::NoHome).to_string(), "cannot use the kernel cache");
    }
}
