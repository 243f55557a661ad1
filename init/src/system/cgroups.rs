//! The cgroup tree: `/eci/<service>` for services, `/docker` for containers (the engine makes it).

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use eci_sys::cgroup_program::address::{self, Destination};
use eci_sys::cgroup_program::device;

use crate::{kmsg, tpm};

const ROOT: &str = "/sys/fs/cgroup";
/// Name of the cgroup that PID 1 is in where it cannot stay in the root.
pub const OWN: &str = "init";
const SERVICES: &str = "/sys/fs/cgroup/eci";
/// Device number of `/dev/console`: the machine's console, not a container's pty.
const CONSOLE: (i32, i32) = (5, 1);
/// Services that fetch what somebody names: the engine, and containerd, which it has fetch things. Their children are in their cgroups;
/// containers are not.
const DIALLERS: [&str; 2] = ["engine", "containerd"];
/// Where resolvers listen. Containers that ask the engine's resolver have it ask theirs, which may be anybody.
const DNS: u16 = 53;

/// Why the tree could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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
}

/// Passes every controller down from the root and makes the services' branch. PID 1 stays in the root cgroup, which
/// alone may have processes beside children.
///
/// # Errors
/// When the kernel refuses.
pub fn prepare() -> Result<(), Error> {
    pass_down(Path::new(ROOT))?;
    create(Path::new(SERVICES))?;
    pass_down(Path::new(SERVICES))
}

/// Keeps every process of the machine from opening the console, by whatever node: images may have one, and crun's rules for
/// devices let every container use it.
///
/// # Errors
/// When the kernel does not take the program.
pub fn close_console() -> Result<(), Error> {
    let (major, minor) = CONSOLE;
    close(major, Some(minor))
}

/// Keeps every process of the machine from opening a TPM, one that the kernel finds later included. Whoever has it open goes on.
///
/// # Errors
/// When the kernel does not take the program.
pub fn close_tpm() -> Result<(), Error> {
    let numbers = tpm::numbers().map_err(failed("look at", Path::new("/dev")))?;
    let signed = |number: u32| i32::from_ne_bytes(number.to_ne_bytes());
    numbers.into_iter().try_for_each(|(major, minor)| close(signed(major), minor.map(signed)))
}

fn close(major: i32, minor: Option<i32>) -> Result<(), Error> {
    let root = Path::new(ROOT);
    let folder = fs::File::open(root).map_err(failed("open", root))?;
    device::close(folder.as_fd(), major, minor).map_err(failed("attach a program for devices to", root))
}

/// Keeps the services that fetch from every address but these: they ask the first for whatever they want. Resolvers are reached besides, and
/// answers of the engine's resolver, which are datagrams to a container's loopback.
///
/// Before the services start, as sockets that are connected already stay so; their cgroups are the same for as long as the machine runs.
///
/// # Errors
/// When the kernel does not take the programs.
pub fn keep_diallers_to(addresses: &[SocketAddr]) -> Result<(), Error> {
    let mut destinations: Vec<_> = addresses.iter().copied().map(Destination::Tcp).collect();
    destinations.extend([Destination::Port(DNS), Destination::LoopbackDatagrams]);
    for name in DIALLERS {
        let folder = Path::new(SERVICES).join(name);
        create(&folder)?;
        let opened = fs::File::open(&folder).map_err(failed("open", &folder))?;
        address::keep_to(opened.as_fd(), &destinations)
            .map_err(failed("attach a program for addresses to", &folder))?;
    }
    Ok(())
}

/// Makes the cgroup of a service, with this share of one processor at most, and opens it for the process that will enter it.
///
/// # Errors
/// When the kernel refuses.
pub fn open_service(name: &str, cpu_percent: Option<u32>) -> Result<OwnedFd, Error> {
    let folder = Path::new(SERVICES).join(name);
    create(&folder)?;
    if let Some(percent) = cpu_percent {
        let path = folder.join("cpu.max");
        fs::write(&path, cpu_max(percent)).map_err(failed("write", &path))?;
    }
    let path = folder.join("cgroup.procs");
    let file = fs::File::options().write(true).open(&path);
    file.map(OwnedFd::from).map_err(failed("open", &path))
}

/// Kills every process of services and containers: all that is below PID 1's root but PID 1's own.
pub fn kill_all() {
    for folder in branches() {
        let path = folder.join("cgroup.kill");
        kmsg::best_effort("kill what is left", fs::write(&path, "1").map_err(failed("write", &path)));
    }
}

/// Whether any of those processes is left.
#[must_use]
pub fn anything_left() -> bool {
    branches().any(|folder| {
        let events = fs::read_to_string(folder.join("cgroup.events")).unwrap_or_default();
        events.lines().any(|line| line == "populated 1")
    })
}

/// The branches that are not PID 1's own.
fn branches() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(ROOT).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.filter(|entry| entry.file_name() != OWN).map(|entry| entry.path())
}

/// Kills every process of a service, those it left behind included.
///
/// # Errors
/// When the cgroup is not there.
pub fn kill_service(name: &str) -> Result<(), Error> {
    let path = Path::new(SERVICES).join(name).join("cgroup.kill");
    fs::write(&path, "1").map_err(failed("write", &path))
}

fn create(folder: &Path) -> Result<(), Error> {
    match fs::create_dir(folder) {
        Err(err) if err.kind() != io::ErrorKind::AlreadyExists => Err(failed("create", folder)(err)),
        _ => Ok(()),
    }
}

/// Gives the children of a cgroup all of its controllers.
///
/// # Errors
/// When the kernel refuses.
pub fn pass_down(folder: &Path) -> Result<(), Error> {
    let available = folder.join("cgroup.controllers");
    let controllers = fs::read_to_string(&available).map_err(failed("read", &available))?;
    let subtree = folder.join("cgroup.subtree_control");
    fs::write(&subtree, enable_all(&controllers)).map_err(failed("write", &subtree))
}

/// `cpu.max`: microseconds of processor time in each 100 ms.
fn cpu_max(percent: u32) -> String {
    format!("{} 100000", u64::from(percent) * 1000)
}

/// `cpu io` gives `+cpu +io`.
fn enable_all(controllers: &str) -> String {
    let controllers: Vec<_> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    controllers.join(" ")
}

fn failed<'a>(operation: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Error + 'a {
    move |source| Error::File { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_controller_is_enabled() {
        assert_eq!(enable_all("cpuset cpu io\n"), "+cpuset +cpu +io");
    }

    #[test]
    fn a_share_is_of_one_processor() {
        assert_eq!(cpu_max(20), "20000 100000");
    }

    #[test]
    fn errors_name_the_file() {
        let error = failed("write", Path::new("/x"))(io::ErrorKind::NotFound.into());
        assert_eq!(error.to_string(), "cannot write `/x`");
    }
}
