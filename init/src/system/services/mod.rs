//! Supervised services: what the table says ([`table`]), how one lives ([`state`]), and doing it.

pub mod output;
pub mod state;
pub mod table;

use std::process::{Command, Stdio};

use eci_contract::status::Service as Report;
use eci_sys::spawn::{Confinement, confine};
use rustix::process::{Pid, Signal, kill_process};

use self::output::Output;
use self::state::{Action, Event, Life, State, Wanted};
use self::table::{Definition, ENGINE, Readiness};
use super::{cgroups, notify};
use crate::{clock, kmsg};

pub use self::table::Error;

/// Open files a service may have: what Docker's own packages set for the engine, for which each container costs about
/// twenty.
const OPEN_FILES: u64 = 1_048_576;

/// The programs of the image.
const PATH: &str = "/usr/sbin:/usr/bin";

/// One service and what is known of it.
#[derive(Debug)]
pub struct Service {
    definition: Definition,
    life: Life,
    restarts: u32,
    /// What it writes to standard output and error.
    pub output: Option<Output>,
    /// The last line of an output that was closed.
    last_line: String,
}

/// All services, in the table's order.
#[derive(Debug, Default)]
pub struct Supervisor {
    /// In the order of start.
    pub services: Vec<Service>,
}

/// Reads the table.
///
/// # Errors
/// When it cannot be used.
pub fn load() -> Result<Supervisor, Error> {
    let services = table::read()?.into_iter().map(|definition| Service {
        definition,
        life: Life::default(),
        restarts: 0,
        output: None,
        last_line: String::new(),
    });
    Ok(Supervisor { services: services.collect() })
}

impl Service {
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
}

impl Supervisor {
    /// Lets time pass: starts, stops and kills what is due.
    pub fn tick(&mut self, goal: Goal) {
        let wanted: Vec<_> = (0..self.services.len()).map(|index| self.wanted(index, goal)).collect();
        for (service, wanted) in self.services.iter_mut().zip(wanted) {
            service.advance(Event::Tick { wanted });
        }
    }

    /// Takes note that a process ended. Orphans belong to nobody and are just gone.
    pub fn ended(&mut self, pid: u32, how: &str) {
        if let Some(service) = self.by_pid(pid) {
            let name = &service.definition.name;
            let last_line = service.output.as_ref().map_or(service.last_line.as_str(), Output::last_line);
            kmsg::notice(&format!("service {name} ended: {how}; its last line: {last_line}"));
            service.advance(Event::Ended);
        }
    }

    /// Takes note of `READY=1`. Only a service's first process may say it.
    pub fn ready(&mut self, pid: u32) {
        if let Some(service) = self.by_pid(pid) {
            service.advance(Event::Ready);
        }
    }

    /// Whether the engine said that it is ready, and still runs.
    #[must_use]
    pub fn engine_is_ready(&self) -> bool {
        self.engine().is_some_and(|engine| matches!(engine.life.state, State::Ready { .. }))
    }

    /// The engine's process, while there is one.
    #[must_use]
    pub fn engine_pid(&self) -> Option<u32> {
        self.engine().and_then(|engine| engine.life.pid())
    }

    /// Whether nothing runs and nothing will.
    #[must_use]
    pub fn all_stopped(&self) -> bool {
        self.services.iter().all(|service| service.life.state == State::Stopped)
    }

    /// For the status.
    #[must_use]
    pub fn report(&self) -> Vec<Report> {
        let services = self.services.iter().map(|service| Report {
            name: service.definition.name.clone(),
            state: state_word(service.life.state).to_owned(),
            pid: service.life.pid(),
            restarts: service.restarts,
        });
        services.collect()
    }

    /// The service whose process `pid` is.
    pub fn by_pid(&mut self, pid: u32) -> Option<&mut Service> {
        self.services.iter_mut().find(|service| service.life.pid() == Some(pid))
    }

    fn engine(&self) -> Option<&Service> {
        self.services.iter().find(|service| service.definition.name == ENGINE)
    }

