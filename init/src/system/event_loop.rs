//! The loop of PID 1: one poll(2) over everything that can happen.

use std::io;
use std::os::fd::AsFd;

use eci_contract::attest::READY;
use eci_tpm::pcr::KERNEL_IMAGE;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::control::{self, Client};
use super::input::{self, Keys, Wish};
use super::machine::Machine;
use super::services::Goal;
use super::{notify, selfcheck, trial};
use crate::handover::Platform;
use crate::kernel_log::KernelLog;
use crate::{clock, kmsg};

/// The longest sleep, so that deadlines and restart pauses (the shortest is 100 ms) are met closely enough.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// The sleep while a service is about to read its settings: a boot waits for it.
const SETTLING_TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
/// How long the whole shutdown may take. Services have their own, shorter limits; this is for those that add up.
const SHUTDOWN_MS: u64 = 60_000;

/// Why supervision could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Signals could not be taken over.
    #[error("cannot take over signals")]
    Signals(#[source] nix::Error),
    /// A socket or the kernel log could not be opened.
    #[error("cannot open {what}")]
    Open {
        /// Which.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// poll(2) failed.
    #[error("cannot wait for events")]
    Poll(#[source] rustix::io::Errno),
}

/// Supervises until every service has stopped after somebody asked for shutdown.
///
/// # Errors
/// When the loop cannot begin or go on.
pub fn run(machine: &mut Machine) -> Result<(), Error> {
    let mut sources = Sources::open(machine.platform())?;
    let mut deadline = None;
    loop {
        machine.supervisor.tick(goal(machine));
        if machine.stopping {
            let now = clock::boot_ms();
            let end = *deadline.get_or_insert(now + SHUTDOWN_MS);
            if machine.supervisor.all_stopped() || now >= end {
                sources.flush_clients(machine);
                return Ok(());
            }
        }
        let ready = sources.wait(machine)?;
        for event in ready {
            sources.handle(event, machine);
        }
        sources.flush_clients(machine);
        note_engine(machine);
        trial::judge(machine);
    }
}

fn goal(machine: &Machine) -> Goal {
    match (machine.stopping, &machine.refusal) {
        (true, _) => Goal::StopAll,
        (false, Some(_)) => Goal::RunWithoutEngine,
        (false, None) => Goal::Run,
    }
}

/// Checks the promises when the engine is ready for the first time, and says how long all of it took.
fn note_engine(machine: &mut Machine) {
    if machine.boot_ms.engine != 0 || machine.refusal.is_some() || !machine.supervisor.engine_is_ready() {
        return;
    }
    let ready = clock::boot_ms();
    match selfcheck::run(machine, selfcheck::Moment::EngineReady) {
        Ok(()) => {
            machine.boot_ms.engine = ready;
            machine.measuring.measure(KERNEL_IMAGE, READY.to_owned());
            trial::note_ready(machine);
            kmsg::notice(&machine.boot_line());
        }
        Err(err) => machine.refuse_engine(kmsg::chain(&err)),
    }
}

/// What woke the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Signals,
    Notify,
    Control,
    KernelLog,
    Keys(usize),
    Service(usize),
    Store(usize),
    Client(usize),
}

struct Sources {
    signals: SignalFd,
    notify: notify::Listener,
    control: control::Listener,
    kernel_log: KernelLog,
    keys: Vec<Keys>,
    clients: Vec<Client>,
}

impl Sources {
    fn open(platform: Platform) -> Result<Self, Error> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM, Signal::SIGPWR] {
            set.add(signal);
        }
        set.thread_block().map_err(Error::Signals)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let open = |what| move |source| Error::Open { what, source };
        Ok(Self {
            signals: SignalFd::with_flags(&set, flags).map_err(Error::Signals)?,
            notify: notify::Listener::bind().map_err(open("the notify socket"))?,
            control: control::Listener::bind(platform).map_err(open("the control socket"))?,
            kernel_log: KernelLog::open().map_err(open("the kernel log"))?,
            keys: input::open_all(),
            clients: Vec::new(),
        })
    }

    fn wait(&self, machine: &Machine) -> Result<Vec<Source>, Error> {
        let mut sources = vec![Source::Signals, Source::Notify, Source::Control, Source::KernelLog];
        let mut polled = vec![
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
            PollFd::new(&self.notify, PollFlags::IN),
            PollFd::new(&self.control, PollFlags::IN),
            PollFd::new(&self.kernel_log, PollFlags::IN),
        ];
        for (index, keys) in self.keys.iter().enumerate() {
            sources.push(Source::Keys(index));
            polled.push(PollFd::new(keys, PollFlags::IN));
        }
        for (index, service) in machine.supervisor.services.iter().enumerate() {
            if let Some(output) = &service.output {
                sources.push(Source::Service(index));
                polled.push(PollFd::new(output, PollFlags::IN));
            }
            if let Some(hung_up) = service.hung_up() {
                sources.push(Source::Store(index));
                polled.push(PollFd::from_borrowed_fd(hung_up, PollFlags::IN));
            }
        }
        let end = machine.ring.end();
        for (index, client) in self.clients.iter().enumerate() {
            let wants_out = client.has_output() || client.is_behind(end);
            let flags = if wants_out { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            sources.push(Source::Client(index));
            polled.push(PollFd::new(client, flags));
        }
        let tick = if machine.supervisor.is_settling() { &SETTLING_TICK } else { &TICK };
        match poll(&mut polled, Some(tick)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(Error::Poll(err)),
        }
        let ready = sources.into_iter().zip(polled).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(source, _)| source).collect())
    }

    fn handle(&mut self, source: Source, machine: &mut Machine) {
        match source {
            Source::Signals => self.handle_signals(machine),
            Source::Notify => self.handle_notify(machine),
            Source::Control => self.control.accept(&mut self.clients),
            Source::KernelLog => self.kernel_log.drain(&mut machine.ring),
            Source::Keys(index) => match self.keys.get_mut(index).and_then(Keys::read) {
                Some(Wish::PowerButton) => machine.stop("power button"),
                Some(Wish::CtrlAltDel) => machine.stop("ctrl-alt-del"),
                None => {}
            },
            Source::Service(index) => drain_service(index, machine),
            Source::Store(index) => {
                if let Some(service) = machine.supervisor.services.get_mut(index) {
                    service.drop_hung_up();
                }
            }
            Source::Client(index) => {
                if let Some(client) = self.clients.get_mut(index) {
                    client.read(machine);
                }
            }
        }
    }

    fn handle_signals(&mut self, machine: &mut Machine) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()) {
                Some(Signal::SIGINT) => machine.stop("ctrl-alt-del"),
                Some(Signal::SIGTERM | Signal::SIGPWR) => machine.stop("asked for by signal"),
                _ => {}
            }
        }
        // Messages that a process sent before it ended still belong to it.
        self.handle_notify(machine);
        reap(machine);
    }

    fn handle_notify(&self, machine: &mut Machine) {
        let receive = |machine: &Machine| self.notify.receive(|pid| machine.supervisor.may_store(pid));
        while let Some((pid, message, files)) = receive(machine) {
            let service = machine.supervisor.notified(pid, &message, files);
            if service == Some(super::network::SERVICE) {
                if let Some(address) = message.address {
                    machine.address = Some(address).filter(|address| !address.is_empty());
                }
            }
        }
    }

    fn flush_clients(&mut self, machine: &Machine) {
        for client in &mut self.clients {
            client.write(machine);
        }
        self.clients.retain(|client| !client.is_closed());
    }
}

fn drain_service(index: usize, machine: &mut Machine) {
    let Some(service) = machine.supervisor.services.get_mut(index) else { return };
    let name = service.name().to_owned();
    let open = service.output.as_mut().is_some_and(|output| output.drain(&name, &mut machine.ring));
    if !open {
        service.close_output();
    }
}

/// Reaps every child that ended: services, and orphans that the kernel gave to PID 1.
fn reap(machine: &mut Machine) {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => ended(machine, pid, &format!("exit code {code}")),
            Ok(WaitStatus::Signaled(pid, signal, _)) => ended(machine, pid, &format!("killed by {signal}")),
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn ended(machine: &mut Machine, pid: nix::unistd::Pid, how: &str) {
    // What services wrote before they ended comes first.
    for index in 0..machine.supervisor.services.len() {
        drain_service(index, machine);
    }
    let pid = u32::try_from(pid.as_raw()).unwrap_or(0);
    machine.attesting = machine.attesting.filter(|helper| *helper != pid);
    machine.supervisor.ended(pid, how);
}

/// Whether any child is left, ended or not.
#[must_use]
pub fn has_children() -> bool {
    waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT).is_ok()
}
