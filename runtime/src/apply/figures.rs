//! The files that tell a container of its own processors and memory: made here, kept true by `eci-procfs`.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use eci_contract::procfs::{FIGURE_XATTR, ORIGIN, Origin, VERSION};
use eci_policy::rules::figure::FIGURES;
use rustix::fs::{CWD, XattrFlags, setxattr};
use rustix::time::{ClockId, clock_gettime};

use super::error::{Error, call};
use super::scratch;
use crate::container::Container;

/// Makes the files of `container`, whose cgroup is at `cgroup` from the root of the tree, and gives a detached mount of their
/// folder. They begin as the VM's: so they read when nobody keeps them.
///
/// # Errors
/// They cannot be made.
pub fn make(container: &Container, cgroup: &str) -> Result<OwnedFd, Error> {
    let folder = container.figures();
    DirBuilder::new().mode(0o711).create(&folder).map_err(call("create", &folder))?;
    let started = u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or_default();
    let origin = Origin { version: VERSION, cgroup: cgroup.to_owned(), started };
    let path = container.folder.join(ORIGIN);
    let text = serde_json::to_vec(&origin).map_err(io::Error::from);
    text.and_then(|text| fs::write(&path, text)).map_err(call("write", &path))?;
    for row in FIGURES {
        let path = folder.join(row.file);
        let text = fs::read(row.path).map_err(call("read", Path::new(row.path)))?;
        fs::write(&path, text).map_err(call("write", &path))?;
        let name = format!("{}/{}", container.id, row.file);
        setxattr(&path, FIGURE_XATTR, name.as_bytes(), XattrFlags::CREATE).map_err(call("name", &path))?;
    }
    scratch::clone(CWD, &folder)
}