    /// Services start after those they name, and stop in reverse order, one after the other.
    fn wanted(&self, index: usize, goal: Goal) -> Wanted {
        let later_stopped = || {
            let mut later = self.services.iter().skip(index + 1);
            later.all(|service| service.life.state == State::Stopped)
        };
        let Some(service) = self.services.get(index) else { return Wanted::Wait };
        match goal {
            Goal::StopAll if later_stopped() => Wanted::Stop,
            Goal::StopAll => Wanted::Wait,
            Goal::RunWithoutEngine if service.definition.only_with_engine => Wanted::Stop,
            Goal::RunWithoutEngine | Goal::Run if self.needs_are_ready(service) => Wanted::Run,
            Goal::RunWithoutEngine | Goal::Run => Wanted::Wait,
        }
    }

    fn needs_are_ready(&self, service: &Service) -> bool {
        let ready = |name: &String| {
            let mut services = self.services.iter();
            services.any(|other| {
                other.definition.name == *name && matches!(other.life.state, State::Ready { .. })
            })
        };
        service.definition.after.iter().all(ready)
    }
}

/// What the services are for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Everything runs.
    Run,
    /// The engine is refused; the rest runs so that somebody can ask why.
    RunWithoutEngine,
    /// Shutdown.
    StopAll,
}

impl Service {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    fn advance(&mut self, event: Event) {
        let (life, action) = self.life.next(event, &self.definition.limits(), clock::boot_ms());
        self.life = life;
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
        let cgroup_procs = cgroups::open_service(self.name())?;
        cgroups::kill_service(self.name())?;
        let (output, write) = Output::new().map_err(SpawnError::Pipe)?;
        let twin = write.try_clone().map_err(SpawnError::Pipe)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .envs(&self.definition.environment)
            .current_dir("/");
        if self.definition.readiness == Readiness::Notify {
            command.env("NOTIFY_SOCKET", notify::PATH);
        }
        command.stdin(Stdio::null()).stdout(write).stderr(twin);
        let oom_score_adj = self.definition.oom_score;
        confine(&mut command, Confinement { cgroup_procs, oom_score_adj, open_files: OPEN_FILES });
        let child =
            command.spawn().map_err(|source| SpawnError::Start { program: program.clone(), source })?;
        self.output = Some(output);
        Ok(child.id())
    }
}

/// Why a service did not start.
#[derive(Debug, thiserror::Error)]
enum SpawnError {
    #[error(transparent)]
    Cgroup(#[from] cgroups::Error),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn service(name: &str, after: &[&str], state: State) -> Service {
        let definition = Definition {
            name: name.into(),
            why: String::new(),
            argv: vec!["/bin/true".into()],
            environment: BTreeMap::new(),
            readiness: Readiness::None,
            after: after.iter().map(|name| (*name).to_owned()).collect(),
            only_with_engine: name == ENGINE,
            oom_score: 0,
            start_seconds: 1,
            stop_seconds: 1,
            restart_pause_ms: [1, 1],
        };
        Service {
            definition,
            life: Life { state, failures: 0 },
            restarts: 0,
            output: None,
            last_line: String::new(),
        }
    }

    fn wanted(services: Vec<Service>, goal: Goal) -> Vec<Wanted> {
        let supervisor = Supervisor { services };
        (0..supervisor.services.len()).map(|index| supervisor.wanted(index, goal)).collect()
    }

    const READY: State = State::Ready { pid: 1, since: 0 };

    #[test]
    fn a_service_waits_for_what_it_needs() {
        let services =
            vec![service("gate", &[], State::Waiting), service("engine", &["gate"], State::Waiting)];
        assert_eq!(wanted(services, Goal::Run), [Wanted::Run, Wanted::Wait]);
        let services = vec![service("gate", &[], READY), service("engine", &["gate"], State::Waiting)];
        assert_eq!(wanted(services, Goal::Run), [Wanted::Run, Wanted::Run]);
    }

    #[test]
    fn a_refused_engine_stops_and_the_rest_runs() {
        let services = vec![service("gate", &[], READY), service("engine", &[], READY)];
        assert_eq!(wanted(services, Goal::RunWithoutEngine), [Wanted::Run, Wanted::Stop]);
    }

    #[test]
    fn the_last_started_stops_first() {
        let services = vec![service("gate", &[], READY), service("engine", &[], READY)];
        assert_eq!(wanted(services, Goal::StopAll), [Wanted::Wait, Wanted::Stop]);
        let services = vec![service("gate", &[], READY), service("engine", &[], State::Stopped)];
        assert_eq!(wanted(services, Goal::StopAll), [Wanted::Stop, Wanted::Stop]);
    }
}
