//! The loop: somebody reads a file of a figure; it is written anew, and the reader goes on.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use eci_contract::paths::{CONTAINERS_DIR, PROCFS_DIR};
use eci_contract::procfs::FIGURE_XATTR;
use eci_policy::rules::figure::{self, Row};
use eci_service::confine::{Kept, confine};
use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
};
use rustix::fs::{CWD, fgetxattr};
use rustix::thread::CapabilitySet;
use rustix::time::{ClockId, clock_gettime};

use crate::container::{Container, Machine};

/// Longest attribute in bytes: a container's id has 64.
const MAX_NAME_BYTES: usize = 256;

const KEPT: &[Kept] = &[(
    CapabilitySet::SYS_ADMIN,
    "to be asked before a read, and to read the attribute that tells whose file it is",
)];

/// Why this program cannot start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel gives no events.
    #[error("this kernel does not ask before a file is read (fanotify permission events)")]
    Group(#[source] nix::Error),
    /// The tmpfs is not there.
    #[error("cannot watch the file system at `{PROCFS_DIR}`")]
    Watch(#[source] nix::Error),
    /// Capabilities cannot be given up.
    #[error("cannot give up capabilities")]
    Confine(#[source] rustix::io::Errno),
    /// PID 1 could not be told.
    #[error("cannot report readiness")]
    Notify(#[source] io::Error),
    /// Events cannot be read.
    #[error("cannot read events")]
    Events(#[source] nix::Error),
    /// Events cannot be answered. The kernel answers them when this program has ended.
    #[error("cannot answer an event")]
    Answer(#[source] nix::Error),
}

/// Serves for ever.
///
/// # Errors
/// See [`Error`].
pub fn run() -> Result<Infallible, Error> {
    let flags = InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC;
    let group =
        Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC).map_err(Error::Group)?;
    let add = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM;
    group.mark(add, MaskFlags::FAN_ACCESS_PERM, CWD, Some(PROCFS_DIR)).map_err(Error::Watch)?;
    confine(KEPT).map_err(Error::Confine)?;
    eci_service::ready().map_err(Error::Notify)?;
    let mut containers = Containers { machine: Machine { root: "/".into() }, known: BTreeMap::new() };
    loop {
        for event in group.read_events().map_err(Error::Events)? {
            answer(&group, &event, &mut containers)?;
        }
    }
}

fn answer(group: &Fanotify, event: &FanotifyEvent, containers: &mut Containers) -> Result<(), Error> {
    // Without one the queue was too long; the kernel has let those readers go on.
    let Some(file) = event.fd() else { return Ok(()) };
    if let Some((id, row)) = name_of(file) {
        containers.refresh(&id, row, file);
    }
    match group.write_response(FanotifyResponse::new(file, Response::FAN_ALLOW)) {
        // The reader was killed.
        Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
        Err(errno) => Err(Error::Answer(errno)),
    }
}

/// The container and the figure that a file is for; `None` for a file of ours, or none of `eci-runc`'s.
fn name_of(file: impl AsFd) -> Option<(String, &'static Row)> {
    let mut bytes = [0; MAX_NAME_BYTES];
    let length = fgetxattr(file, FIGURE_XATTR, &mut bytes).ok()?;
    let name = std::str::from_utf8(bytes.get(..length)?).ok()?;
    let (id, figure) = name.split_once('/')?;
    Some((id.to_owned(), figure::of_file(figure)?))
}

struct Containers {
    machine: Machine,
    known: BTreeMap<String, Container>,
}

impl Containers {
    /// Writes a figure anew. What fails leaves the file as it was, and the container with that.
    fn refresh(&mut self, id: &str, row: &Row, file: BorrowedFd<'_>) {
        if !self.known.contains_key(id) {
            self.known.retain(|_, container| container.exists());
            let (folder, about) = (Path::new(PROCFS_DIR).join(id), Path::new(CONTAINERS_DIR).join(id));
            let opened = Container::open(&folder, &about, &self.machine);
            let Ok(container) = opened else { return };
            self.known.insert(id.to_owned(), container);
        }
        if let Some(container) = self.known.get_mut(id) {
            drop(container.refresh(row, now_us(), &self.machine, || read_all(file)));
        }
    }
}

/// What a file has, by the descriptor of an event: reading by that makes none.
fn read_all(file: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::from(file.try_clone_to_owned()?).read_to_end(&mut content)?;
    Ok(content)
}

/// Microseconds since the VM's boot.
fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let of = |value| u64::try_from(value).unwrap_or_default();
    of(now.tv_sec) * 1_000_000 + of(now.tv_nsec) / 1_000
}
