//! Memory for seccomp notifications that outlives the process: the kernel writes each notification into it, so that none is lost
//! with the process that took it.
//!
//! Why: the kernel hands a notification out once. Whoever takes it, and is killed before it answers, leaves a caller that
//! waits for ever, as long as somebody keeps the listener open. The kernel marks a notification as taken and then copies it
//! to the address that it was given; should the copy fail, it takes the mark back. So it is either here or still to be had.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};

use crate::seccomp::{self, NOTIFICATION_BYTES};

/// Bytes of a slot: a notification, and none crosses a page.
const SLOT_BYTES: usize = 128;
/// Nobody changes the file's length, so that the memory is there as long as it is mapped.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Slots for one notification each, in a file without a name.
#[derive(Debug)]
pub struct Notifications {
    file: OwnedFd,
    memory: NonNull<u8>,
    bytes: usize,
}

impl Notifications {
    /// Empty slots.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn new(slots: usize) -> io::Result<Self> {
        let file = memfd_create("notifications", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, (slots * SLOT_BYTES) as u64)?;
        fcntl_add_seals(&file, SEALS)?;
        Self::over(file)
    }

    /// The slots of a file that [`Notifications::new`] made in another process.
    ///
    /// # Errors
    /// It is none.
    pub fn over(file: OwnedFd) -> io::Result<Self> {
        let bytes = usize::try_from(fstat(&file)?.st_size).map_err(|_| io::ErrorKind::InvalidData)?;
        if !fcntl_get_seals(&file)?.contains(SEALS) || bytes == 0 || bytes % SLOT_BYTES != 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let memory = map(file.as_fd(), bytes)?;
        Ok(Self { file, memory, bytes })
    }

    /// The file, to be kept for the next process.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// How many slots there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.bytes / SLOT_BYTES
    }

    /// Takes the next notification of `listener` into `slot`, as [`seccomp::receive`] does.
    ///
    /// # Errors
    /// `ENOENT` when its caller was killed meanwhile, `EINVAL` without such a slot.
    #[expect(unsafe_code, reason = "the kernel writes to memory that is shared")]
    pub fn receive(&self, slot: usize, listener: BorrowedFd<'_>) -> io::Result<[u8; NOTIFICATION_BYTES]> {
        self.clear(slot);
        let at = self.at(slot).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: `at` is the beginning of a slot, which has room for a notification and was cleared, as the call requires.
        // The memory stays mapped as long as `self` lives, and nobody holds a reference into it.
        unsafe { seccomp::receive_at(listener, at.as_ptr()) }?;
        self.read(slot).ok_or(io::ErrorKind::InvalidInput.into())
    }

    /// What is in `slot`; none when it is empty.
    #[must_use]
    #[expect(unsafe_code, reason = "the memory is shared")]
    pub fn read(&self, slot: usize) -> Option<[u8; NOTIFICATION_BYTES]> {
        let mut bytes = [0; NOTIFICATION_BYTES];
        let at = self.at(slot)?;
        // SAFETY: a slot has at least that many bytes and is mapped as long as `self` lives; `bytes` is a local of that
        // length. Who else has the file (PID 1) does not map it, and the kernel writes during `receive` only.
        unsafe { ptr::copy_nonoverlapping(at.as_ptr(), bytes.as_mut_ptr(), NOTIFICATION_BYTES) };
        bytes.iter().any(|byte| *byte != 0).then_some(bytes)
    }

    /// Empties `slot`.
    #[expect(unsafe_code, reason = "the memory is shared")]
    pub fn clear(&self, slot: usize) {
        if let Some(at) = self.at(slot) {
            // SAFETY: as for reading; the memory is mapped for writing.
            unsafe { ptr::write_bytes(at.as_ptr(), 0, SLOT_BYTES) };
        }
    }

    #[expect(unsafe_code, reason = "an address within the memory")]
    fn at(&self, slot: usize) -> Option<NonNull<u8>> {
        // SAFETY: the slot ends within the mapping, so that its beginning is an address in it.
        (slot < self.count()).then(|| unsafe { self.memory.add(slot * SLOT_BYTES) })
    }
}

impl Drop for Notifications {
    #[expect(unsafe_code, reason = "memory that was mapped is unmapped")]
    fn drop(&mut self) {
        // SAFETY: exactly what `map` gave, and nothing outlives `self` that points into it.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.bytes) };
    }
}

/// Maps the file; forked children do not get it.
#[expect(unsafe_code, reason = "memory that is shared with a file")]
fn map(file: BorrowedFd<'_>, bytes: usize) -> io::Result<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the kernel chooses the address, so that no memory of this process is replaced. The file is borrowed for the call
    // and cannot be shortened (it is sealed, which the caller has seen).
    let address =
        unsafe { libc::mmap(ptr::null_mut(), bytes, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the range was just mapped.
    if unsafe { libc::madvise(address, bytes, libc::MADV_DONTFORK) } != 0 {
        let error = io::Error::last_os_error();
        // SAFETY: the range was just mapped, and nobody points into it.
        unsafe { libc::munmap(address, bytes) };
        return Err(error);
    }
    NonNull::new(address.cast()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    #[test]
    fn a_slot_that_was_written_is_there_for_the_next_process() {
        let first = Notifications::new(4).unwrap();
        let mut file = File::from(first.file().try_clone_to_owned().unwrap());
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(2 * SLOT_BYTES as u64)).unwrap();
        file.write_all(&[7; NOTIFICATION_BYTES]).unwrap();
        let next = Notifications::over(file.into()).unwrap();
        drop(first);
        assert_eq!((next.count(), next.read(1), next.read(4)), (4, None, None));
        assert_eq!(next.read(2), Some([7; NOTIFICATION_BYTES]));
        next.clear(2);
        assert_eq!(next.read(2), None);
    }

    #[test]
    fn what_could_be_shortened_is_refused() {
        let open = memfd_create("open", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&open, SLOT_BYTES as u64).unwrap();
        assert!(Notifications::over(open).is_err());
        assert!(Notifications::over(File::open("/dev/null").unwrap().into()).is_err());
        assert!(Notifications::new(0).is_err());
    }

    #[test]
    fn what_is_no_listener_fills_no_slot() {
        let slots = Notifications::new(1).unwrap();
        let null = File::open("/dev/null").unwrap();
        assert!(slots.receive(0, null.as_fd()).is_err() && slots.receive(1, null.as_fd()).is_err());
        assert_eq!(slots.read(0), None);
    }
}
