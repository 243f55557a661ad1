//! Supervised services: what the table says ([`table`]), how one lives ([`state`]), what it says ([`output`]), what it
//! waits for ([`settings`]), what it leaves for its next start ([`store`]) and how it gets that back ([`passing`]), doing it
//! ([`service`]), and all of them in their order (here).

pub mod output;
pub mod passing;
pub mod service;
pub mod settings;
pub mod state;
pub mod store;
pub mod table;

use std::os::fd::OwnedFd;

use eci_contract::choice::Switch;
use eci_contract::status::Service as Report;
use eci_policy::rules::registry::Registries;
use eci_policy::settings::engine::Engine;

use self::service::Service;
use self::state::{Event, State, Wanted};
use self::table::{Definition, EGRESS, ENGINE};
use super::notify::{Descriptors, Message};
use crate::handover::Platform;
use crate::wsl::choices::{Part, left_out};

/// Why services cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no table of them.
    #[error(transparent)]
    Table(#[from] table::Error),
    /// A service cannot get its settings.
    #[error("cannot put the settings of the service {name} together")]
    Settings {
        /// The service.
        name: String,
        /// Why.
        source: settings::Error,
    },
}

/// All services, in the table's order.
#[derive(Debug, Default)]
pub struct Supervisor {
    /// In the order of start.
    pub services: Vec<Service>,
}

/// Reads the table, without what this platform leaves out, and without the way to registries where the administrator lists none. The engine
/// gets what the administrator set of it, `set`, besides its own settings.
///
/// # Errors
/// When the table or a service's settings cannot be used.
pub fn load(
    platform: Platform,
    set: &Engine,
    isolation: Switch,
    registries: Option<&Registries>,
) -> Result<Supervisor, Error> {
    let definitions = table::read()?.into_iter();
    let mut wanted: Vec<_> =
        definitions.filter(|service| left_out(platform, Part::Service(&service.name)).is_none()).collect();
    wanted.retain(|service| service.name != EGRESS || registries.is_some());
    if left_out(platform, Part::Step("apparmor")).is_some() {
        wanted.iter_mut().for_each(|service| service.apparmor_profile = None);
    }
    if platform == Platform::Wsl {
        wanted
            .iter_mut()
            .filter_map(|service| service.settings.as_mut())
            .for_each(table::Settings::take_those_of_wsl);
    }
    let services: Result<Vec<_>, _> =
        wanted.into_iter().map(|service| with_settings(service, set, isolation)).collect();
    Ok(Supervisor { services: services? })
}

fn with_settings(definition: Definition, set: &Engine, isolation: Switch) -> Result<Service, Error> {
    let set = Some((set, isolation)).filter(|_| definition.name == ENGINE);
    let text = definition.settings.as_ref().map(|settings| settings::text(settings, set));
    let failed = |source| Error::Settings { name: definition.name.clone(), source };
    let text = text.transpose().map_err(failed)?;
    Ok(Service::new(definition, text.unwrap_or_default()))
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

    /// Whether the process `pid` is a service's whose descriptors are kept.
    #[must_use]
    pub fn may_store(&self, pid: u32) -> bool {
        let stores = |service: &&Service| service.definition.file_descriptor_store_max > 0;
        self.services.iter().filter(stores).any(|service| service.life.pid() == Some(pid))
    }

    /// Does what the process `pid` says about its service, which only a service's first process may; what it sent along and
    /// nobody stores is closed. Gives the service's name.
    pub fn notified(&mut self, pid: u32, message: &Message, files: Vec<OwnedFd>) -> Option<&str> {
        let service = self.by_pid(pid)?;
        if message.ready {
            service.advance(Event::Ready);
        }
        match message.descriptors {
            Some(Descriptors::Store) => service.store(message.name.as_deref().unwrap_or("stored"), files),
            Some(Descriptors::Remove) => service.store.remove(message.name.as_deref().unwrap_or_default()),
            None => {}
        }
        Some(service.name())
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
    use super::table::Readiness;
    use super::*;

    fn service(name: &str, after: &[&str], state: State) -> Service {
        let definition = Definition {
            name: name.into(),
            why: String::new(),
            argv: vec!["/bin/true".into()],
            arguments_after_failure: Vec::new(),
            environment: BTreeMap::new(),
            readiness: Readiness::None,
            after: after.iter().map(|name| (*name).to_owned()).collect(),
            settings: None,
            file_descriptor_store_max: 1,
            only_with_engine: name == ENGINE,
            cpu_percent: None,
            apparmor_profile: None,
            oom_score: 0,
            start_seconds: 1,
            stop_seconds: 1,
            restart_pause_ms: [1, 1],
        };
        let mut service = Service::new(definition, Vec::new());
        service.life = Life { state, ..Life::default() };
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
    fn only_the_service_itself_puts_descriptors_into_its_store() {
        let mut supervisor = Supervisor {
            services: vec![
                service("nodes", &[], READY),
                service("gate", &[], State::Ready { pid: 2, since: 0 }),
            ],
        };
        let file = || vec![OwnedFd::from(std::fs::File::open("/dev/null").unwrap())];
        let message = |descriptors| Message { descriptors, name: Some("x".into()), ..Message::default() };
        assert_eq!([0, 1, 2, 77].map(|pid| supervisor.may_store(pid)), [false, true, true, false]);
        supervisor.services[1].definition.file_descriptor_store_max = 0;
        assert!(!supervisor.may_store(2));
        let stored = |supervisor: &Supervisor| -> Vec<usize> {
            supervisor.services.iter().map(|service| service.store.stored().len()).collect()
        };
        assert_eq!(supervisor.notified(77, &message(Some(Descriptors::Store)), file()), None);
        assert_eq!(stored(&supervisor), [0, 0]);
        assert_eq!(supervisor.notified(1, &message(None), file()), Some("nodes"));
        assert_eq!(stored(&supervisor), [0, 0]);
        for _ in 0..2 {
            assert_eq!(supervisor.notified(1, &message(Some(Descriptors::Store)), file()), Some("nodes"));
            assert_eq!(stored(&supervisor), [1, 0], "the table lets it store one");
        }
        supervisor.notified(2, &message(Some(Descriptors::Remove)), Vec::new());
        supervisor.notified(77, &message(Some(Descriptors::Remove)), Vec::new());
        assert_eq!(stored(&supervisor), [1, 0]);
        supervisor.notified(1, &message(Some(Descriptors::Remove)), Vec::new());
        assert_eq!(stored(&supervisor), [0, 0]);
    }

    #[test]
    fn what_is_stored_outlives_a_restart_and_not_the_end() {
        let message = Message { descriptors: Some(Descriptors::Store), ..Message::default() };
        for (state, kept) in [(READY, 1), (State::Stopping { pid: 1, deadline: 0 }, 0)] {
            let mut supervisor = Supervisor { services: vec![service("nodes", &[], state)] };
            supervisor.notified(1, &message, vec![std::fs::File::open("/dev/null").unwrap().into()]);
            supervisor.ended(1, "killed");
            assert_eq!(supervisor.services[0].store.stored().len(), kept, "{state:?}");
            supervisor.tick(Goal::StopAll);
            assert_eq!(supervisor.services[0].store.stored().len(), 0, "{state:?}");
        }
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
