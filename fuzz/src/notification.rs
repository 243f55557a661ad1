//! Notifications: whatever a container's registers and memory hold, no node but a harmless one is made, the path is what the
//! kernel would have read, and its last name is one name.

use std::cell::RefCell;
use std::ops::Range;

use eci_nodes::notification::{Notification, Start};
use eci_nodes::path::{Split, split};
use eci_nodes::{caller, credentials, notification};

/// Bytes of a `struct seccomp_notif`.
const NOTIFICATION: usize = 80;
/// Bytes of the longest path with its NUL.
const PATH: usize = 4096;
/// What parts the caller's memory from its line in `/proc`.
const END_OF_MEMORY: &[u8] = b"\n--\n";
/// Architecture, number, and which argument is the path; mode and device follow.
const CALLS: &[(u32, u32, usize)] = &[
    (0xc000_003e, 133, 0),
    (0xc000_003e, 259, 1),
    (0x4000_0003, 14, 0),
    (0x4000_0003, 297, 1),
    (0xc000_00b7, 33, 1),
    (0x4000_0028, 14, 0),
    (0x4000_0028, 324, 1),
];
/// Device numbers of null, zero, full, random, urandom, tty and ptmx.
const HARMLESS: &[u64] = &[0x103, 0x105, 0x107, 0x108, 0x109, 0x500, 0x502];

/// Reads `input`: a notification, the caller's memory from the address of its path on, and its status.
///
/// # Panics
/// A promise is broken.
pub fn check(input: &[u8]) {
    let Some((head, rest)) = input.split_first_chunk::<NOTIFICATION>() else { return };
    let end = rest.windows(END_OF_MEMORY.len()).position(|part| part == END_OF_MEMORY);
    let (memory, status) = rest.split_at(end.unwrap_or(rest.len()));
    let found = notification::read(head);
    check_call(head, &found);
    let Ok(call) = found.call else { return };
    if let Ok(path) = check_memory(call.path, memory) {
        check_split(&path, split(&path));
    }
    check_status(&String::from_utf8_lossy(status));
}

fn check_call(head: &[u8; NOTIFICATION], found: &Notification) {
    let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    assert_eq!((found.id, found.thread), (long(0), word(8)));
    let known = CALLS.iter().find(|call| (call.0, call.1) == (word(20), word(16)));
    assert_eq!(found.call.is_ok(), known.is_some(), "a call is taken for another");
    let (Ok(call), Some((_, _, path))) = (found.call, known) else { return };
    let argument = |number: usize| long(32 + 8 * number);
    assert_eq!(call.path, argument(*path));
    let (mode, device) = (argument(path + 1) & 0xffff, argument(path + 2) & 0xffff_ffff);
    assert_eq!((u64::from(call.mode), u64::from(call.device)), (mode, device));
    match call.start {
        Start::WorkingDirectory => assert!(*path == 0 || argument(0) & 0xffff_ffff == 0xffff_ff9c),
        Start::Descriptor(number) => assert_eq!(argument(0) & 0xffff_ffff, u64::from(number as u32)),
    }
    let harmless = mode & 0o170_000 == 0o020_000 && HARMLESS.contains(&device);
    match call.node() {
        Ok(row) => {
            assert!(harmless, "{mode:o} {device:x} is made");
            assert_eq!(u64::from(row.major << 8 | row.minor), device, "another node is made");
        }
        Err(_) => assert!(!harmless, "{mode:o} {device:x} is not made"),
    }
}

/// The path at `address`, where `memory` begins; each byte is read once.
fn check_memory(address: u64, memory: &[u8]) -> Result<Vec<u8>, ()> {
    // Nothing is behind the last address.
    let room = usize::try_from(u64::MAX - address).unwrap_or(usize::MAX);
    let memory = &memory[..memory.len().min(room)];
    let read: RefCell<Vec<Range<u64>>> = RefCell::default();
    let path = caller::read_text(address, |at, buffer| {
        let from = usize::try_from(at - address).expect("no address below the path is read");
        let rest = memory.get(from..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        assert!(read.borrow().iter().all(|earlier| earlier.end <= at), "memory is read twice");
        read.borrow_mut().push(at..at + length as u64);
        assert!(at % 4096 + buffer.len() as u64 <= 4096, "what is read at once crosses a page");
        Ok(length)
    });
    let reachable = &memory[..memory.len().min(PATH)];
    let expected = reachable.iter().position(|byte| *byte == 0).map(|end| &reachable[..end]);
    match &path {
        Ok(path) => {
            assert_eq!(Some(path.as_slice()), expected);
            assert!(!path.is_empty());
        }
        Err(_) => assert!(expected.is_none_or(<[u8]>::is_empty), "a path is not read"),
    }
    path.map_err(drop)
}

fn check_split(path: &[u8], Split { folder, name }: Split<'_>) {
    let last: Vec<_> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    let own: Vec<_> = name.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    assert_eq!(own.len(), 1, "a name is one name");
    assert!(!name.starts_with(b"/") && !folder.is_empty());
    match last.split_last() {
        Some((last, folders)) => {
            assert_eq!(own, [*last]);
            let found: Vec<_> = folder.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
            assert!(found == folders || (folders.is_empty() && folder == b"."), "another folder");
            assert_eq!(folder.starts_with(b"/"), path.starts_with(b"/"), "a path starts elsewhere");
        }
        None => assert_eq!((folder, name), (&b"/"[..], &b"."[..])),
    }
}

/// What is understood stands there, as the fourth of four ids.
fn check_status(text: &str) {
    let Some(found) = credentials::read(text) else { return };
    let stands = |key: &str, id: u32| {
        let mut lines = text.lines().filter(|line| line.starts_with(&format!("{key}:\t")));
        lines
            .next()
            .is_some_and(|line| line.split_whitespace().nth(4).is_some_and(|word| word.parse() == Ok(id)))
    };
    assert!(stands("Uid", found.uid) && stands("Gid", found.gid), "ids are made up");
    assert!(found.umask.as_raw_mode() <= 0o777);
}
