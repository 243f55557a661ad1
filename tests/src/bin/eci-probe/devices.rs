//! Device nodes and ports of the machine.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileTypeExt;

use eci_sys::raw::{self, Abi, Argument, Call};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::attempt::{At, Attempt, Failure, Verb, effective, scratch};

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "mknod-block",
        why: "the VM's disk under a name of one's own",
        run: |_| mknod(FileType::BlockDevice, 254, 0),
    },
    Verb {
        name: "mknod-null",
        why: "even a harmless node, where it would be of no use: the kernel opens none on what a container mounted",
        run: |_| mknod(FileType::CharacterDevice, 1, 3),
    },
    Verb {
        name: "mknod-whiteout",
        why: "0:0 opens nothing; nested engines mark deleted files so",
        run: |_| mknod(FileType::CharacterDevice, 0, 0),
    },
    Verb { name: "mknod-fifo", why: "a pipe with a name", run: |_| mknod(FileType::Fifo, 0, 0) },
    Verb {
        name: "open-read",
        why: "a node or file of the VM; takes its path",
        run: |path| {
            let mut byte = [0];
            let length = File::open(path).at("open")?.read(&mut byte)?;
            effective(length == 1)
        },
    },
    Verb {
        name: "open-device",
        why: "a device that a container has is of use; takes its path",
        run: |path| {
            let file = File::options().read(true).write(true).open(path)?;
            effective(file.metadata().at("stat")?.file_type().is_char_device())
        },
    },
    Verb {
        name: "block-devices",
        why: "no block device of the VM is in /dev",
        run: |_| {
            let found = fs::read_dir("/dev")
                .at("open")?
                .flatten()
                .find(|entry| entry.file_type().is_ok_and(|kind| kind.is_block_device()));
            let found = found.ok_or(Failure::NothingThere)?;
            eprintln!("found {}", found.path().display());
            Ok(())
        },
    },
    Verb {
        name: "iopl",
        why: "the machine's ports: disk controllers, reset",
        run: |_| ports(Call::Iopl, &mut [3]),
    },
    Verb { name: "ioperm", why: "the same, port by port", run: |_| ports(Call::Ioperm, &mut [0x80, 1, 1]) },
];

fn mknod(kind: FileType, major: u32, minor: u32) -> Attempt {
    let path = scratch()?.join(format!("node-{major}-{minor}"));
    mknodat(CWD, &path, kind, Mode::RUSR | Mode::WUSR, makedev(major, minor))?;
    effective(fs::symlink_metadata(&path).is_ok_and(|made| !made.file_type().is_file()))
}

fn ports(call: Call, numbers: &mut [i64]) -> Attempt {
    let mut arguments: Vec<_> = numbers.iter().map(|number| Argument::Number(*number)).collect();
    raw::call(Abi::Native, call, &mut arguments)?;
    Ok(())
}
