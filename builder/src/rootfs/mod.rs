//! From packages and our own files to the root file system image.
//!
//! Invariant: the image has nothing that no rule asked for, nothing that the table refuses, no special file, and
//! everything that its programs need to be loaded. No step needs root, and the same input gives the same bytes.
//!
//! In the order of the work: [`select`] takes from packages, [`overlay`] adds what is ours, [`apparmor`] what it compiles,
//! all into a [`tree`]; [`checks`] and [`elf`] judge it, following links with [`resolve`]; [`erofs`] packs it. Compiler and
//! packer are [`tools`] from locked packages. [`initrd()`] is separate.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cache::Cache;
use crate::packages::Archive;
use crate::plan::list::List;
use crate::plan::lock::LockedPackage;
use crate::plan::{Locked, Plan};
use crate::ui::{Ui, human_size};

pub mod apparmor;
pub mod checks;
pub mod elf;
pub mod erofs;
pub mod initrd;
pub mod overlay;
pub mod resolve;
pub mod select;
pub mod tools;
pub mod tree;

pub use initrd::{Error as InitrdError, initrd};
use select::Use;
use tools::Tools;
use tree::{Kind, Node, Origin, Tree};

/// Bound on the image's size in bytes: what people are ready to download and hold in memory twice.
pub const MAX_SIZE: u64 = 100 * 1000 * 1000;

/// Why there is no root file system.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A package cannot be taken from.
    #[error(transparent)]
    Select(#[from] select::Error),
    /// Something of ours cannot be added.
    #[error(transparent)]
    Overlay(#[from] overlay::Error),
    /// The tools of the build cannot be had.
    #[error(transparent)]
    Tools(#[from] tools::Error),
    /// A profile of ours cannot be added.
    #[error(transparent)]
    Apparmor(#[from] apparmor::Error),
    /// The tree cannot be written.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// The image would have something that none may have.
    #[error(transparent)]
    Check(#[from] checks::Error),
    /// Programs lack what they need.
    #[error(transparent)]
    Closure(#[from] elf::Error),
    /// The image cannot be packed.
    #[error(transparent)]
    Erofs(#[from] erofs::Error),
    /// The packed image cannot be looked at.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The image.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The image is too large.
    #[error("the root file system has {size} bytes, more than the {MAX_SIZE} that it may have")]
    TooLarge {
        /// Size in bytes.
        size: u64,
    },
}

/// A root file system image and what is in it.
#[derive(Debug)]
pub struct Root {
    /// The EROFS image.
    pub image: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Everything in it, sorted by path.
    pub files: Vec<RootFile>,
    /// The packages that something in it is from, sorted by name.
    pub packages: Vec<LockedPackage>,
}

/// One file, folder or link of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootFile {
    /// Absolute path.
    pub path: String,
    /// What it is; for files with size and digest.
    pub kind: Kind,
    /// The package that it is from, or the program of ours that it is; a file of the overlay otherwise.
    pub package: Option<String>,
}

/// Puts the root file system together in the folder `work` and packs it there. `programs` is the folder with our built
/// programs.
///
/// # Errors
/// Every variant of [`Error`].
pub fn assemble(
    plan: &Plan<Locked>,
    archives: &[Archive],
    programs: &Path,
    (cache, work): (&Cache, &Path),
    ui: &Ui,
) -> Result<Root, Error> {
    let stage = ui.stage("root file system");
    let tool_packages: Vec<&Archive> =
        archives.iter().filter(|archive| plan.tools().contains(&archive.package)).collect();
    let tools = Tools::unpack(&tool_packages, plan.tools_architecture(), cache)?;
    let mut tree = gather(plan, archives, programs, &work.join("root"))?;
    apparmor::add_profiles(&plan.resolve(&plan.config().rootfs.apparmor), &tools, &mut tree, ui)?;
    check(plan, &tree)?;
    stage.done(&format!("{} files", tree.nodes().count()));

    let stage = ui.stage("EROFS image");
    let image = work.join("root.erofs");
    erofs::make(&tree, &tools, &image, ui)?;
    let size = fs::metadata(&image).map_err(|source| Error::Read { path: image.clone(), source })?.len();
    if size > MAX_SIZE {
        return Err(Error::TooLarge { size });
    }
    stage.done(&human_size(size));

    let files: Vec<RootFile> = tree.nodes().map(|(path, node)| describe(path, node)).collect();
    let used =
        |package: &&LockedPackage| files.iter().any(|file| file.package.as_ref() == Some(&package.name));
    let packages = plan.packages().filter(used).cloned().collect();
    Ok(Root { image, size, files, packages })
}

fn gather(plan: &Plan<Locked>, archives: &[Archive], programs: &Path, folder: &Path) -> Result<Tree, Error> {
    let lists: Vec<&List> = plan.lists().collect();
    let mut tree = Tree::create(folder)?;
    overlay::add_links(&lists, plan.architecture(), &mut tree)?;
    overlay::add_folders(&plan.resolve(&plan.config().rootfs.folders), &mut tree)?;
    for archive in archives.iter().filter(|archive| archive.package.target == plan.architecture()) {
        let elsewhere = [plan.kernel_source(), plan.stub()].contains(&&archive.package);
        let used = if elsewhere { Use::Elsewhere } else { Use::Listed };
        select::take((archive, used), &lists, plan.architecture(), &mut tree)?;
    }
    let overlays: Vec<_> = plan.config().rootfs.overlays.iter().map(|folder| plan.resolve(folder)).collect();
    overlay::add_overlays(&overlays, &mut tree)?;
    overlay::add_settings(plan.settings(), &mut tree)?;
    overlay::add_programs(&lists, programs, &mut tree)?;
    Ok(tree)
}

fn check(plan: &Plan<Locked>, tree: &Tree) -> Result<(), Error> {
    checks::Refusals::read(&plan.resolve(&plan.config().rootfs.refused))?.check(tree)?;
    checks::check_links(tree)?;
    checks::check_scripts(tree)?;
    elf::check_closure(tree, plan.architecture())?;
    Ok(())
}

fn describe(path: &str, node: &Node) -> RootFile {
    let package = match &node.origin {
        Origin::Package { name, .. } | Origin::Program { name } => Some(name.clone()),
        _ => None,
    };
    RootFile { path: path.to_owned(), kind: node.kind.clone(), package }
}
