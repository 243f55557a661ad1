//! Who asks, and for what: everything of the caller that an answer needs, read once.
//!
//! The thread's folder in `/proc` is opened first and belongs to that thread for good, so that a number which is used again
//! leads to nobody else. What was read counts when the kernel says afterwards that the call still waits: then it was the
//! caller's that was read.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use eci_sys::{seccomp, userns};
use rustix::fs::{CWD, Mode, OFlags, fstat, open, openat};
use rustix::io::{Errno, pread};

use crate::credentials::{self, Credentials};
use crate::notification::{Call, Start};
use crate::path::{self, MAX_BYTES};

/// The caller's memory comes in pages of at least this size: what is read at once does not cross into another.
const PAGE: u64 = 4096;
/// Upper bound of `/proc/<tid>/status` in bytes: 65,536 further groups of up to ten digits, and 2 KiB of other lines.
const MAX_STATUS_BYTES: u64 = 1024 * 1024;

/// A caller that still waited after all of this was read.
#[derive(Debug)]
pub struct Confirmed<T>(T);

impl<T> Confirmed<T> {
    /// What was read.
    pub fn get(&self) -> &T {
        &self.0
    }
}

/// What a caller asked for, and who it is.
#[derive(Debug)]
pub struct Request {
    /// The path, not empty and without its NUL.
    pub path: Vec<u8>,
    /// Its ids.
    pub credentials: Credentials,
    /// Its root folder.
    pub root: OwnedFd,
    /// The folder that the path starts at.
    pub start: OwnedFd,
    /// Its user namespace, which is a container's.
    pub user_namespace: OwnedFd,
}

/// Reads what `thread` asked for by `call`, notification `id` of `listener`.
///
/// # Errors
/// The answer to the call, when there is nothing more to be done.
pub fn read(
    listener: BorrowedFd<'_>,
    id: u64,
    thread: u32,
    call: &Call,
) -> Result<Confirmed<Request>, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = open(format!("/proc/{thread}"), flags, Mode::empty()).map_err(not_for_this_caller)?;
    let credentials = read_credentials(&folder)?;
    let user_namespace = open_user_namespace(&folder)?;
    let path = read_path(&folder, call.path)?;
    let root = openat(&folder, "root", flags, Mode::empty()).map_err(not_for_this_caller)?;
    let start = match call.start {
        _ if path::is_absolute(&path) => root.try_clone().map_err(|_| Errno::NOMEM)?,
        Start::WorkingDirectory => {
            openat(&folder, "cwd", flags, Mode::empty()).map_err(not_for_this_caller)?
        }
        Start::Descriptor(number) => open_descriptor(&folder, number)?,
    };
    match seccomp::is_waiting(listener, id) {
        Ok(true) => Ok(Confirmed(Request { path, credentials, root, start, user_namespace })),
        // Nobody will hear it.
        Ok(false) | Err(_) => Err(Errno::SRCH),
    }
}

/// Failure inside a guard means no.
fn not_for_this_caller(_: Errno) -> Errno {
    Errno::PERM
}

