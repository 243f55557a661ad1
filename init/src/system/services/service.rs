//! One service: its process, started and stopped as its life says.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::Stdio;

use eci_contract::status::Service as Report;
use eci_sys::spawn::{Confinement, confine};
use rustix::process::{Pid, Signal, kill_process};

use super::output::Output;
use super::state::{Action, Event, Life, State};
use super::store::Store;
use super::table::{Definition, Readiness, Settings};
use super::{passing, settings};
use crate::system::{cgroups, notify};
use crate::{clock, kmsg};

/// Open files a service may have: what Docker's own packages set for the engine, for which each container costs about
/// twenty.
const OPEN_FILES: u64 = 1_048_576;

/// The programs of the image.
const PATH: &str = "/usr/sbin:/usr/bin";

/// One service and what is known of it.
#[derive(Debug)]
pub struct Service {
    pub(super) definition: Definition,
    pub(super) life: Life,
    restarts: u32,
    /// What it writes to standard output and error.
    pub output: Option<Output>,
    /// The last line of an output that was closed.
    last_line: String,
    /// Its settings, where it gets some.
    settings: Vec<u8>,
    /// It runs and does not have its settings yet.
    awaits_settings: bool,
    /// What it left for its next start.
    pub(super) store: Store,
    /// The log says already that the store does not take everything.
    was_refused: bool,
}

impl Service {
    /// A service that was never started, and the settings that it will get.
    pub(super) fn new(definition: Definition, settings: Vec<u8>) -> Self {
        Self {
            store: Store::new(definition.file_descriptor_store_max),
            was_refused: false,
            definition,
            life: Life::default(),
            restarts: 0,
            output: None,
            last_line: String::new(),
            settings,
            awaits_settings: false,
        }
    }

    /// The program that it runs.
    #[must_use]
    pub fn program(&self) -> Option<&str> {
        self.definition.argv.first().map(String::as_str)
    }

    /// The service closed its output.
    pub fn close_output(&mut self) {
        if let Some(output) = self.output.take() {
            output.last_line().clone_into(&mut self.last_line);
        }
    }

    /// Its settings, when it runs without having them yet.
    pub(super) fn awaited_settings(&self) -> Option<&Settings> {
        self.definition.settings.as_ref().filter(|_| self.awaits_settings)
    }

    /// Hands its settings over, if it waits for them. What cannot be handed over is logged once; the service then takes
    /// too long, and is started again.
    pub(super) fn settle(&mut self) {
        let Some(settings) = self.awaited_settings() else { return };
        match settings::hand_over(settings, &self.settings) {
            Ok(done) => self.awaits_settings = !done,
            Err(err) => {
                kmsg::error(&format!("service {}: {}", self.name(), kmsg::chain(&err)));
                self.awaits_settings = false;
            }
        }
    }

