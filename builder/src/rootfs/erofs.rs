//! Making the EROFS image with the locked `mkfs.erofs`, run from the cache through its own loader, so that neither the
//! host's version nor its libraries matter.
//!
//! The same tree gives the same bytes: no clock, no host owner, no extended attribute goes in, and the file system's
//! UUID is a digest of the tree.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use eci_contract::manifest::Architecture;
use sha2::{Digest, Sha256};

use super::tree::{Kind, Tree};
use crate::cache::{self, Cache};
use crate::packages::{Archive, deb};
use crate::tool::{self, Tool};
use crate::ui::Ui;

const MKFS: &str = "/usr/bin/mkfs.erofs";

/// How the image is packed, with the reasons.
///
/// LZ4 decompresses fastest where the processor is slow, and the image stays within its bound with it. Level 9 gives
/// within half a percent of level 12 in a quarter of the time. Clusters of 64 KiB: 16 KiB cost a tenth more space,
/// 128 KiB save a hundredth and read more than is asked for. Deduplication and fragments save a hundredth, too.
const PACKING: [&str; 2] = ["-zlz4hc,9", "-C65536"];

/// Why there is no EROFS image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// A package with the tools cannot be read.
    #[error(transparent)]
    Deb(#[from] deb::Error),
    /// The tools cannot be unpacked.
    #[error("cannot unpack `{}`", .path.display())]
    Unpack {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The image could not be made.
    #[error("cannot make the EROFS image")]
    Make(#[source] tool::Error),
}

/// Tools of the build, unpacked in the cache.
#[derive(Debug)]
pub struct Tools {
    root: PathBuf,
    architecture: Architecture,
}

impl Tools {
    /// Unpacks programs and libraries of `archives`, packages for this host's `architecture`, once.
    ///
    /// # Errors
    /// All of [`Error`] but the last.
    pub fn unpack(archives: &[&Archive], architecture: Architecture, cache: &Cache) -> Result<Self, Error> {
        let digests: BTreeSet<&str> =
            archives.iter().map(|archive| archive.package.sha256.as_str()).collect();
        let key = format!("{:x}", Sha256::digest(digests.into_iter().collect::<String>()));
        let root = cache.folder("tools")?.join(key);
        if !root.exists() {
            let partial = root.with_extension(format!("partial-{}", std::process::id()));
            for archive in archives {
                deb::entries(&archive.path, |entry, content| unpack(&partial, &entry, content))?;
            }
            // Another builder may have been first; then its folder is as good, and ours is not needed.
            if let Err(source) = fs::rename(&partial, &root) {
                drop(fs::remove_dir_all(&partial));
                if !root.exists() {
                    return Err(Error::Unpack { path: root, source });
                }
            }
        }
        Ok(Self { root, architecture })
    }

    /// One of the programs, run through the loader that came with it.
    fn tool(&self, program: &str) -> Tool {
        let (libraries, loader) = match self.architecture {
            Architecture::X86_64 => ("usr/lib/x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
            Architecture::Aarch64 => ("usr/lib/aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
        };
        let libraries = self.root.join(libraries);
        Tool::new(libraries.join(loader))
            .arg("--library-path")
            .arg(&libraries)
            .arg(self.root.join(program.trim_start_matches('/')))
    }
}

/// Packs the tree into an EROFS image at `out`.
///
/// # Errors
/// [`Error::Make`].
pub fn make(tree: &Tree, tools: &Tools, out: &Path, ui: &Ui) -> Result<(), Error> {
    tools
        .tool(MKFS)
        .args(["--quiet", "-T0", "--all-root", "-x-1"])
        .args(PACKING)
        .arg(format!("-U{}", uuid_of(tree)))
        .arg(out)
        .arg(tree.folder())
        .run(ui)
        .map_err(Error::Make)
}

/// A UUID (version 8, RFC 9562) from a digest over all that the image has.
fn uuid_of(tree: &Tree) -> String {
    let mut digest = Sha256::new();
    for (path, node) in tree.nodes() {
        let described = match &node.kind {
            Kind::Folder { mode } => format!("folder {mode:o}"),
            Kind::File { sha256, executable, .. } => format!("file {executable} {sha256}"),
            Kind::Symlink { target } => format!("link {target}"),
        };
        digest.update(format!("{path}\0{described}\0"));
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.finalize()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// Puts programs, libraries and links of a package below `root`; nothing else of it is needed.
fn unpack(root: &Path, entry: &deb::Entry, content: &mut dyn Read) -> Result<(), Error> {
    let wanted = entry.path == MKFS || (entry.path.starts_with("/usr/lib/") && entry.path.contains(".so"));
    let path = root.join(entry.path.trim_start_matches('/'));
    let written = match &entry.kind {
        deb::Kind::File(_) if wanted => write(&path, content),
        // A target with a slash could lead out of the folder; libraries link to their neighbours.
        deb::Kind::Symlink(target) if wanted && !target.contains('/') => {
            make_parent(&path).and_then(|()| symlink(target, &path))
        }
        _ => return Ok(()),
    };
    written.map_err(|source| Error::Unpack { path, source })
}

fn write(path: &Path, content: &mut dyn Read) -> io::Result<()> {
    make_parent(path)?;
    let mut file = fs::File::create_new(path)?;
    io::copy(content, &mut file)?;
    file.set_permissions(Permissions::from_mode(0o755))
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::tree::Origin;

    fn uuid(content: &[u8], executable: bool) -> String {
        let home = tempfile::tempdir().expect("temporary folder");
        let mut tree = Tree::create(&home.path().join("root")).expect("tree");
        tree.add_file("/a", &mut &content[..], executable, Origin::Overlay).expect("file");
        uuid_of(&tree)
    }

    #[test]
    fn the_uuid_is_of_the_content_alone() {
        assert_eq!(uuid(b"x", false), uuid(b"x", false));
        assert_ne!(uuid(b"x", false), uuid(b"y", false));
        assert_ne!(uuid(b"x", false), uuid(b"x", true));
        assert_eq!(uuid(b"x", false).as_bytes()[14], b'8', "version 8");
    }
}
