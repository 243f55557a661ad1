//! Disk image formats besides raw: qcow2 by way of `qemu-img`, VHDX written by us; `qemu-img` checks and reads both. Three more forms
//! are none of these: [`super::iso`], a disk of its own, [`super::wsl`], and [`super::apple`], a folder with the raw one in it.

mod vhdx;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{apple, iso, wsl};
use crate::tool::{self, Tool};
use crate::ui::Ui;

/// First bytes of a qcow2 image.
const QCOW2_MAGIC: &[u8] = b"QFI\xfb";

/// A form in which the image is given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Format {
    /// The disk byte for byte, sparse.
    Raw,
    /// QEMU's own format.
    Qcow2,
    /// Hyper-V's format.
    Vhdx,
    /// A distro of WSL 2, which is no disk.
    Wsl,
    /// A CD, which is also a disk, without a slot for another version and without data.
    Iso,
    /// A folder for Apple's Virtualization framework, of images for aarch64.
    Apple,
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
    /// The image cannot be written.
    #[error("cannot write `{}`", .path.display())]
    Write {
        /// The image.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The image cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The image.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It has what none of ours has, and is not looked into for that.
    #[error("the disk image `{}` has {why}", .path.display())]
    NotOurs {
        /// The image.
        path: PathBuf,
        /// What it has.
        why: &'static str,
    },
}

/// Bit of a qcow2 image's incompatible features: its data are elsewhere.
const EXTERNAL_DATA: u64 = 1 << 2;
/// Upper bound on the length of a disk image in bytes, holes included.
pub const MAX_DISK_BYTES: u64 = 64 << 30;

impl Format {
    /// All that are the disk, raw first: what costs least to look at.
    pub const DISKS: [Self; 3] = [Self::Raw, Self::Qcow2, Self::Vhdx];

    /// File name extension, and `qemu-img`'s name of the format; of a folder, its name.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vhdx => "vhdx",
            Self::Wsl => "wsl",
            Self::Iso => "iso",
            Self::Apple => apple::FOLDER,
        }
    }
}

/// Writes the raw image as another format of disks and lets `qemu-img` check the result.
///
/// # Errors
/// [`Error::Tool`] and [`Error::Write`].
pub fn from_raw(raw: &Path, format: Format, to: &Path, ui: &Ui) -> Result<(), Error> {
    let name = format.extension();
    if format == Format::Vhdx {
        vhdx::write(raw, to).map_err(|source| Error::Write { path: to.to_owned(), source })?;
    } else {
        let convert = Tool::new("qemu-img").args(["convert", "-f", "raw", "-O", name]).arg(raw).arg(to);
        convert.run(ui).map_err(|source| Error::Tool {
            operation: "convert",
            path: raw.to_owned(),
            source,
        })?;
    }
    if format == Format::Raw {
        return Ok(());
    }
    let check = Tool::new("qemu-img").args(["check", "-q", "-f", name]).arg(to);
    check.run(ui).map_err(|source| Error::Tool { operation: "check", path: to.to_owned(), source })
}

/// A disk image of any format, open as a raw one.
#[derive(Debug)]
pub struct RawDisk {
    /// The raw bytes.
    pub file: File,
    /// What they were read from.
    pub format: Format,
    /// Keeps the converted copy until the disk is no longer needed.
    _scratch: Option<TempDir>,
}

/// Opens a disk image for reading, converting it where it is not raw.
///
/// # Errors
/// [`Error`].
pub fn open(path: &Path, ui: &Ui) -> Result<RawDisk, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let format = of_file(path)?;
    if [Format::Raw, Format::Iso].contains(&format) {
        return Ok(RawDisk { file: File::open(path).map_err(read)?, format, _scratch: None });
    }
    if format == Format::Qcow2 {
        refuse_other_files(path)?;
    }
    let scratch = tempfile::tempdir().map_err(read)?;
    let raw = scratch.path().join("disk.raw");
    to_raw(path, format, &raw, ui)?;
    Ok(RawDisk { file: File::open(&raw).map_err(read)?, format, _scratch: Some(scratch) })
}

/// Refuses a qcow2 image that is not all of itself: `qemu-img` would open the files of this host, or the servers, that it names. Offsets
/// are those of QEMU's `docs/interop/qcow2.txt`.
fn refuse_other_files(path: &Path) -> Result<(), Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let mut header = [0; 80];
    File::open(path).and_then(|mut file| file.read_exact(&mut header)).map_err(read)?;
    let number = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let is_third_version = header[4..8] == [0, 0, 0, 3];
    let why = match (number(8), number(24)) {
        _ if is_third_version && number(72) & EXTERNAL_DATA != 0 => "its data in another file",
        (backing, _) if backing != 0 => "a backing file",
        (_, size) if size > MAX_DISK_BYTES => "a size that no image has",
        _ => return Ok(()),
    };
    Err(Error::NotOurs { path: path.to_owned(), why })
}

