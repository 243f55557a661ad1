//! A file system that answers to nobody: what the VM reads of it keeps the reader waiting.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::thread;
use std::time::Duration;

use eci_sys::child;
use eci_sys::raw::{self, Abi, Argument, Call, MappedPage};
use nix::errno::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::attempt::{At, Attempt, Failure, Verb};

/// Where it is mounted.
const FOLDER: &str = "/held";
/// Seconds that an answer takes at most when nothing holds it up.
const PATIENCE: u64 = 20;

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "make-node-held-memory",
        why: "a path in the memory of a file that nobody delivers must not keep the VM waiting",
        run: |_| {
            within_patience(|| {
                let file = File::open(Path::new(FOLDER).join("path")).at("open")?;
                let page = MappedPage::of(file.as_fd()).at("mmap")?;
                make(Argument::Mapped(&page))
            })
        },
    },
    Verb {
        name: "make-node-held-folder",
        why: "nor a folder that nobody answers for",
        run: |_| within_patience(|| make(Argument::Text(c"/held/unanswered/node"))),
    },
];

/// What comes of `attempt` while the file system is mounted; `allowed` when it is held up.
fn within_patience(attempt: impl FnOnce() -> Attempt) -> Attempt {
    serve()?;
    let caller = child::start(|| match attempt() {
        Err(Failure::Refused(errno)) => errno as i32,
        _ => 0,
    })
    .at("fork")?;
    for _ in 0..PATIENCE * 10 {
        if let Some((_, status)) = waitpid(Pid::from_raw(caller), WaitOptions::NOHANG).at("wait")? {
            return match status.exit_status() {
                Some(errno) if errno > 0 => Err(Failure::Refused(Errno::from_raw(errno))),
                _ => Err(Failure::NoEffect),
            };
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn make(path: Argument<'_>) -> Attempt {
    let [folder, mode, device] = [i64::from(nix::libc::AT_FDCWD), 0o020_600, 0x103].map(Argument::Number);
    Ok(raw::call(Abi::Native, Call::Mknodat, &mut [folder, path, mode, device]).map(drop)?)
}

/// Mounts a file system and leaves a process behind that answers for it.
fn serve() -> Attempt {
    fs::create_dir_all(FOLDER).at("mkdir")?;
    let device = File::options().read(true).write(true).open("/dev/fuse").at("open")?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let options = std::ffi::CString::new(options).map_err(|_| Failure::NotUnderstood("the options"))?;
    mount("held", FOLDER, "fuse", MountFlags::empty(), options.as_c_str()).at("mount")?;
    child::start(|| i32::from(answer_all(&device).is_err())).at("fork").map(drop)
}

/// The requests of FUSE that are answered: by a folder with files in it, whose content is never delivered.
fn answer_all(mut device: &File) -> io::Result<()> {
    const LOOKUP: u32 = 1;
    const GETATTR: u32 = 3;
    const OPEN: u32 = 14;
    const READ: u32 = 15;
    const INIT: u32 = 26;
    const NOT_THERE: i32 = -38;
    let mut request = vec![0; 1 << 17];
    loop {
        let length = device.read(&mut request)?;
        let word = |at: usize| {
            request.get(at..at + 4).and_then(|part| part.try_into().ok()).map_or(0, u32::from_ne_bytes)
        };
        let (unique, node) = (request.get(8..16).unwrap_or_default().to_vec(), word(16));
        let body = match word(4) {
            _ if length < 40 => continue,
            READ => continue,
            // Version 7.31, and zeros for all limits but the size of a write.
            INIT => [words(&[7, 31, 0, 0, 0, 4096]), vec![0; 40]].concat(),
            LOOKUP => [words(&[2, 0, 0, 0, 60, 0, 60, 0, 0, 0]), attributes(2)].concat(),
            GETATTR => [words(&[60, 0, 0, 0]), attributes(node)].concat(),
            OPEN => words(&[1, 0, 0, 0]),
            _ => Vec::new(),
        };
        let error = if body.is_empty() { NOT_THERE } else { 0 };
        let size = u32::try_from(16 + body.len()).unwrap_or(16);
        let answer = [size.to_ne_bytes().to_vec(), error.to_ne_bytes().to_vec(), unique, body].concat();
        // A request that was given up meanwhile has no place for its answer.
        drop(device.write(&answer));
    }
}

/// `struct fuse_attr`: node 1 is the folder, the other a file of a page.
fn attributes(node: u32) -> Vec<u8> {
    let (mode, size) = if node == 1 { (0o040_755, 0) } else { (0o100_644, 4096) };
    let times = [0; 6 + 3];
    [words(&[node, 0, size, 0, 8, 0]), words(&times), words(&[mode, 1, 0, 0, 0, 4096, 0])].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
