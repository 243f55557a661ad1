//! Making the node: the folder is looked up as the caller, the node is made in the folder that was found.
//!
//! Two processes: the one that looks up is in the caller's user namespace, root and working directory, with the caller's ids and
//! capabilities, so that the kernel answers it as it would answer the caller; there, it may make no node. It hands over the
//! opened folder, and the one that makes the node has the caller's ids, but is in the VM's user namespace.

use std::io::{IoSlice, IoSliceMut};
use std::mem::{MaybeUninit, forget};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use eci_contract::nodes::Ground;
use eci_policy::rules::node::Makeable;
use eci_sys::child;
use eci_sys::fsuid::FilesystemIds;
use rustix::fs::{
    Access, AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, StatVfsMountFlags, StatxFlags, accessat,
    fstatvfs, makedev, mknodat, openat2, statat, statx,
};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::{
    Pid, Signal, WaitOptions, chroot, fchdir, set_parent_process_death_signal, umask, waitpid,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, LinkNameSpaceType, move_into_link_name_space, set_capabilities,
    set_thread_groups,
};

use crate::caller::{Confirmed, Request};
use crate::path::{Split, split};

/// Exit code of a child for an error: above 0, and below what a panic gives.
#[must_use]
pub fn to_code(outcome: Result<(), Errno>) -> i32 {
    outcome.map_or_else(|errno| errno.raw_os_error(), |()| 0)
}

/// What a child's exit code says; no code, or one that no error has, is a no.
///
/// # Errors
/// The error of the code.
pub fn from_code(code: Option<i32>) -> Result<(), Errno> {
    match code {
        Some(0) => Ok(()),
        // `EHWPOISON` is the last; a child that panics gives 101, which no call here gives.
        Some(code @ 1..=133) if code != 101 => Err(Errno::from_raw_os_error(code)),
        _ => Err(Errno::PERM),
    }
}

/// Makes the node `row` where `request` says, with the permissions of `mode`. Changes who this process is: it has to end then.
///
/// # Errors
/// The answer to the call.
pub fn node(request: &Confirmed<Request>, row: &Makeable, mode: u16, ground: &Ground) -> Result<(), Errno> {
    let request = request.get();
    if !request.credentials.capabilities.contains(CapabilitySet::MKNOD) {
        return Err(Errno::PERM);
    }
    let split = split(&request.path);
    check_device(request.start.as_fd(), ground)?;
    let folder = look_up(request, &split)?;
    check_device(folder.as_fd(), ground)?;
    // The node would be of no use; the kernel says as much, and programs know what to do then.
    if fstatvfs(&folder)?.f_flag.contains(StatVfsMountFlags::NODEV) {
        return Err(Errno::PERM);
    }
    become_maker(request)?;
    let mode = Mode::from_raw_mode(u32::from(mode) & 0o7777);
    mknodat(&folder, split.name, FileType::CharacterDevice, mode, makedev(row.major, row.minor))
}

/// Whether a folder is on the container's root filesystem, asked without waiting for the file system's own answer, which may
/// be a process of the container. On the container's other file systems nodes are of no use: the kernel opens none on what
/// was mounted in a user namespace, and volumes are mounted without devices.
fn check_device(folder: BorrowedFd<'_>, ground: &Ground) -> Result<(), Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = statx(folder, c"", flags, StatxFlags::TYPE)?;
    if makedev(found.stx_dev_major, found.stx_dev_minor) == ground.root_device {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}

/// Opens the folder of `split` as the caller, who has to be able to make a file in it.
fn look_up(request: &Request, split: &Split<'_>) -> Result<OwnedFd, Errno> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let child = child::start(|| {
        let found = look_up_as_caller(request, split);
        to_code(found.and_then(|folder| hand_over(&theirs, &folder)))
    })
    .map_err(|_| Errno::AGAIN)?;
    drop(theirs);
    let folder = take_over(&ours);
    let ended = waitpid(Pid::from_raw(child), WaitOptions::empty())?;
    from_code(ended.and_then(|(_, status)| status.exit_status()))?;
    folder.ok_or(Errno::PERM)
}

