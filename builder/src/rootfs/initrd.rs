//! The initial RAM file system: a `newc` archive (kernel: Documentation/driver-api/early-userspace/buffer-format.rst)
//! with PID 1, the key that image manifests are checked with, and folders to mount on. The same input gives the same
//! bytes: fixed owner, fixed time, fixed order.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use eci_contract::paths;

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;

/// Folders that PID 1 mounts on.
const MOUNT_POINTS: [&str; 5] = ["dev", "proc", "run", "sys", "sysroot"];

/// Why there is no initial RAM file system.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The program.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The program is larger than the format allows.
    #[error("`{}` is larger than 4 GiB", .path.display())]
    TooLarge {
        /// The program.
        path: PathBuf,
    },
    /// The archive cannot be written.
    #[error("cannot write `{}`", .path.display())]
    Write {
        /// The archive.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Writes the archive with `init` as `/init` and the Ed25519 public key `key`.
///
/// # Errors
/// Every variant of [`Error`].
pub fn initrd(init: &Path, key: &[u8; 32], out: &Path) -> Result<(), Error> {
    let program = fs::read(init).map_err(|source| Error::Read { path: init.to_owned(), source })?;
    let archive = archive(&program, key).ok_or_else(|| Error::TooLarge { path: init.to_owned() })?;
    fs::write(out, archive).map_err(|source| Error::Write { path: out.to_owned(), source })
}

/// The archive's bytes; `None` when the program is larger than the format allows.
#[must_use]
pub fn archive(program: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    let key_path = paths::IMAGE_KEY.trim_start_matches('/');
    let mut archive = Archive::default();
    for folder in MOUNT_POINTS.into_iter().chain(parents(key_path)) {
        archive.add(folder, FOLDER, &[])?;
    }
    archive.add(key_path, FILE, key)?;
    archive.add("init", PROGRAM, program)?;
    archive.finish()
}

fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(move |(end, _)| &path[..end])
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds an entry; `None` when it is too large for the format.
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) -> Option<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).ok()?;
        let name_size = u32::try_from(name.len() + 1).ok()?;
        let links = if mode == FOLDER { 2 } else { 1 };
        // Inode, mode, owner, group, links, time, size, device and special device (major, minor each), name, checksum.
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        self.bytes.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Some(())
    }

    fn finish(mut self) -> Option<Vec<u8>> {
        self.add("TRAILER!!!", 0, &[])?;
        Some(self.bytes)
    }

    /// Names and contents end on multiples of four bytes.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpio_reads_the_archive() {
        let home = tempfile::tempdir().expect("temporary folder");
        let (init, out) = (home.path().join("i"), home.path().join("o"));
        fs::write(&init, "program").expect("program");
        initrd(&init, &[7; 32], &out).expect("archive");
        let input = fs::File::open(&out).expect("archive");
        let listing = std::process::Command::new("cpio").args(["-it", "--quiet"]).stdin(input).output();
        let Ok(listing) = listing else {
            eprintln!("skipped: cpio is not installed");
            return;
        };
        assert!(listing.status.success());
        assert_eq!(
            String::from_utf8_lossy(&listing.stdout),
            "dev\nproc\nrun\nsys\nsysroot\netc\netc/eci\netc/eci/image.pub\ninit\n"
        );
    }

    #[test]
    fn entries_are_aligned_and_owned_by_root() {
        let archive = archive(b"abc", &[7; 32]).expect("small");
        assert_eq!(archive.len() % 4, 0);
        assert!(archive.starts_with(b"07070100000001000041ed0000000000000000000000020000000000000000"));
    }
}
