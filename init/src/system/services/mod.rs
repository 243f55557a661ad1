//! Supervised services: what the table says ([`table`]), how one lives ([`state`]), what it says ([`output`]), what it
//! waits for ([`settings`]), doing it ([`service`]), and all of them in their order (here).

pub mod output;
pub mod service;
pub mod settings;
pub mod state;
pub mod table;

use eci_contract::status::Service as Report;

use self::service::Service;
use self::state::{Event, State, Wanted};
use self::table::ENGINE;

pub use self::table::Error;

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
    Ok(Supervisor { services: table::read()?.into_iter().map(Service::new).collect() })
}

impl Supervisor {
    /// Lets time pass: starts, stops and kills what is due.
    pub fn tick(&mut self, goal: Goal) {
        let wanted: Vec<_> = (0..self.services.len()).map(|index| self.wanted(index, goal)).collect();
        for (service, wanted) in self.services.iter_mut().zip(wanted) {
            service.advance(Event::Tick { wanted });
        }
        let settled: Vec<_> = self.services.iter().map(|service| self.may_settle(service)).collect();
        for (service, _) in self.services.iter_mut().zip(settled).filter(|(_, may)| *may) {
            service.settle();
        }
    }

    /// Whether a service could have its settings, and has not begun to read them.
    #[must_use]
    pub fn is_settling(&self) -> bool {
        self.services.iter().any(|service| self.may_settle(service))
    }

    /// Takes note that a process ended. Orphans belong to nobody and are just gone.
    pub fn ended(&mut self, pid: u32, how: &str) {
        if let Some(service) = self.by_pid(pid) {
            service.ended(how);
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
        self.services.iter().map(Service::report).collect()
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
            Goal::RunWithoutEngine | Goal::Run if self.are_ready(&service.definition.after) => Wanted::Run,
            Goal::RunWithoutEngine | Goal::Run => Wanted::Wait,
        }
    }

    fn may_settle(&self, service: &Service) -> bool {
        service.awaited_settings().is_some_and(|settings| self.are_ready(&settings.after))
    }

    fn are_ready(&self, names: &[String]) -> bool {
        names.iter().all(|name| {
            let mut services = self.services.iter();
            services.any(|other| {
                other.definition.name == *name && matches!(other.life.state, State::Ready { .. })
            })
        })
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::state::Life;
    use super::table::{Definition, Readiness};
    use super::*;

    fn service(name: &str, after: &[&str], state: State) -> Service {
        let definition = Definition {
            name: name.into(),
            why: String::new(),
            argv: vec!["/bin/true".into()],
            environment: BTreeMap::new(),
            readiness: Readiness::None,
            after: after.iter().map(|name| (*name).to_owned()).collect(),
            settings: None,
            only_with_engine: name == ENGINE,
            cpu_percent: None,
            oom_score: 0,
            start_seconds: 1,
            stop_seconds: 1,
            restart_pause_ms: [1, 1],
        };
        let mut service = Service::new(definition);
        service.life = Life { state, failures: 0 };
        service
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
