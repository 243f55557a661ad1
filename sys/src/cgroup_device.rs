//! A program of the kernel's that decides about devices for a cgroup and all below it (`BPF_PROG_TYPE_CGROUP_DEVICE`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `BPF_PROG_LOAD`.
const LOAD: libc::c_int = 5;
/// `BPF_PROG_ATTACH`.
const ATTACH: libc::c_int = 8;
/// `BPF_PROG_TYPE_CGROUP_DEVICE`.
const PROGRAM: u32 = 15;
/// `BPF_CGROUP_DEVICE`.
const DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: cgroups below have programs of their own, and every one has to agree.
const ALLOW_MULTI: u32 = 2;
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
    attach(cgroup, &load(&program(major, minor))?)
}

/// One instruction: code, destination and source register, distance of a jump, number.
const fn instruction(code: u8, destination: u8, source: u8, offset: i16, number: i32) -> u64 {
    let registers = (source << 4) | destination;
    let [first, second] = offset.to_ne_bytes();
    let [third, fourth, fifth, sixth] = number.to_ne_bytes();
    u64::from_ne_bytes([code, registers, first, second, third, fourth, fifth, sixth])
}

/// Register 1 is a `struct bpf_cgroup_dev_ctx`: access and kind in one word, major, minor. Register 0 is the answer: 1 at every
/// exit but the last.
const fn program(major: i32, minor: Option<i32>) -> [u64; 14] {
    const LOAD_WORD: u8 = 0x61;
    const SET: u8 = 0xb7;
    const COPY: u8 = 0xbf;
    const AND: u8 = 0x57;
    const SHIFT_RIGHT: u8 = 0x77;
    const JUMP_UNLESS_EQUAL: u8 = 0x55;
    const JUMP_IF_SHARED: u8 = 0x45;
    const EXIT: u8 = 0x95;
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

#[expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]
fn load(instructions: &[u64]) -> io::Result<OwnedFd> {
    let licence = c"GPL";
    let mut attributes = [0_u64; 16];
    attributes[0] = u64::from(PROGRAM) | ((instructions.len() as u64) << 32);
    attributes[1] = instructions.as_ptr() as u64;
    attributes[2] = licence.as_ptr() as u64;
    // SAFETY: the kernel reads `attributes` for the size given, as many instructions as it says from the address in its
    // second word, and the licence to its NUL; all are alive until the call returns. The log's address is 0, so
    // nothing is written.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, LOAD, attributes.as_mut_ptr(), size_of_val(&attributes)) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let descriptor = libc::c_int::try_from(result).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the call gave a new descriptor (close-on-exec, as all of bpf(2)'s) that nobody else knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]
fn attach(cgroup: BorrowedFd<'_>, program: &OwnedFd) -> io::Result<()> {
    let number = |fd: libc::c_int| u32::from_ne_bytes(fd.to_ne_bytes());
    let mut attributes = [number(cgroup.as_raw_fd()), number(program.as_raw_fd()), DEVICE, ALLOW_MULTI];
    // SAFETY: the kernel reads `attributes`, a live local, for the size given; there is no address in it. Both descriptors
    // stay open for the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, ATTACH, attributes.as_mut_ptr(), size_of_val(&attributes)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
