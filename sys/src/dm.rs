//! Device-mapper control: create a read-only device from one target, read its table back, remove it.
//!
//! Format: `struct dm_ioctl` and `struct dm_target_spec` of `include/uapi/linux/dm-ioctl.h`, interface version 4.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

const HEADER_BYTES: usize = 312;
const TARGET_BYTES: usize = 40;
/// Room for the header and one target line. A verity line is under 400 bytes.
const BUFFER_BYTES: usize = 4096;
const NAME_AT: usize = 48;
const NAME_BYTES: usize = 128;

const READ_ONLY: u32 = 1;
const STATUS_IS_TABLE: u32 = 1 << 4;

const DEFERRED_REMOVE: u32 = 1 << 17;

const DEV_CREATE: u32 = 3;
const DEV_REMOVE: u32 = 4;
const DEV_SUSPEND: u32 = 6;
const TABLE_LOAD: u32 = 9;
const TABLE_STATUS: u32 = 12;

/// One line of a device-mapper table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// First sector (512 bytes) of the mapped device that the target serves.
    pub start: u64,
    /// Length in sectors.
    pub sectors: u64,
    /// Target type, such as `verity`.
    pub kind: String,
    /// Target parameters, as in a line of `dmsetup table`.
    pub parameters: String,
}

/// A device as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Major and minor number of the mapped device.
    pub device: (u32, u32),
    /// Whether the device refuses writes.
    pub read_only: bool,
    /// The active table.
    pub targets: Vec<Target>,
}

/// Why device-mapper could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `/dev/mapper/control` is missing or not permitted.
    #[error("cannot open `/dev/mapper/control`")]
    Open {
        /// What the kernel said.
        source: io::Error,
    },
    /// One command on one device failed.
    #[error("cannot {operation} device-mapper device `{name}`")]
    Control {
        /// The command in words.
        operation: &'static str,
        /// Device name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A name or table does not fit the fixed buffers.
    #[error("device-mapper name or table of `{name}` is too long")]
    TooLong {
        /// Device name.
        name: String,
    },
    /// The kernel's answer does not follow its own format.
    #[error("device-mapper answered for `{name}` in a form that is not understood")]
    Answer {
        /// Device name.
        name: String,
    },
}

/// Creates the read-only device `name` from one target and activates it. Gives its device numbers.
///
/// # Errors
/// When the control node is missing or the kernel refuses the table.
pub fn create_read_only(name: &str, target: &Target) -> Result<(u32, u32), Error> {
    let control = open_control()?;
    Message::new(name, 0)?.send(control.as_fd(), DEV_CREATE, "create")?;
    Message::new(name, READ_ONLY)?.with_target(target)?.send(
        control.as_fd(),
        TABLE_LOAD,
        "load a table into",
    )?;
    let answer = Message::new(name, 0)?.send(control.as_fd(), DEV_SUSPEND, "activate")?;
    answer.device()
}

/// Removes the device `name` as soon as nobody has it open, which may be now.
///
/// # Errors
/// When there is no such device.
pub fn remove_when_unused(name: &str) -> Result<(), Error> {
    let control = open_control()?;
    Message::new(name, DEFERRED_REMOVE)?.send(control.as_fd(), DEV_REMOVE, "remove").map(drop)
}

/// Reads the active table of device `name`.
///
/// # Errors
/// When there is no such device, or its answer cannot be understood.
pub fn table(name: &str) -> Result<Table, Error> {
    let control = open_control()?;
    let answer =
        Message::new(name, STATUS_IS_TABLE)?.send(control.as_fd(), TABLE_STATUS, "read the table of")?;
    Ok(Table {
        device: answer.device()?,
        read_only: answer.u32_at(28)? & READ_ONLY != 0,
        targets: answer.targets()?,
    })
}

fn open_control() -> Result<File, Error> {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/mapper/control")
        .map_err(|source| Error::Open { source })
}

/// A `struct dm_ioctl` and what follows it.
struct Message {
    name: String,
    bytes: Vec<u8>,
}

impl Message {
    fn new(name: &str, flags: u32) -> Result<Self, Error> {
        let mut message = Self { name: name.to_owned(), bytes: vec![0; BUFFER_BYTES] };
        if name.len() >= NAME_BYTES {
            return Err(Error::TooLong { name: message.name });
        }
        let size = u32::try_from(BUFFER_BYTES).expect("invariant: the buffer is 4 KiB");
        let header = u32::try_from(HEADER_BYTES).expect("invariant: the header is 312 bytes");
        message.put(0, &4_u32.to_ne_bytes());
        message.put(12, &size.to_ne_bytes());
        message.put(16, &header.to_ne_bytes());
        message.put(28, &flags.to_ne_bytes());
        message.put(NAME_AT, name.as_bytes());
        Ok(message)
    }