fn look_up_as_caller(request: &Request, split: &Split<'_>) -> Result<OwnedFd, Errno> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    become_caller(request)?;
    // Links through processes lead out of the root, and what else is mounted may be a file system of the container's own
    // making, which would not have to answer.
    let resolve = ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat2(CWD, split.folder, flags, Mode::empty(), resolve).map_err(|errno| match errno {
        Errno::XDEV => Errno::PERM,
        other => other,
    })?;
    match accessat(&folder, c".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        // Making the node says so too, unless the name is taken.
        Ok(()) | Err(Errno::ROFS) => Ok(folder),
        Err(errno) if statat(&folder, split.name, AtFlags::SYMLINK_NOFOLLOW).is_err() => Err(errno),
        Err(_) => Err(Errno::EXIST),
    }
}

/// This process becomes as good as the caller: its root, folder, ids, user namespace and capabilities.
fn become_caller(request: &Request) -> Result<(), Errno> {
    fchdir(&request.root)?;
    chroot(c".")?;
    fchdir(&request.start)?;
    take_ids(request)?;
    move_into_link_name_space(request.user_namespace.as_fd(), Some(LinkNameSpaceType::User))?;
    limit_capabilities(request.credentials.capabilities)
}

/// This process gets the caller's ids, and no capability but to make nodes, and to pass permissions where the caller does.
fn become_maker(request: &Request) -> Result<(), Errno> {
    let credentials = &request.credentials;
    take_ids(request)?;
    umask(credentials.umask);
    let passing = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
    limit_capabilities(CapabilitySet::MKNOD | credentials.capabilities.intersection(passing))
}

fn take_ids(request: &Request) -> Result<(), Errno> {
    let credentials = &request.credentials;
    let groups: Vec<_> = credentials.groups.iter().copied().map(Gid::from_raw).collect();
    set_thread_groups(&groups)?;
    let ids = FilesystemIds::assume(credentials.uid, credentials.gid).map_err(|_| Errno::PERM)?;
    // They stay until this process ends.
    forget(ids);
    Ok(())
}

fn limit_capabilities(set: CapabilitySet) -> Result<(), Errno> {
    set_capabilities(
        None,
        CapabilitySets { effective: set, permitted: set, inheritable: CapabilitySet::empty() },
    )
}

fn hand_over(socket: &OwnedFd, folder: &OwnedFd) -> Result<(), Errno> {
    let folder = [folder.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&folder));
    sendmsg(socket, &[IoSlice::new(b"x")], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// The folder that the child found; `None` when it ended without.
fn take_over(socket: &OwnedFd) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_carry_errors_and_what_is_no_code_is_a_no() {
        for errno in [Errno::PERM, Errno::ACCESS, Errno::EXIST, Errno::ROFS, Errno::DQUOT] {
            assert_eq!(from_code(Some(to_code(Err(errno)))), Err(errno));
        }
        assert_eq!(from_code(Some(to_code(Ok(())))), Ok(()));
        for code in [None, Some(101), Some(134), Some(-1), Some(255)] {
            assert_eq!(from_code(code), Err(Errno::PERM), "{code:?}");
        }
    }

    #[test]
    fn a_folder_elsewhere_is_not_the_container_s() {
        let folder = rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let device = rustix::fs::fstat(&folder).unwrap().st_dev;
        assert_eq!(check_device(folder.as_fd(), &Ground { version: 1, root_device: device }), Ok(()));
        assert_eq!(
            check_device(folder.as_fd(), &Ground { version: 1, root_device: device + 1 }),
            Err(Errno::PERM)
        );
    }

    #[test]
    fn a_folder_is_handed_over() {
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let folder = rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        hand_over(&one, &folder).unwrap();
        let taken = take_over(&other).unwrap();
        assert_eq!(rustix::fs::fstat(&taken).unwrap().st_dev, rustix::fs::fstat(&folder).unwrap().st_dev);
        drop(one);
        assert!(take_over(&other).is_none());
    }
}