/// What an image is, by its first bytes, or a CD's first descriptor: names can lie.
///
/// # Errors
/// [`Error::Read`].
pub fn of_file(path: &Path) -> Result<Format, Error> {
    let magic = |start, length| {
        let mut magic = Vec::new();
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        file.take(length).read_to_end(&mut magic).map(|_| magic)
    };
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let (at, of_a_cd) = iso::MAGIC;
    Ok(match magic(0, 8).map_err(failed)? {
        magic if magic.starts_with(QCOW2_MAGIC) => Format::Qcow2,
        magic if magic == vhdx::MAGIC => Format::Vhdx,
        magic if magic.starts_with(wsl::MAGIC) => Format::Wsl,
        _ if magic(at, 5).map_err(failed)? == of_a_cd => Format::Iso,
        _ => Format::Raw,
    })
}

fn to_raw(path: &Path, format: Format, raw: &Path, ui: &Ui) -> Result<(), Error> {
    let convert = Tool::new("qemu-img").args(["convert", "-f", format.extension(), "-O", "raw"]);
    let converted = convert.arg(path).arg(raw).run(ui);
    converted.map_err(|source| Error::Tool { operation: "convert", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A disk of 5 MiB with something in its second and last.
    fn disk() -> Vec<u8> {
        let mut bytes = vec![0; 5 << 20];
        bytes[(1 << 20) + 300_000] = 1;
        *bytes.last_mut().expect("it is not empty") = 2;
        bytes
    }

    #[test]
    fn a_qcow2_image_that_names_another_file_is_not_opened() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("disk.qcow2");
        let mut header = [0; 80];
        header[..8].copy_from_slice(b"QFI\xfb\x00\x00\x00\x03");
        header[24..32].copy_from_slice(&(5_u64 << 20).to_be_bytes());
        for (at, bytes, why) in [
            (8, 512_u64, "a backing file"),
            (72, 4, "its data in another file"),
            (24, MAX_DISK_BYTES + 1, "a size that no image has"),
        ] {
            let mut changed = header;
            changed[at..at + 8].copy_from_slice(&bytes.to_be_bytes());
            fs::write(&path, changed).expect("image");
            let error = open(&path, &Ui::silent()).expect_err("refused").to_string();
            assert_eq!(error, format!("the disk image `{}` has {why}", path.display()));
        }
        fs::write(&path, header).expect("image");
        refuse_other_files(&path).expect("it is all of itself");
    }

    #[test]
    fn a_converted_image_is_recognised_and_converts_back_to_the_same_bytes() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("raw"), disk()).expect("raw image");
        assert_eq!(of_file(&path("raw")).expect("read"), Format::Raw);
        for format in [Format::Qcow2, Format::Vhdx] {
            let to = path(format.extension());
            match from_raw(&path("raw"), format, &to, &Ui::silent()) {
                Err(Error::Tool { source: tool::Error::Missing { .. }, .. }) => {
                    eprintln!("skipped: qemu-img is not installed");
                    return;
                }
                converted => converted.expect("converted"),
            }
            assert_eq!(of_file(&to).expect("read"), format);
            let mut back = Vec::new();
            let mut opened = open(&to, &Ui::silent()).expect("converted back");
            opened.file.read_to_end(&mut back).expect("read");
            assert!(back == disk(), "{format:?}");
        }
    }

    #[test]
    fn equal_disks_give_equal_vhdx_images_and_others_have_other_identifiers() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let vhdx = |name: &str, bytes: &[u8]| {
            let (raw, to) = (folder.path().join(name), folder.path().join(format!("{name}.vhdx")));
            fs::write(&raw, bytes).expect("raw image");
            vhdx::write(&raw, &to).map(|()| fs::read(to).expect("image"))
        };
        let (one, two) = (vhdx("one", &disk()).expect("written"), vhdx("two", &disk()).expect("written"));
        assert!(one == two);
        assert_eq!(one.len(), 6 << 20, "headers, log, metadata, table and two blocks");
        let mut other = disk();
        other[5 << 19] = 1;
        let other = vhdx("other", &other).expect("written");
        let identifiers = (64 << 10) + 16..(64 << 10) + 48;
        assert_ne!(one[identifiers.clone()], other[identifiers]);
        assert!(vhdx("odd", &[1; 512]).is_err(), "no whole block");
    }

    #[test]
    fn a_missing_image_is_named() {
        let error = of_file(Path::new("/nowhere/disk")).expect_err("no such file");
        assert_eq!(error.to_string(), "cannot read `/nowhere/disk`");
    }
}
