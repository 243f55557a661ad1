//! A branch of the cgroup tree: its root is what all distros share, so nothing of ours is made or closed there.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::statfs;

use crate::system::cgroups::{self, OWN, pass_down};

/// Where WSL mounts the tree.
const TREE: &str = "/sys/fs/cgroup";
/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP2: i64 = 0x6367_7270;
/// What names of branches begin with; the number of the process namespace follows.
const PREFIX: &str = "eci-";

/// Why there is no branch.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// WSL has mounted the older hierarchies.
    #[error("`{TREE}` is not cgroup v2: update WSL (`wsl --update`), and leave `automount.cgroups` alone")]
    Version,
    /// A file or folder of the tree failed.
    #[error("cannot {operation} `{}`", .path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The controllers could not be passed down.
    #[error(transparent)]
    PassDown(#[from] cgroups::Error),
    /// No namespace.
    #[error("cannot make a cgroup namespace")]
    Namespace(#[source] nix::Error),
}

/// Makes a branch, moves into it, and makes it the root of what this process and its children see.
///
/// # Errors
/// When the tree is not cgroup v2, or the kernel refuses.
pub fn enter_branch() -> Result<(), Error> {
    let tree = Path::new(TREE);
    if statfs(tree).map_or(0, |found| found.f_type) != CGROUP2 {
        return Err(Error::Version);
    }
    remove_dead_branches(tree);
    pass_down(tree)?;
    let namespace = Path::new("/proc/self/ns/pid");
    let number = fs::metadata(namespace).map_err(failed("read", namespace))?.ino();
    let branch = tree.join(format!("{PREFIX}{number}"));
    create(&branch)?;
    enter(&branch)?;
    unshare(CloneFlags::CLONE_NEWCGROUP).map_err(Error::Namespace)?;
    // Only the true root may have processes beside children that have controllers.
    let own = branch.join(OWN);
    create(&own)?;
    enter(&own)
}

fn create(folder: &Path) -> Result<(), Error> {
    fs::create_dir(folder).map_err(failed("make", folder))
}

fn enter(folder: &Path) -> Result<(), Error> {
    let path = folder.join("cgroup.procs");
    fs::write(&path, "0").map_err(failed("write", &path))
}

/// Takes away branches of distros that have ended. Those that are left hold nothing but their name.
fn remove_dead_branches(tree: &Path) {
    for entry in fs::read_dir(tree).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let events = fs::read_to_string(entry.path().join("cgroup.events")).unwrap_or_default();
        if is_ours && events.lines().any(|line| line == "populated 0") {
            remove(&entry.path());
        }
    }
}

fn remove(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    // One that came to life meanwhile stays.
    drop(fs::remove_dir(folder));
}

fn failed<'a>(operation: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Error + 'a {
    move |source| Error::File { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do_and_name_the_file() {
        assert!(Error::Version.to_string().contains("wsl --update"));
        let error = failed("make", Path::new("/x"))(io::ErrorKind::NotFound.into());
        assert_eq!(error.to_string(), "cannot make `/x`");
        assert_eq!(Error::Namespace(nix::Error::EPERM).to_string(), "cannot make a cgroup namespace");
    }
}
