//! Programs of the kernel's that decide for every process of a cgroup and of those below it: about devices ([`device`]) and about addresses
//! ([`address`]). A program counts for who is in the cgroup, also for who comes in later; sockets and devices that are open already stay.
//!
//! They are assembled by hand: a few comparisons, for which a compiler or a crate would be more to trust.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub mod address;
pub mod device;

/// `BPF_PROG_LOAD`.
const LOAD: libc::c_int = 5;
/// `BPF_PROG_ATTACH`.
const ATTACH: libc::c_int = 8;
/// `BPF_F_ALLOW_MULTI`: cgroups below have programs of their own, and every one has to agree.
const ALLOW_MULTI: u32 = 2;

/// What a program is asked about, by the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hook {
    /// `enum bpf_prog_type`.
    program: u32,
    /// `enum bpf_attach_type`.
    attach: u32,
}

/// Loads a program and attaches it for good.
fn install(cgroup: BorrowedFd<'_>, hook: Hook, instructions: &[u64]) -> io::Result<()> {
    attach(cgroup, hook, &load(hook, instructions)?)
}

/// Codes of instructions (`Documentation/bpf/standardization/instruction-set.rst`). Jumps compare 32 bits.
mod code {
    pub const LOAD_WORD: u8 = 0x61;
    pub const SET: u8 = 0xb7;
    pub const COPY: u8 = 0xbf;
    pub const AND: u8 = 0x57;
    pub const SHIFT_RIGHT: u8 = 0x77;
    pub const JUMP_UNLESS_EQUAL: u8 = 0x56;
    pub const JUMP_IF_SHARED: u8 = 0x46;
    pub const EXIT: u8 = 0x95;
}

/// One instruction: code, destination and source register, distance of a jump, number.
const fn instruction(code: u8, destination: u8, source: u8, offset: i16, number: i32) -> u64 {
    let registers = (source << 4) | destination;
    let [first, second] = offset.to_ne_bytes();
    let [third, fourth, fifth, sixth] = number.to_ne_bytes();
    u64::from_ne_bytes([code, registers, first, second, third, fourth, fifth, sixth])
}

#[expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]
fn load(hook: Hook, instructions: &[u64]) -> io::Result<OwnedFd> {
    let licence = c"GPL";
    let mut attributes = [0_u64; 16];
    attributes[0] = u64::from(hook.program) | ((instructions.len() as u64) << 32);
    attributes[1] = instructions.as_ptr() as u64;
    attributes[2] = licence.as_ptr() as u64;
    // `expected_attach_type`, behind `prog_ifindex`.
    attributes[8] = u64::from(hook.attach) << 32;
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
fn attach(cgroup: BorrowedFd<'_>, hook: Hook, program: &OwnedFd) -> io::Result<()> {
    let number = |fd: libc::c_int| u32::from_ne_bytes(fd.to_ne_bytes());
    let mut attributes = [number(cgroup.as_raw_fd()), number(program.as_raw_fd()), hook.attach, ALLOW_MULTI];
    // SAFETY: the kernel reads `attributes`, a live local, for the size given; there is no address in it. Both descriptors
    // stay open for the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, ATTACH, attributes.as_mut_ptr(), size_of_val(&attributes)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
