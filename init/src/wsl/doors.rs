//! Folders that the system shares with the distro around it, and with other distros: the way in to the engine.
//!
//! A session of `wsl -d NAME` is in the distro's own mounts and sees none of the system's. Its `/run` is a tmpfs, of which we share
//! one folder; `/mnt/wsl` is a tmpfs that WSL mounts in every distro.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::Path;

use eci_contract::paths::RESOLV_CONF;
use eci_contract::wsl::{ENGINE_LINK, SHARED_FOLDER, SHARED_WITH_ALL, SHARED_WITH_DISTRO};
use rustix::mount::MountFlags;

use super::root;
use crate::initramfs::switch::NEW_ROOT;

/// The resolver's file, which WSL keeps true to what Windows uses.
const RESOLV_CONF_NAME: &str = "resolv.conf";
/// The distro's own, where WSL was told not to.
const DISTRO_RESOLV_CONF: &str = "/etc/resolv.conf";

const STRICT: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Why a folder is not shared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder, link or file could not be made.
    #[error("cannot make `{path}`")]
    Make {
        /// Its path.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A folder could not be bound.
    #[error("cannot share a folder with the distro")]
    Bind(#[from] root::Error),
}

/// Shares them; the system's `/run` has been mounted below [`NEW_ROOT`].
///
/// # Errors
/// When one cannot be made or mounted.
pub fn open() -> Result<(), Error> {
    // As long as paths of constants cannot be joined: `DISTRO_DOOR`, `ALL_DOOR` and `RESOLVER` below `NEW_ROOT`.
    const DISTRO: &str = "/sysroot/run/eci/doors/distro";
    const ALL: &str = "/sysroot/run/eci/doors/all";
    const RESOLVER: &str = "/sysroot/run/eci/resolver";
    make_folder("/sysroot/run/eci", 0o700)?;
    make_folder(SHARED_WITH_DISTRO, 0o755)?;
    make_folder(DISTRO, 0o755)?;
    root::bind(SHARED_WITH_DISTRO, DISTRO, STRICT)?;
    make_link(&format!("{SHARED_WITH_DISTRO}/docker.sock"), ENGINE_LINK)?;
    let resolv_conf = format!("{NEW_ROOT}{RESOLV_CONF}");
    if !is_mounted(SHARED_WITH_ALL) {
        let text = fs::read(DISTRO_RESOLV_CONF).unwrap_or_default();
        return fs::write(&resolv_conf, text).map_err(|source| Error::Make { path: resolv_conf, source });
    }
    make_folder(SHARED_FOLDER, 0o755)?;
    make_folder(ALL, 0o755)?;
    root::bind(SHARED_FOLDER, ALL, STRICT)?;
    make_folder(RESOLVER, 0o755)?;
    root::bind(SHARED_WITH_ALL, RESOLVER, STRICT | MountFlags::RDONLY)?;
    make_link(&format!("{}/{RESOLV_CONF_NAME}", eci_contract::wsl::RESOLVER), &resolv_conf)
}

fn make_folder(path: &str, mode: u32) -> Result<(), Error> {
    let made = fs::DirBuilder::new().mode(mode).recursive(true).create(path);
    made.map_err(|source| Error::Make { path: path.to_owned(), source })
}

/// A link in the place of whatever has its name.
fn make_link(target: &str, link: &str) -> Result<(), Error> {
    drop(fs::remove_file(link));
    symlink(target, link).map_err(|source| Error::Make { path: link.to_owned(), source })
}

/// Whether another file system begins at this folder.
fn is_mounted(path: &str) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev());
    let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
    matches!((device(Path::new(path)), device(parent)), (Ok(own), Ok(above)) if own != above)
}

#[cfg(test)]
mod tests {
    use super::*;
    use eci_contract::wsl::{ALL_DOOR, DISTRO_DOOR, RESOLVER};

    #[test]
    fn the_places_are_those_of_the_contract() {
        let text = include_str!("doors.rs");
        for place in [DISTRO_DOOR, ALL_DOOR, RESOLVER] {
            assert!(text.contains(&format!("\"{NEW_ROOT}{place}\"")), "{place}");
        }
    }

    #[test]
    fn a_folder_of_the_same_file_system_is_not_mounted() {
        assert!(is_mounted("/proc"));
        assert!(!is_mounted("/proc/self/"));
        assert!(!is_mounted("/no/such/folder"));
    }

    #[test]
    fn errors_name_the_path() {
        let error = Error::Make { path: "/run/eci".into(), source: io::ErrorKind::NotFound.into() };
        assert_eq!(error.to_string(), "cannot make `/run/eci`");
    }
}
