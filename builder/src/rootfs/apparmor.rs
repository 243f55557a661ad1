//! AppArmor profiles, compiled with the locked parser: PID 1 loads them as they are, and nothing compiles at boot.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use eci_contract::paths::APPARMOR_DIR;

use super::tools::{FEATURES, PARSER, Tools};
use super::tree::{self, Origin, Tree};
use crate::tool;
use crate::ui::Ui;

/// Why profiles are not in the image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or a profile cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The parser does not take a profile.
    #[error("cannot compile the AppArmor profile `{}`", .path.display())]
    Compile {
        /// The profile.
        path: PathBuf,
        /// What the parser said.
        source: tool::Error,
    },
    /// It cannot be added to the image.
    #[error(transparent)]
    Tree(#[from] tree::Error),
}

/// Compiles every profile of `folder`, and adds each under its name to the tree. The same profile gives the same bytes.
///
/// # Errors
/// Every variant of [`Error`].
pub fn add_profiles(folder: &Path, tools: &Tools, tree: &mut Tree, ui: &Ui) -> Result<(), Error> {
    for path in profiles(folder)? {
        let policy = compile(&path, tools, ui)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        tree.add_file(&format!("{APPARMOR_DIR}/{name}"), &mut policy.as_slice(), false, Origin::Overlay)?;
    }
    Ok(())
}

fn profiles(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let read = |source| Error::Read { path: folder.to_owned(), source };
    let entries: io::Result<Vec<_>> = fs::read_dir(folder).map_err(read)?.collect();
    let mut paths: Vec<_> = entries.map_err(read)?.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

/// The binary policy. What the kernel can do is told from the profile's own ABI, not asked of this host's kernel.
fn compile(path: &Path, tools: &Tools, ui: &Ui) -> Result<Vec<u8>, Error> {
    let features = tools.on_disk(FEATURES);
    // `abi <abi/4.0>` is looked up two folders above the features.
    let base = features.ancestors().nth(2).unwrap_or(Path::new("/"));
    tools
        .tool(PARSER)
        .args(["--config-file", "/dev/null", "--skip-kernel-load", "--skip-cache", "--stdout"])
        .arg("--base")
        .arg(base)
        .arg("--policy-features")
        .arg(&features)
        .arg("--kernel-features")
        .arg(&features)
        .arg(path)
        .output(ui)
        .map_err(|source| Error::Compile { path: path.to_owned(), source })
}