    fn with_target(mut self, target: &Target) -> Result<Self, Error> {
        let end = HEADER_BYTES + TARGET_BYTES + target.parameters.len() + 1;
        if end > BUFFER_BYTES || target.kind.len() >= 16 {
            return Err(Error::TooLong { name: self.name });
        }
        let next = u32::try_from((end - HEADER_BYTES).next_multiple_of(8)).expect("invariant: under 4 KiB");
        self.put(20, &1_u32.to_ne_bytes());
        self.put(HEADER_BYTES, &target.start.to_ne_bytes());
        self.put(HEADER_BYTES + 8, &target.sectors.to_ne_bytes());
        self.put(HEADER_BYTES + 20, &next.to_ne_bytes());
        self.put(HEADER_BYTES + 24, target.kind.as_bytes());
        self.put(HEADER_BYTES + TARGET_BYTES, target.parameters.as_bytes());
        Ok(self)
    }

    #[expect(unsafe_code, reason = "device-mapper has no other interface than this ioctl")]
    fn send(mut self, control: BorrowedFd<'_>, command: u32, operation: &'static str) -> Result<Self, Error> {
        let request = (3 << 30) | (312 << 16) | (0xfd << 8) | libc::Ioctl::from(command);
        // SAFETY: the kernel reads and writes at most `data_size` bytes at the pointer; `data_size` was set to
        // BUFFER_BYTES, which is the length of `bytes`, and `bytes` is borrowed mutably until the call returns.
        // The structure has no pointers in it. `control` keeps the descriptor open.
        let result = unsafe { libc::ioctl(control.as_raw_fd(), request, self.bytes.as_mut_ptr()) };
        if result < 0 {
            return Err(Error::Control { operation, name: self.name, source: io::Error::last_os_error() });
        }
        Ok(self)
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        self.bytes
            .get_mut(at..at + value.len())
            .expect("invariant: callers checked that it fits")
            .copy_from_slice(value);
    }

    fn answer(&self, at: usize, length: usize) -> Result<&[u8], Error> {
        self.bytes.get(at..at + length).ok_or_else(|| Error::Answer { name: self.name.clone() })
    }

    fn u32_at(&self, at: usize) -> Result<u32, Error> {
        let bytes = self.answer(at, 4)?;
        Ok(u32::from_ne_bytes(bytes.try_into().expect("invariant: four bytes were asked for")))
    }

    fn u64_at(&self, at: usize) -> Result<u64, Error> {
        let bytes = self.answer(at, 8)?;
        Ok(u64::from_ne_bytes(bytes.try_into().expect("invariant: eight bytes were asked for")))
    }

    fn device(&self) -> Result<(u32, u32), Error> {
        let device = self.u64_at(40)?;
        Ok((libc::major(device), libc::minor(device)))
    }

    fn targets(&self) -> Result<Vec<Target>, Error> {
        let base =
            usize::try_from(self.u32_at(16)?).map_err(|_| Error::Answer { name: self.name.clone() })?;
        let mut targets = Vec::new();
        let mut at = base;
        for _ in 0..self.u32_at(20)? {
            targets.push(Target {
                start: self.u64_at(at)?,
                sectors: self.u64_at(at + 8)?,
                kind: text(self.answer(at + 24, 16)?),
                parameters: text(self.bytes.get(at + TARGET_BYTES..).unwrap_or_default()),
            });
            // In an answer, `next` counts from the start of the data, not from this target.
            let next = usize::try_from(self.u32_at(at + 20)?).unwrap_or(usize::MAX);
            at = base.saturating_add(next).min(BUFFER_BYTES);
        }
        Ok(targets)
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verity() -> Target {
        Target { start: 0, sectors: 80, kind: "verity".into(), parameters: "1 254:1 254:2".into() }
    }

    #[test]
    fn a_target_survives_the_message_format() {
        let mut message = Message::new("eci-root", READ_ONLY).unwrap().with_target(&verity()).unwrap();
        assert_eq!(message.u32_at(28).unwrap(), READ_ONLY);
        message.put(20, &1_u32.to_ne_bytes());
        assert_eq!(message.targets().unwrap(), [verity()]);
    }

    #[test]
    fn names_and_tables_that_do_not_fit_are_refused() {
        assert!(matches!(Message::new(&"n".repeat(128), 0), Err(Error::TooLong { .. })));
        let long = Target { parameters: "x".repeat(4096), ..verity() };
        assert!(matches!(Message::new("n", 0).unwrap().with_target(&long), Err(Error::TooLong { .. })));
    }

    #[test]
    fn an_answer_with_wild_offsets_is_an_error() {
        let mut message = Message::new("n", 0).unwrap();
        message.put(16, &u32::MAX.to_ne_bytes());
        message.put(20, &1_u32.to_ne_bytes());
        assert!(matches!(message.targets(), Err(Error::Answer { .. })));
    }

    #[test]
    fn errors_name_the_operation_and_the_device() {
        let source = io::Error::from_raw_os_error(libc::EBUSY);
        let error = Error::Control { operation: "create", name: "eci-root".into(), source };
        assert_eq!(error.to_string(), "cannot create device-mapper device `eci-root`");
        assert_eq!(
            Error::TooLong { name: "x".into() }.to_string(),
            "device-mapper name or table of `x` is too long"
        );
    }
}
