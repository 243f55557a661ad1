//! A listener, and the one answer of it that is being worked on.
//!
//! A container's process and those that it starts share a listener; each `docker exec` has one more. A session has one child at
//! work at most: the others wait in the kernel, where they cost nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use eci_contract::nodes::Ground;
use eci_policy::rules::node::Makeable;
use eci_sys::seccomp::NOTIFICATION_BYTES;
use eci_sys::{child, descriptors, seccomp};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, set_parent_process_death_signal, waitpid,
};

use crate::budget::Budget;
use crate::notification::{self, Call, Notification};
use crate::slots::Slots;
use crate::store::Kept;
use crate::{caller, make};

/// A listener of a container.
#[derive(Debug)]
pub struct Session {
    listener: OwnedFd,
    ground: Ground,
    /// Where its notifications are; without one they are lost with this process.
    slot: Option<usize>,
    budget: Budget,
    work: Option<Work>,
    has_ended: bool,
}

/// An answer that a child works on.
#[derive(Debug)]
struct Work {
    id: u64,
    pid: Pid,
    process: OwnedFd,
}

impl Session {
    /// A session that has answered nothing yet.
    #[must_use]
    pub fn new(listener: OwnedFd, ground: Ground, slot: Option<usize>) -> Self {
        Self { listener, ground, slot, budget: Budget::default(), work: None, has_ended: false }
    }

    /// What PID 1 keeps of it.
    #[must_use]
    pub fn kept(&self) -> Option<Kept> {
        self.slot.map(|slot| Kept::Listener { slot, root_device: self.ground.root_device })
    }

    /// Its slot.
    #[must_use]
    pub fn slot(&self) -> Option<usize> {
        self.slot
    }

    /// The listener, while its container lives.
    #[must_use]
    pub fn listener(&self) -> Option<BorrowedFd<'_>> {
        (!self.has_ended).then(|| self.listener.as_fd())
    }

    /// The child at work, readable when it has ended.
    #[must_use]
    pub fn process(&self) -> Option<BorrowedFd<'_>> {
        self.work.as_ref().map(|work| work.process.as_fd())
    }

    /// Milliseconds from `now` until the next notification may be taken; `None` while a child is at work.
    #[must_use]
    pub fn wait_ms(&self, now: u64) -> Option<u64> {
        self.work.is_none().then(|| self.budget.wait_ms(now))
    }

    /// Whether nothing is left to do or to wait for.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.has_ended && self.work.is_none()
    }

    /// Takes note that no process is left which could call. What a child still works on is for nobody.
    pub fn end(&mut self) {
        self.has_ended = true;
        if let Some(work) = &self.work {
            best_effort("end a child", kill_process(work.pid, Signal::KILL));
        }
    }

    /// Takes the next notification at `now`, and answers it or has a child work on it.
    pub fn take(&mut self, now: u64, slots: &Slots) {
        // Its caller was killed between poll(2) and now.
        let Ok(bytes) = slots.receive(self.slot, self.listener.as_fd()) else { return };
        self.budget.spend(now);
        self.begin(&bytes, slots);
    }

    /// Answers the notification that an earlier process took and did not answer: the kernel hands each out once. A node that
    /// it had made already is in the way, which is what the caller then hears.
    pub fn take_up(&mut self, slots: &Slots) {
        let Some(bytes) = slots.left_in(self.slot) else { return };
        match seccomp::is_waiting(self.listener.as_fd(), notification::read(&bytes).id) {
            Ok(true) => self.begin(&bytes, slots),
            Ok(false) | Err(_) => slots.clear(self.slot),
        }
    }

    fn begin(&mut self, bytes: &[u8; NOTIFICATION_BYTES], slots: &Slots) {
        let Notification { id, thread, call } = notification::read(bytes);
        let judged = call.and_then(|call| Ok((call, call.node()?)));
        match judged.and_then(|(call, row)| self.start(id, thread, &call, row)) {
            Ok(work) => self.work = Some(work),
            Err(errno) => self.answer(id, Err(errno), slots),
        }
    }

    /// Gives the answer of the child that has ended.
    pub fn finish(&mut self, slots: &Slots) {
        let Some(work) = self.work.take() else { return };
        let ended = waitpid(Some(work.pid), WaitOptions::NOHANG);
        let code = ended.ok().flatten().and_then(|(_, status)| status.exit_status());
        self.answer(work.id, make::from_code(code), slots);
    }

    fn start(&self, id: u64, thread: u32, call: &Call, row: &Makeable) -> Result<Work, Errno> {
        let pid =
            child::start(|| make::to_code(self.work_on(id, thread, call, row))).map_err(|_| Errno::AGAIN)?;
        let pid = Pid::from_raw(pid).ok_or(Errno::AGAIN)?;
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => Ok(Work { id, pid, process }),
            Err(errno) => {
                // Out of descriptors. Without one nobody would notice the child's end.
                best_effort("end a child", kill_process(pid, Signal::KILL));
                best_effort("wait for a child", waitpid(Some(pid), WaitOptions::empty()).map(drop));
                Err(errno)
            }
        }
    }

    /// In the child: whatever of the caller may keep us waiting is touched here only.
    fn work_on(&self, id: u64, thread: u32, call: &Call, row: &Makeable) -> Result<(), Errno> {
        let listener = self.listener.as_fd();
        set_parent_process_death_signal(Some(Signal::KILL))?;
        descriptors::close_all_but(&[listener]).map_err(|_| Errno::PERM)?;
        let request = caller::read(listener, id, thread, call)?;
        make::node(&request, row, call.mode, &self.ground)
    }

    fn answer(&self, id: u64, outcome: Result<(), Errno>, slots: &Slots) {
        let error = outcome.map_or_else(Errno::raw_os_error, |()| 0);
        // Its caller may be gone.
        best_effort("answer", seccomp::answer(self.listener.as_fd(), id, error));
        // Afterwards: whoever is killed in between leaves one that nobody waits for.
        slots.clear(self.slot);
    }
}

/// Names a result that does not matter.
fn best_effort<T, E>(_step: &'static str, result: Result<T, E>) {
    drop(result);
}
