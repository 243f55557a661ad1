//! Programs of the build, unpacked from locked packages into the cache and run through their own loader, so that neither
//! the host's versions nor its libraries matter.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use eci_contract::manifest::Architecture;
use sha2::{Digest, Sha256};

use crate::cache::{self, Cache};
use crate::packages::{Archive, deb};
use crate::tool::Tool;

/// Packs the root file system.
pub const MKFS: &str = "/usr/bin/mkfs.erofs";
/// Compiles AppArmor profiles.
pub const PARSER: &str = "/usr/sbin/apparmor_parser";
/// What AppArmor of the kernel can do, as profiles name it (`abi <abi/4.0>`).
pub const FEATURES: &str = "/etc/apparmor.d/abi/4.0";

/// All that is taken from packages, besides libraries.
const WANTED: [&str; 3] = [MKFS, PARSER, FEATURES];

/// Why there are no tools.
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
    /// Every variant of [`Error`].
    pub fn unpack(archives: &[&Archive], architecture: Architecture, cache: &Cache) -> Result<Self, Error> {
        let digests: BTreeSet<&str> =
            archives.iter().map(|archive| archive.package.sha256.as_str()).collect();
        let key = format!("{:x}", Sha256::digest(digests.into_iter().chain(WANTED).collect::<String>()));
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
    #[must_use]
    pub fn tool(&self, program: &str) -> Tool {
        let (libraries, loader) = match self.architecture {
            Architecture::X86_64 => ("usr/lib/x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
            Architecture::Aarch64 => ("usr/lib/aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
        };
        let libraries = self.root.join(libraries);
        Tool::new(libraries.join(loader)).arg("--library-path").arg(&libraries).arg(self.on_disk(program))
    }

    /// Where a file of the packages is on this host.
    #[must_use]
    pub fn on_disk(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

/// Puts programs, libraries and links of a package below `root`; nothing else of it is needed.
fn unpack(root: &Path, entry: &deb::Entry, content: &mut dyn Read) -> Result<(), Error> {
    let path = entry.path.as_str();
    let wanted = WANTED.contains(&path) || (path.starts_with("/usr/lib/") && path.contains(".so"));
    let path = root.join(path.trim_start_matches('/'));
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
