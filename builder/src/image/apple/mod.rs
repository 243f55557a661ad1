//! A folder for Apple's Virtualization framework, with all that boots a VM there and nothing that has to be unpacked or converted first:
//! a kernel as the framework loads it, the initrd, the raw disk, and a script for vfkit that says which devices there are.
//!
//! Invariant: it has no bytes of its own but the script's, which are the same for every image. The rest are further names of files
//! beside the folder, so that it takes no room, and of the disk where that is given out in no other form.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::assemble::{INITRD_FILE, KERNEL_FILE};
use crate::staging::Staging;

/// Name of the folder.
pub const FOLDER: &str = "apple";
/// The kernel in it, by the name that Linux gives an uncompressed one for Arm.
pub const KERNEL: &str = "Image";
/// The initrd in it.
pub const INITRD: &str = INITRD_FILE;
/// The disk in it.
pub const DISK: &str = "disk.raw";
/// What starts a machine.
pub const SCRIPT: &str = "vfkit.sh";
/// Its bytes.
pub const SCRIPT_TEXT: &str = include_str!("vfkit.sh");
const SCRIPT_MODE: u32 = 0o755;

/// What the header of an uncompressed kernel has, and where (Documentation/arch/arm64/booting.rst).
const KERNEL_MAGIC: (&[u8; 4], u64) = (b"ARM\x64", 56);

/// Why there is no such folder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel is not what the framework loads.
    #[error("`{}` is no uncompressed kernel for aarch64, and Apple's framework loads no other", .path.display())]
    Kernel {
        /// The kernel.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot {operation} `{}`", .path.display())]
    File {
        /// "read", "link" or "write".
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The name beside the manifest of a file in it.
#[must_use]
pub fn beside(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

/// All of those names.
#[must_use]
pub fn names() -> [String; 4] {
    [KERNEL, INITRD, DISK, SCRIPT].map(beside)
}

/// Whether this is such a folder by itself, as it is when somebody has copied it.
#[must_use]
pub fn is_alone(folder: &Path) -> bool {
    folder.join(DISK).is_file()
        && folder.join(KERNEL).is_file()
        && !folder.join(super::manifest::FILE).exists()
}

/// Stages the folder from a staged kernel, initrd, and raw disk.
///
/// # Errors
/// [`Error`].
pub fn stage(raw: &Path, staging: &Staging) -> Result<(), Error> {
    let kernel = staging.path(KERNEL_FILE);
    refuse_other_kernels(&kernel)?;
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { operation, path, source }
    };
    let folder = staging.path(FOLDER);
    fs::create_dir(&folder).map_err(failed("write", &folder))?;
    let files = [(kernel.as_path(), KERNEL), (&staging.path(INITRD_FILE), INITRD), (raw, DISK)];
    for (from, name) in files {
        fs::hard_link(from, folder.join(name)).map_err(failed("link", from))?;
    }
    let script = folder.join(SCRIPT);
    let written = fs::write(&script, SCRIPT_TEXT);
    let written = written.and_then(|()| fs::set_permissions(&script, Permissions::from_mode(SCRIPT_MODE)));
    written.map_err(failed("write", &script))
}

fn refuse_other_kernels(path: &Path) -> Result<(), Error> {
    let (wanted, at) = KERNEL_MAGIC;
    let mut magic = [0; 4];
    match File::open(path).and_then(|file| file.read_exact_at(&mut magic, at)) {
        Ok(()) if magic == *wanted => Ok(()),
        Err(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            Err(Error::File { operation: "read", path: path.to_owned(), source })
        }
        _ => Err(Error::Kernel { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests;
