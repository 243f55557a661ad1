//! Which listener has which slot of the memory for notifications: one each, for a listener has one answer at a time.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use eci_sys::notifications::Notifications;
use eci_sys::seccomp::{self, NOTIFICATION_BYTES};

/// Slots that there are. PID 1 keeps a listener for each, and two descriptors more: `fileDescriptorStoreMax` in
/// `rootfs/overlay/etc/eci/services.json`. A VM of ours has far fewer containers; what comes beyond is served, but not kept.
pub const COUNT: usize = 2_000;

/// The memory, and which slots are in use.
#[derive(Debug)]
pub struct Slots {
    memory: Notifications,
    in_use: Vec<bool>,
}

impl Slots {
    /// New ones.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn new() -> io::Result<Self> {
        Ok(Self { memory: Notifications::new(COUNT)?, in_use: vec![false; COUNT] })
    }

    /// Those of an earlier process.
    ///
    /// # Errors
    /// It is not memory of this program's.
    pub fn over(file: OwnedFd) -> io::Result<Self> {
        let memory = Notifications::over(file)?;
        let in_use = vec![false; memory.count()];
        Ok(Self { memory, in_use })
    }

    /// The memory, to be left with PID 1.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.memory.file()
    }

    /// A slot for a new listener.
    pub fn claim(&mut self) -> Option<usize> {
        let slot = self.in_use.iter().position(|in_use| !in_use)?;
        self.take_up(slot).then_some(slot)
    }

    /// Marks the slot of a listener that was left; false when it is another's, or none.
    pub fn take_up(&mut self, slot: usize) -> bool {
        self.in_use.get_mut(slot).is_some_and(|in_use| !std::mem::replace(in_use, true))
    }

    /// Gives the slot of a listener back that has ended.
    pub fn release(&mut self, slot: usize) {
        self.memory.clear(slot);
        if let Some(in_use) = self.in_use.get_mut(slot) {
            *in_use = false;
        }
    }

    /// Takes the next notification of a listener.
    ///
    /// # Errors
    /// There is none any more.
    pub fn receive(
        &self,
        slot: Option<usize>,
        listener: BorrowedFd<'_>,
    ) -> io::Result<[u8; NOTIFICATION_BYTES]> {
        match slot {
            Some(slot) => self.memory.receive(slot, listener),
            None => seccomp::receive(listener),
        }
    }

    /// The notification that an earlier process took and may not have answered.
    #[must_use]
    pub fn left_in(&self, slot: Option<usize>) -> Option<[u8; NOTIFICATION_BYTES]> {
        self.memory.read(slot?)
    }

    /// Takes note that the notification was answered.
    pub fn clear(&self, slot: Option<usize>) {
        if let Some(slot) = slot {
            self.memory.clear(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_listener_has_a_slot_of_its_own_while_there_are_any() {
        let mut slots =
            Slots::over(Notifications::new(2).unwrap().file().try_clone_to_owned().unwrap()).unwrap();
        assert!(slots.take_up(1) && !slots.take_up(1) && !slots.take_up(2));
        assert_eq!((slots.claim(), slots.claim()), (Some(0), None));
        slots.release(1);
        assert_eq!(slots.claim(), Some(1));
        assert_eq!((slots.left_in(None), slots.left_in(Some(0))), (None, None));
    }
}
