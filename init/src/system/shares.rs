//! Folders of the host: named by a small disk, judged, and mounted at their own paths.
//!
//! The root is read-only and has a folder for each place in which shares may be. What lies between that and a share is made on a tmpfs,
//! which is read-only from then on, so that nothing of the VM comes to be there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use eci_contract::json_disk::text;
use eci_contract::shares::{DISK_NAME, MAX_BYTES, Share, ShareDisk, TOPS, VERSION, tag};
use eci_policy::rules::share::{self, Refusal, is_in};
use eci_policy::settings::shares::Shares;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount as mount_file_system, mount_remount};

use super::data::{beginning, disk_with_serial};

/// Flags of the tmpfs that holds mount points.
const POINTS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
/// Flags of a share. Containers run what is in it. And containers put links into it: the VM follows none of them, for a name below a
/// share has to mean something in that share to whoever binds it, however often it is looked up.
const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(NO_LINKS);
/// `MS_NOSYMFOLLOW` of mount(2).
const NO_LINKS: MountFlags = MountFlags::from_bits_retain(1 << 8);

/// Why there are no shares.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk cannot be read.
    #[error("cannot read the disk `{DISK_NAME}`, {}", .device.display())]
    Disk {
        /// The device.
        device: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// What is on it is not understood.
    #[error(
        "what the disk `{DISK_NAME}` says of the host's folders is not understood: use the `eci-builder` of this image's version"
    )]
    Malformed(#[source] serde_json::Error),
    /// It is of another version.
    #[error(
        "the disk `{DISK_NAME}` is of version {version}, and this is {VERSION}: use the `eci-builder` of this image's version"
    )]
    Version {
        /// Its version.
        version: u32,
    },
    /// One may not be.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A mount point cannot be made.
    #[error("cannot make the folder `{path}` for the host's")]
    Folder {
        /// Its path.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel does not mount it.
    #[error("cannot mount the host's folder `{path}`")]
    Mount {
        /// Its path.
        path: String,
        /// What the kernel said.
        source: Errno,
    },
}

/// Mounts what the disk names, if there is one, and gives that.
///
/// # Errors
/// [`Error`]; then some may be mounted, and the engine must not start.
pub fn mount(allowed: &Shares) -> Result<Vec<Share>, Error> {
    let Some(device) = disk_with_serial(DISK_NAME) else { return Ok(Vec::new()) };
    let bytes = beginning(&device, MAX_BYTES).map_err(|source| Error::Disk { device, source })?;
    let shares = judged(&bytes, allowed)?;
    let tops = tops_between(&shares);
    for top in &tops {
        let mounted = mount_file_system("tmpfs", *top, "tmpfs", POINTS, c"mode=0755,size=64k");
        mounted.map_err(failed(top))?;
    }
    for (index, share) in shares.iter().enumerate() {
        let folder = fs::create_dir_all(&share.path);
        folder.map_err(|source| Error::Folder { path: share.path.clone(), source })?;
        let flags = if share.read_only { FLAGS.union(MountFlags::RDONLY) } else { FLAGS };
        let path = Path::new(&share.path);
        mount_file_system(tag(index), path, "virtiofs", flags, c"").map_err(failed(&share.path))?;
    }
    for top in tops {
        mount_remount(top, MountFlags::BIND | POINTS | MountFlags::RDONLY, c"").map_err(failed(top))?;
    }
    Ok(shares)
}

/// The shares in these bytes of a disk, if they may be.
fn judged(bytes: &[u8], allowed: &Shares) -> Result<Vec<Share>, Error> {
    let ShareDisk { version, shares } = serde_json::from_slice(text(bytes)).map_err(Error::Malformed)?;
    if version != VERSION {
        return Err(Error::Version { version });
    }
    share::judge_places(&shares)?;
    share::judge_allowed(&shares, allowed)?;
    Ok(shares)
}

/// Folders of the root that are to hold mount points, those that are shared themselves left out.
fn tops_between(shares: &[Share]) -> Vec<&'static str> {
    let holds = |top: &&str| shares.iter().any(|share| share.path != **top && is_in(&share.path, top));
    TOPS.iter().filter(|top| holds(top)).copied().collect()
}

fn failed(path: &str) -> impl FnOnce(Errno) -> Error {
    let path = path.to_owned();
    move |source| Error::Mount { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eci_contract::json_disk::carrying;

    fn disk(version: u32, paths: &[&str]) -> Vec<u8> {
        let shares = paths.iter().map(|path| Share { path: (*path).to_owned(), read_only: false }).collect();
        carrying(serde_json::to_vec(&ShareDisk { version, shares }).unwrap())
    }

    #[test]
    fn the_disk_is_written_as_documented_and_nothing_else_is_read() {
        let shares = vec![Share { path: "/home/a".to_owned(), read_only: true }];
        let disk = ShareDisk { version: VERSION, shares };
        let text = r#"{"version":1,"shares":[{"path":"/home/a","readOnly":true}]}"#;
        assert_eq!(serde_json::to_string(&disk).unwrap(), text);
        assert_eq!(judged(text.as_bytes(), &Shares::default()).unwrap(), disk.shares);
        for wrong in [text.replace("readOnly", "readonly"), text.replace("path", "paths")] {
            assert!(
                matches!(judged(wrong.as_bytes(), &Shares::default()), Err(Error::Malformed(_))),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_disk_is_read_and_judged_by_place_and_settings() {
        let any = Shares::default();
        let shares = judged(&disk(VERSION, &["/home/a/src", "/home/b", "/work"]), &any).unwrap();
        assert_eq!(shares.len(), 3);
        assert_eq!(tops_between(&shares), ["/home"]);
        assert_eq!(tops_between(&[]), [""; 0]);
        let none = Shares { allow: Some(Vec::new()) };
        let error = judged(&disk(VERSION, &["/home/a"]), &none).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot share `/home/a`: the administrator's settings allow none"),
            "{error}"
        );
        assert!(matches!(judged(&disk(VERSION, &["/etc"]), &any), Err(Error::Refused(_))));
        assert!(matches!(judged(&disk(2, &[]), &any), Err(Error::Version { version: 2 })));
        assert!(matches!(judged(b"{}\0", &any), Err(Error::Malformed(_))));
    }
}
