//! Disk image formats besides raw, by way of `qemu-img`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::tool::{self, Tool};
use crate::ui::Ui;

/// First bytes of a qcow2 image.
const QCOW2_MAGIC: &[u8] = b"QFI\xfb";

/// A form in which the disk is given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Format {
    /// The disk byte for byte, sparse.
    Raw,
    /// QEMU's own format.
    Qcow2,
}

/// Why a disk image cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `qemu-img` failed.
    #[error("cannot {operation} `{}`", .path.display())]
    Tool {
        /// What was being done.
        operation: &'static str,
        /// The image.
        path: PathBuf,
        /// What the program said.
        source: tool::Error,
    },
    /// The image cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The image.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Format {
    /// File name extension, and `qemu-img`'s name of the format.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// Writes the raw image as another format and lets `qemu-img` check the result.
///
/// # Errors
/// [`Error::Tool`].
pub fn from_raw(raw: &Path, format: Format, to: &Path, ui: &Ui) -> Result<(), Error> {
    let name = format.extension();
    let convert = Tool::new("qemu-img").args(["convert", "-f", "raw", "-O", name]).arg(raw).arg(to);
    convert.run(ui).map_err(|source| Error::Tool { operation: "convert", path: raw.to_owned(), source })?;
    if format == Format::Raw {
        return Ok(());
    }
    let check = Tool::new("qemu-img").args(["check", "-q", "-f", name]).arg(to);
    check.run(ui).map_err(|source| Error::Tool { operation: "check", path: to.to_owned(), source })
}

/// A disk image of either format, open as a raw one.
#[derive(Debug)]
pub struct RawDisk {
    /// The raw bytes.
    pub file: File,
    /// Keeps the converted copy until the disk is no longer needed.
    _scratch: Option<TempDir>,
}

/// Opens a disk image for reading, converting it where it is not raw.
///
/// # Errors
/// [`Error`].
pub fn open(path: &Path, ui: &Ui) -> Result<RawDisk, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    if of_file(path)? == Format::Raw {
        return Ok(RawDisk { file: File::open(path).map_err(read)?, _scratch: None });
    }
    let scratch = tempfile::tempdir().map_err(read)?;
    let raw = scratch.path().join("disk.raw");
    to_raw(path, &raw, ui)?;
    Ok(RawDisk { file: File::open(&raw).map_err(read)?, _scratch: Some(scratch) })
}

/// What a disk image is, by its first bytes: names can lie.
///
/// # Errors
/// [`Error::Read`].
pub fn of_file(path: &Path) -> Result<Format, Error> {
    let mut magic = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4).read_to_end(&mut magic).map(drop));
    read.map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(if magic == QCOW2_MAGIC { Format::Qcow2 } else { Format::Raw })
}

fn to_raw(qcow2: &Path, raw: &Path, ui: &Ui) -> Result<(), Error> {
    let convert = Tool::new("qemu-img").args(["convert", "-f", "qcow2", "-O", "raw"]).arg(qcow2).arg(raw);
    convert.run(ui).map_err(|source| Error::Tool { operation: "convert", path: qcow2.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_converted_image_is_recognised_and_converts_back_to_the_same_bytes() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = |name: &str| folder.path().join(name);
        let mut bytes = vec![0; 1 << 20];
        bytes[300_000] = 1;
        fs::write(path("raw"), &bytes).expect("raw image");
        match from_raw(&path("raw"), Format::Qcow2, &path("qcow2"), &Ui::silent()) {
            Err(Error::Tool { source: tool::Error::Missing { .. }, .. }) => {
                eprintln!("skipped: qemu-img is not installed");
                return;
            }
            converted => converted.expect("converted"),
        }
        assert_eq!(of_file(&path("qcow2")).expect("read"), Format::Qcow2);
        assert_eq!(of_file(&path("raw")).expect("read"), Format::Raw);
        let mut back = Vec::new();
        let mut disk = open(&path("qcow2"), &Ui::silent()).expect("converted back");
        disk.file.read_to_end(&mut back).expect("read");
        assert_eq!(back, bytes);
    }

    #[test]
    fn a_missing_image_is_named() {
        let error = of_file(Path::new("/nowhere/disk")).expect_err("no such file");
        assert_eq!(error.to_string(), "cannot read `/nowhere/disk`");
    }
}