fn read_credentials(folder: &OwnedFd) -> Result<Credentials, Errno> {
    let file = openat(folder, "status", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(not_for_this_caller)?;
    let mut text = String::new();
    File::from(file).take(MAX_STATUS_BYTES).read_to_string(&mut text).map_err(|_| Errno::PERM)?;
    credentials::read(&text).ok_or(Errno::PERM)
}

/// Only a container's first user namespace has the VM's for its parent. In one below, anybody has every capability.
fn open_user_namespace(folder: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = openat(folder, "ns/user", flags, Mode::empty()).map_err(not_for_this_caller)?;
    let parent = userns::owner_of(namespace.as_fd()).map_err(|_| Errno::PERM)?;
    let own = openat(CWD, "/proc/self/ns/user", flags, Mode::empty()).map_err(not_for_this_caller)?;
    let (parent, own) = (fstat(&parent)?, fstat(&own)?);
    if (parent.st_dev, parent.st_ino) == (own.st_dev, own.st_ino) { Ok(namespace) } else { Err(Errno::PERM) }
}

fn open_descriptor(folder: &OwnedFd, number: i32) -> Result<OwnedFd, Errno> {
    if number < 0 {
        return Err(Errno::BADF);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(folder, format!("fd/{number}"), flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT => Errno::BADF,
        Errno::NOTDIR => Errno::NOTDIR,
        _ => Errno::PERM,
    })
}

/// The path at `address` up to its NUL, each byte read once.
fn read_path(folder: &OwnedFd, address: u64) -> Result<Vec<u8>, Errno> {
    let memory = openat(folder, "mem", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(not_for_this_caller)?;
    read_text(address, |at, buffer| pread(&memory, buffer, at))
}

/// Reads a text with `read`, which fills a buffer from an address on.
///
/// # Errors
/// The kernel's answers to such paths: `EFAULT` when it is not in memory up to its NUL, `ENAMETOOLONG`, and `ENOENT` when
/// it is empty.
pub fn read_text(
    address: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    while text.len() < MAX_BYTES {
        let at = address.checked_add(text.len() as u64).ok_or(Errno::FAULT)?;
        let to_page_end = usize::try_from(PAGE - at % PAGE).unwrap_or(1);
        let mut buffer = vec![0; to_page_end.min(MAX_BYTES - text.len())];
        // Offsets beyond what a file has are addresses of the kernel.
        let length = read(at, &mut buffer).map_err(|_| Errno::FAULT)?;
        let part = buffer.get(..length).filter(|part| !part.is_empty()).ok_or(Errno::FAULT)?;
        if let Some(end) = part.iter().position(|byte| *byte == 0) {
            text.extend(part.iter().take(end));
            return if text.is_empty() { Err(Errno::NOENT) } else { Ok(text) };
        }
        text.extend(part);
    }
    Err(Errno::NAMETOOLONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory that begins at `base`.
    fn text_at(address: u64, base: u64, memory: &[u8]) -> Result<Vec<u8>, Errno> {
        read_text(address, |at, buffer| {
            let from = usize::try_from(at.checked_sub(base).ok_or(Errno::IO)?).map_err(|_| Errno::IO)?;
            let rest = memory.get(from..).filter(|rest| !rest.is_empty()).ok_or(Errno::IO)?;
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            Ok(length)
        })
    }

    #[test]
    fn a_path_ends_at_its_first_nul() {
        assert_eq!(text_at(0x1ffe, 0x1ffe, b"/dev/x\0y\0").unwrap(), b"/dev/x");
        assert_eq!(text_at(0x1000, 0x1000, b"\0"), Err(Errno::NOENT));
    }

    #[test]
    fn memory_that_is_not_there_is_a_fault() {
        assert_eq!(text_at(0, 0x1000, b"x\0"), Err(Errno::FAULT));
        assert_eq!(text_at(0x1000, 0x1000, b"without an end"), Err(Errno::FAULT));
        assert_eq!(text_at(u64::MAX, u64::MAX, b"x"), Err(Errno::FAULT));
    }

    #[test]
    fn the_longest_path_has_4095_bytes() {
        let memory = |length| [vec![b'x'; length], vec![0]].concat();
        assert_eq!(text_at(0x1800, 0x1800, &memory(MAX_BYTES - 1)).unwrap().len(), MAX_BYTES - 1);
        assert_eq!(text_at(0x1800, 0x1800, &memory(MAX_BYTES)), Err(Errno::NAMETOOLONG));
    }

    #[test]
    fn this_process_is_in_no_container() {
        let folder = open("/proc/self", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        assert_eq!(open_user_namespace(&folder).unwrap_err(), Errno::PERM);
        assert!(read_credentials(&folder).is_ok());
        assert_eq!(open_descriptor(&folder, -1).unwrap_err(), Errno::BADF);
        assert_eq!(open_descriptor(&folder, 9999).unwrap_err(), Errno::BADF);
    }

    #[test]
    fn memory_is_read_as_it_is() {
        let folder = open("/proc/self", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let path = c"/dev/null";
        assert_eq!(read_path(&folder, path.as_ptr() as u64).unwrap(), path.to_bytes());
        assert_eq!(read_path(&folder, 8), Err(Errno::FAULT));
        assert_eq!(read_path(&folder, u64::MAX - 8), Err(Errno::FAULT));
    }
}
