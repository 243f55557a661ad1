//! Paths inside of a container's root filesystem, which the image's links must not lead out of.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use eci_sys::fsuid::FilesystemIds;
use rustix::fs::{Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, openat, openat2};
use rustix::io::Errno;

use super::error::{Error, call};
use crate::plan::ids::Range;

/// Folders of the image that crun mounts file systems on, by path.
const MOUNTED_OVER: &[&str] = &["/dev", "/proc", "/sys"];

/// Checks that the folders that crun mounts on are folders or absent: crun 1.21 follows a link in place of `/dev`.
///
/// # Errors
/// One of them is a link or a file.
pub fn check_folders(root: BorrowedFd<'_>) -> Result<(), Error> {
    for path in MOUNTED_OVER.iter().copied() {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        match openat2(root, path, flags, Mode::empty(), resolve) {
            Ok(_) | Err(Errno::NOENT) => {}
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(Error::NotAFolder { path }),
            Err(errno) => return Err(call("open", Path::new(path))(errno)),
        }
    }
    Ok(())
}

/// Opens `path` below `root`, and makes what is missing as the container's root would.
///
/// # Errors
/// It can neither be opened nor made.
pub fn prepare(root: BorrowedFd<'_>, path: &str, is_folder: bool, range: Range) -> Result<OwnedFd, Error> {
    let named = Path::new(path);
    let ids = FilesystemIds::assume(range.base, range.base)
        .map_err(call("act as the container's root on", named))?;
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let mut parent = open_in(root, ".").map_err(call("open", named))?;
    for (depth, part) in parts.iter().enumerate() {
        let so_far = parts.iter().take(depth + 1).copied().collect::<Vec<_>>().join("/");
        let last = depth + 1 == parts.len();
        parent = match open_in(root, &so_far) {
            Err(Errno::NOENT) => {
                make(parent.as_fd(), part, is_folder || !last).map_err(call("create", named))?;
                open_in(root, &so_far)
            }
            other => other,
        }
        .map_err(call("open", named))?;
    }
    drop(ids);
    Ok(parent)
}

/// Has the folders above `path`, which has no links and is below `root`, in the container's own layer from the beginning.
///
/// What is mounted on keeps the kernel's view of the folders above it for as long as the container runs: of the image's. Should
/// the engine copy something into one of them, which it does through a mount of its own, the container could neither see
/// that nor make a file there any more. Nothing that `docker diff` looks at changes.
pub fn own_parents(root: BorrowedFd<'_>, path: &str) {
    for parent in Path::new(path).ancestors().skip(1).filter(|parent| parent.parent().is_some()) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let opened = openat2(root, parent, flags, Mode::empty(), resolve);
        let touch = |folder: OwnedFd| fchmod(&folder, Mode::from_raw_mode(fstat(&folder)?.st_mode & 0o7777));
        // A folder that is left in the image's layers is one that `docker cp` has to keep clear of, no more.
        let _best_effort = opened.and_then(touch);
    }
}

fn open_in(root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn make(parent: BorrowedFd<'_>, name: &str, is_folder: bool) -> rustix::io::Result<()> {
    if is_folder {
        return mkdirat(parent, name, Mode::from_raw_mode(0o755));
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn image() -> (tempfile::TempDir, fs::File) {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::File::open(folder.path()).unwrap();
        (folder, root)
    }

    #[test]
    fn an_image_with_folders_or_without_passes() {
        let (folder, root) = image();
        fs::create_dir(folder.path().join("dev")).unwrap();
        assert!(check_folders(root.as_fd()).is_ok());
    }

    #[test]
    fn an_image_whose_dev_is_a_link_or_whose_proc_is_a_file_is_refused() {
        let (folder, root) = image();
        symlink("/etc", folder.path().join("dev")).unwrap();
        assert!(matches!(check_folders(root.as_fd()), Err(Error::NotAFolder { path: "/dev" })));
        fs::remove_file(folder.path().join("dev")).unwrap();
        fs::write(folder.path().join("proc"), "").unwrap();
        assert!(matches!(check_folders(root.as_fd()), Err(Error::NotAFolder { path: "/proc" })));
    }

    #[test]
    fn links_of_the_image_stay_inside_of_it() {
        let (folder, root) = image();
        symlink("/../../../..", folder.path().join("up")).unwrap();
        let opened = open_in(root.as_fd(), "up").unwrap();
        let (found, own) = (rustix::fs::fstat(&opened).unwrap(), rustix::fs::fstat(&root).unwrap());
        assert_eq!((found.st_dev, found.st_ino), (own.st_dev, own.st_ino));
    }
}
