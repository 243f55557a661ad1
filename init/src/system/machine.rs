//! What PID 1 knows of the machine, and how it tells it.

use std::fs;

use eci_contract::manifest::Manifest;
use eci_contract::shares::Share;
use eci_contract::status::{BootTimes, Check, Image, State, Status, Step};

use super::firewall::Loading;
use super::ring::Ring;
use super::rosetta::Rosetta;
use super::services::Supervisor;
use super::settings::Administered;
use super::shutdown::Then;
use crate::handover::{Handover, Platform};
use crate::measured::Measuring;
use crate::{clock, kmsg};

/// The state that steps fill and the event loop keeps.
#[derive(Debug)]
pub struct Machine {
    /// From the first stage.
    pub handover: Handover,
    /// The verified manifest.
    pub manifest: Manifest,
    /// Boot steps so far, the first stage's included.
    pub steps: Vec<Step>,
    /// Why the engine may not run.
    pub refusal: Option<String>,
    /// The firewall, while it is loaded.
    pub firewall: Option<Loading>,
    /// The administrator's settings, once they are read.
    pub settings: Option<Administered>,
    /// Folders of the host.
    pub shares: Vec<Share>,
    /// What runs x86-64 programs, where the host gives it.
    pub rosetta: Option<Rosetta>,
    /// What is measured into the TPM.
    pub measuring: Measuring,
    /// Process id of the helper that asks it for a quote.
    pub attesting: Option<u32>,
    /// The services.
    pub supervisor: Supervisor,
    /// The log.
    pub ring: Ring,
    /// The last self-check.
    pub checks: Vec<Check>,
    /// Milestones.
    pub boot_ms: BootTimes,
    /// IPv4 address with prefix length.
    pub address: Option<String>,
    /// Set once shutdown has begun.
    pub stopping: bool,
    /// What comes after it.
    pub then: Then,
}

impl Machine {
    /// A machine at the start of the second stage.
    #[must_use]
    pub fn new(handover: Handover, manifest: Manifest) -> Self {
        let boot_ms = BootTimes { kernel: handover.started_ms, init: clock::boot_ms(), engine: 0 };
        Self {
            steps: handover.steps.clone(),
            measuring: Measuring::after(handover.measured.clone()),
            attesting: None,
            handover,
            manifest,
            refusal: None,
            firewall: None,
            settings: None,
            shares: Vec::new(),
            rosetta: None,
            supervisor: Supervisor::default(),
            ring: Ring::new(),
            checks: Vec::new(),
            boot_ms,
            address: None,
            stopping: false,
            then: Then::PowerOff,
        }
    }

    /// What it runs on.
    #[must_use]
    pub fn platform(&self) -> Platform {
        self.handover.platform
    }

    /// Forbids the engine from now on. The first reason stays: later ones follow from it.
    pub fn refuse_engine(&mut self, reason: String) {
        if self.refusal.is_none() {
            kmsg::error(&format!("engine refused: {reason}"));
            self.refusal = Some(reason);
        }
    }

    /// Begins the orderly shutdown.
    pub fn stop(&mut self, why: &str) {
        if !self.stopping {
            kmsg::notice(&format!("shutting down: {why}"));
            self.stopping = true;
        }
    }

    /// The machine's view of itself.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = match (self.stopping, &self.refusal, self.boot_ms.engine) {
            (true, ..) => State::Stopping,
            (false, Some(_), _) => State::Refused,
            (false, None, 0) => State::Starting,
            (false, None, _) if self.supervisor.engine_is_ready() => State::Ready,
            (false, None, _) => State::Starting,
        };
        Status {
            version: 1,
            state,
            reason: self.reason(state),
            image: Image {
                name: self.manifest.name.clone(),
                version: self.manifest.version.clone(),
                root_hash: self.manifest.root.root_hash.clone(),
                medium: self.handover.medium,
                slot: self.handover.slot,
                on_trial: self.handover.on_trial,
            },
            settings: self.settings.as_ref().map(Administered::report),
            boot_ms: self.boot_ms,
            steps: self.steps.clone(),
            checks: self.checks.clone(),
            services: self.supervisor.report(),
            address: self.address.clone(),
            shares: self.shares.clone(),
            measured: self.measuring.told().measurements.clone(),
            memory_used_kib: memory_used_kib(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        }
    }

    fn reason(&self, state: State) -> String {
        match (state, &self.refusal) {
            (_, Some(refusal)) => refusal.clone(),
            (State::Starting, None) => "services are starting".to_owned(),
            (State::Stopping, None) => "the machine is shutting down".to_owned(),
            (State::Ready | State::Refused, None) => String::new(),
        }
    }

    /// The boot in one line: `boot 1840 ms: mounts 12, sysctls 3, …`.
    #[must_use]
    pub fn boot_line(&self) -> String {
        let steps: Vec<_> = self.steps.iter().map(|step| format!("{} {}", step.name, step.ms)).collect();
        let BootTimes { kernel, engine, .. } = self.boot_ms;
        format!("boot {engine} ms: kernel {kernel}, {}", steps.join(", "))
    }
}

fn memory_used_kib(meminfo: &str) -> u64 {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok())
    };
    match (field("MemTotal:"), field("MemAvailable:")) {
        (Some(total), Some(available)) => total.saturating_sub(available),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_use_is_total_minus_available() {
        let text = "MemTotal:        2031940 kB\nMemFree:         1700000 kB\nMemAvailable:    1900000 kB\n";
        assert_eq!(memory_used_kib(text), 131_940);
        assert_eq!(memory_used_kib(""), 0);
    }
}
