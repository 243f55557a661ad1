//! What a notification asks for: `struct seccomp_notif`, read without looking at anything else.

use eci_policy::rules::node::{self, Makeable};
use eci_sys::seccomp::NOTIFICATION_BYTES;
use rustix::io::Errno;

/// One call that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification {
    /// What the answer has to name.
    pub id: u64,
    /// The thread that made the call.
    pub thread: u32,
    /// The call; an error is its answer.
    pub call: Result<Call, Errno>,
}

/// `mknod` or `mknodat`, with the parts of its arguments that the kernel looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What a relative path starts at.
    pub start: Start,
    /// Where the path is in the caller's memory.
    pub path: u64,
    /// Kind and permissions.
    pub mode: u16,
    /// Device number.
    pub device: u32,
}

impl Call {
    /// The row of the table that the call would make.
    ///
    /// # Errors
    /// `EPERM`, the kernel's own answer, when it would make anything else.
    pub fn node(&self) -> Result<&'static Makeable, Errno> {
        node::find(self.mode, self.device).ok_or(Errno::PERM)
    }
}

/// What a relative path starts at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The caller's working directory.
    WorkingDirectory,
    /// One of the caller's descriptors; negative is none.
    Descriptor(i32),
}

/// `AT_FDCWD`.
const WORKING_DIRECTORY: i32 = -100;

/// How a call is to be read.
#[derive(Clone, Copy)]
enum Form {
    /// Path, mode, device.
    Mknod,
    /// Descriptor, path, mode, device.
    Mknodat,
}

/// `AUDIT_ARCH_*` and numbers of the calls. One that is not here has not come through a filter of ours.
const CALLS: &[(u32, i32, Form)] = &[
    // x86-64. Its x32 twins have bit 30 set; the kernel is built without them, so that they are not there.
    (0xc000_003e, 133, Form::Mknod),
    (0xc000_003e, 259, Form::Mknodat),
    // i386
    (0x4000_0003, 14, Form::Mknod),
    (0x4000_0003, 297, Form::Mknodat),
    // aarch64, which has mknodat only
    (0xc000_00b7, 33, Form::Mknodat),
    // arm
    (0x4000_0028, 14, Form::Mknod),
    (0x4000_0028, 324, Form::Mknodat),
];

/// Reads a notification as the kernel fills it in. The call's error is `ENOSYS` when it is none of ours.
#[must_use]
pub fn read(bytes: &[u8; NOTIFICATION_BYTES]) -> Notification {
    let word =
        |at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes);
    let long =
        |at: usize| bytes.get(at..at + 8).and_then(|long| long.try_into().ok()).map_or(0, u64::from_ne_bytes);
    // id, pid, flags; then `struct seccomp_data`: number, architecture, instruction pointer, six arguments.
    let (number, architecture) = (signed(word(16)), word(20));
    let argument = |at: usize| long(32 + 8 * at);
    let form = CALLS.iter().find(|row| (row.0, row.1) == (architecture, number)).map(|row| row.2);
    let call = form.ok_or(Errno::NOSYS).map(|form| match form {
        Form::Mknod => call(Start::WorkingDirectory, argument(0), argument(1), argument(2)),
        Form::Mknodat => {
            let start = match signed(low(argument(0))) {
                WORKING_DIRECTORY => Start::WorkingDirectory,
                descriptor => Start::Descriptor(descriptor),
            };
            call(start, argument(1), argument(2), argument(3))
        }
    });
    Notification { id: long(0), thread: word(8), call }
}

/// The kernel takes 16 bits of the mode and 32 of the device, whatever stands above.
fn call(start: Start, path: u64, mode: u64, device: u64) -> Call {
    let [first, second, ..] = mode.to_le_bytes();
    Call { start, path, mode: u16::from_le_bytes([first, second]), device: low(device) }
}

fn signed(word: u32) -> i32 {
    i32::from_ne_bytes(word.to_ne_bytes())
}

fn low(register: u64) -> u32 {
    let [first, second, third, fourth, ..] = register.to_le_bytes();
    u32::from_le_bytes([first, second, third, fourth])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(architecture: u32, number: i32, arguments: [u64; 6]) -> [u8; NOTIFICATION_BYTES] {
        let mut all = Vec::new();
        all.extend(7_u64.to_ne_bytes());
        all.extend(42_u32.to_ne_bytes());
        all.extend(0_u32.to_ne_bytes());
        all.extend(number.to_ne_bytes());
        all.extend(architecture.to_ne_bytes());
        all.extend(0_u64.to_ne_bytes());
        arguments.iter().for_each(|argument| all.extend(argument.to_ne_bytes()));
        all.try_into().unwrap()
    }

    #[test]
    fn both_calls_are_read_on_every_architecture() {
        let expected = Call { start: Start::WorkingDirectory, path: 0x1000, mode: 0o020_666, device: 0x103 };
        for (architecture, mknod, mknodat) in [
            (0xc000_003e, Some(133), 259),
            (0x4000_0003, Some(14), 297),
            (0xc000_00b7, None, 33),
            (0x4000_0028, Some(14), 324),
        ] {
            if let Some(number) = mknod {
                let found = read(&bytes(architecture, number, [0x1000, 0o020_666, 0x103, 9, 9, 9]));
                assert_eq!(found, Notification { id: 7, thread: 42, call: Ok(expected) });
            }
            let found = read(&bytes(architecture, mknodat, [0xffff_ff9c, 0x1000, 0o020_666, 0x103, 9, 9]));
            assert_eq!(found.call, Ok(expected));
        }
    }

    #[test]
    fn what_the_kernel_does_not_look_at_is_left_out() {
        let high = 0xdead_beef_0000_0000;
        let found = read(&bytes(
            0xc000_003e,
            259,
            [high | 5, 0x1000, high | 0x5_0000 | 0o020_600, high | 0x103, 0, 0],
        ));
        let expected = Call { start: Start::Descriptor(5), path: 0x1000, mode: 0o020_600, device: 0x103 };
        assert_eq!(found.call, Ok(expected));
    }

    #[test]
    fn other_calls_and_x32_twins_are_not_there() {
        for (architecture, number) in [
            (0xc000_003e, 132),
            (0xc000_003e, 133 | 0x4000_0000),
            (0x4000_0003, 133),
            (0, 14),
            (0xc000_00b7, 14),
        ] {
            assert_eq!(read(&bytes(architecture, number, [0; 6])).call, Err(Errno::NOSYS), "{number}");
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_answered_as_by_the_kernel() {
        let node = |mode, device| {
            let call = Call { start: Start::WorkingDirectory, path: 0, mode, device };
            call.node().map(|row| row.name)
        };
        assert_eq!(node(0o020_666, 0x103), Ok("null"));
        for (mode, device) in [(0o020_666, 0x101), (0o060_666, 0x103), (0o020_666, 0), (0o100_666, 0x103)] {
            assert_eq!(node(mode, device), Err(Errno::PERM));
        }
    }
}