    /// For the status.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            name: self.definition.name.clone(),
            state: state_word(self.life.state).to_owned(),
            pid: self.life.pid(),
            restarts: self.restarts,
        }
    }

    /// Its process ended; `how` says how.
    pub(super) fn ended(&mut self, how: &str) {
        let last_line = self.output.as_ref().map_or(self.last_line.as_str(), Output::last_line);
        kmsg::notice(&format!("service {} ended: {how}; its last line: {last_line}", self.definition.name));
        self.awaits_settings = false;
        self.advance(Event::Ended);
    }

    /// Stores what it sent for its next start. What is not stored is closed; the log says so once until something is again.
    pub(super) fn store(&mut self, name: &str, files: Vec<OwnedFd>) {
        let outcome = self.store.put(name, files);
        if let Err(err) = &outcome {
            if !self.was_refused {
                kmsg::notice(&format!("service {}: not stored: {}", self.name(), kmsg::chain(err)));
            }
        }
        self.was_refused = outcome.is_err();
    }

    /// Readable when something that it left is hung up.
    #[must_use]
    pub fn hung_up(&self) -> Option<BorrowedFd<'_>> {
        self.store.hung_up()
    }

    /// Lets go of what is hung up.
    pub fn drop_hung_up(&mut self) {
        self.store.drop_hung_up();
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    pub(super) fn advance(&mut self, event: Event) {
        let (life, action) = self.life.next(event, &self.definition.limits(), clock::boot_ms());
        self.life = life;
        if self.life.state == State::Stopped {
            self.store.clear();
        }
        match action {
            Action::None => {}
            Action::Spawn => self.start(),
            Action::Terminate(pid) => self.terminate(pid),
            Action::Kill => {
                kmsg::notice(&format!("service {} took too long: killing it", self.name()));
                kmsg::best_effort("kill a service", cgroups::kill_service(self.name()));
            }
        }
    }

    fn start(&mut self) {
        let again = self.life.state != State::Waiting;
        match self.spawn() {
            Ok(pid) => {
                self.restarts += u32::from(again);
                self.advance(Event::Spawned { pid });
                if self.definition.readiness == Readiness::None {
                    self.advance(Event::Ready);
                }
            }
            Err(err) => {
                kmsg::error(&format!("service {}: {}", self.name(), kmsg::chain(&err)));
                self.advance(Event::Ended);
            }
        }
    }

    fn terminate(&self, pid: u32) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let result = pid.map_or(Ok(()), |pid| kill_process(pid, Signal::TERM));
        kmsg::best_effort("stop a service", result);
    }

    fn spawn(&mut self) -> Result<u32, SpawnError> {
        let (program, arguments) =
            self.definition.argv.split_first().expect("invariant: the table was checked to name a program");
        // What an earlier process left behind would fight the new one for sockets and locks.
        let cgroup_procs = cgroups::open_service(self.name(), self.definition.cpu_percent)?;
        cgroups::kill_service(self.name())?;
        if let Some(settings) = &self.definition.settings {
            settings::make_pipe(settings)?;
        }
        let (output, write) = Output::new().map_err(SpawnError::Pipe)?;
        let twin = write.try_clone().map_err(SpawnError::Pipe)?;
        self.store.drop_hung_up();
        let mut command = passing::command(program, &self.store.stored());
        command.args(arguments);
        if self.life.never_gets_ready() && !self.definition.arguments_after_failure.is_empty() {
            let more = &self.definition.arguments_after_failure;
            kmsg::notice(&format!(
                "service {}: started with {}, as it did not get ready",
                self.name(),
                more.join(" ")
            ));
            command.args(more);
        }
        command.env("PATH", PATH).envs(&self.definition.environment).current_dir("/");
        if self.definition.readiness == Readiness::Notify {
            command.env("NOTIFY_SOCKET", notify::PATH);
        }
        command.stdin(Stdio::null()).stdout(write).stderr(twin);
        let confinement = Confinement {
            cgroup_procs,
            oom_score_adj: self.definition.oom_score,
            open_files: OPEN_FILES,
            apparmor_profile: self.definition.apparmor_profile.clone(),
        };
        confine(&mut command, confinement);
        let child =
            command.spawn().map_err(|source| SpawnError::Start { program: program.clone(), source })?;
        self.output = Some(output);
        self.awaits_settings = self.definition.settings.is_some();
        Ok(child.id())
    }
}

/// Why a service did not start.
#[derive(Debug, thiserror::Error)]
enum SpawnError {
    #[error(transparent)]
    Cgroup(#[from] cgroups::Error),
    #[error("cannot give it its settings")]
    Settings(#[from] settings::Error),
    #[error("cannot make a pipe for its output")]
    Pipe(#[source] std::io::Error),
    #[error("cannot start `{program}`")]
    Start { program: String, source: std::io::Error },
}

fn state_word(state: State) -> &'static str {
    match state {
        State::Waiting => "waiting",
        State::Starting { .. } => "starting",
        State::Ready { .. } => "ready",
        State::BackingOff { .. } => "backing-off",
        State::Stopping { .. } => "stopping",
        State::Stopped => "stopped",
    }
}
