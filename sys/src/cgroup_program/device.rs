//! A program that decides about devices (`BPF_PROG_TYPE_CGROUP_DEVICE`).

use std::io;
use std::os::fd::BorrowedFd;

use super::code::{AND, COPY, EXIT, JUMP_IF_SHARED, JUMP_UNLESS_EQUAL, LOAD_WORD, SET, SHIFT_RIGHT};
use super::{Hook, install, instruction};

/// `BPF_PROG_TYPE_CGROUP_DEVICE` and `BPF_CGROUP_DEVICE`.
const DEVICE: Hook = Hook { program: 15, attach: 6 };
/// `BPF_DEVCG_DEV_CHAR`.
const CHARACTER: i32 = 2;
/// `BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE`: to open a node, not to make one.
const OPEN: i32 = 6;

/// Keeps every process of `cgroup` and of those below it from opening character device `major`:`minor`, for good; without a minor
/// number, any of that major one.
///
/// # Errors
/// The error of `bpf(2)`: `EPERM` without `CAP_BPF` or in lockdown, `EINVAL` where the kernel has no such programs.
pub fn close(cgroup: BorrowedFd<'_>, major: i32, minor: Option<i32>) -> io::Result<()> {
    install(cgroup, DEVICE, &program(major, minor))
}

/// Register 1 is a `struct bpf_cgroup_dev_ctx`: access and kind in one word, major, minor. Register 0 is the answer: 1 at every
/// exit but the last.
const fn program(major: i32, minor: Option<i32>) -> [u64; 14] {
    [
        instruction(SET, 0, 0, 0, 1),
        instruction(LOAD_WORD, 2, 1, 4, 0),
        instruction(JUMP_UNLESS_EQUAL, 2, 0, 8, major),
        instruction(LOAD_WORD, 2, 1, 8, 0),
        // A jump to the next instruction where any will do.
        match minor {
            Some(minor) => instruction(JUMP_UNLESS_EQUAL, 2, 0, 6, minor),
            None => instruction(JUMP_UNLESS_EQUAL, 2, 0, 0, 0),
        },
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(COPY, 3, 2, 0, 0),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(JUMP_UNLESS_EQUAL, 2, 0, 2, CHARACTER),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(JUMP_IF_SHARED, 3, 0, 1, OPEN),
        instruction(EXIT, 0, 0, 0, 0),
        instruction(SET, 0, 0, 0, 0),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}
