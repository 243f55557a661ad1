//! The self-check: every promise of immutability is read back from the running system.
//!
//! [`evidence`] reads, [`promises`] judges (pure, in a table). The check runs before the engine starts and again when
//! it is ready; a promise that does not hold stops the engine for this boot. While isolation is off, containers that started with the engine may
//! have changed what their root may: then only what they cannot is asked for again.

pub mod evidence;
pub mod promises;

use eci_contract::choice::Switch;
use eci_contract::status::Check;

use self::evidence::Evidence;
use self::promises::PROMISES;
use super::machine::Machine;
use super::settings::Administered;
use crate::kmsg;
use crate::wsl::choices::{Part, left_out};

/// Why what holds before the engine starts is not asked for again where containers are not isolated.
const ISOLATION_OFF: &str =
    "isolation is off, and containers are root of the machine; it held before the engine started";

/// When the check runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nothing runs but PID 1.
    BeforeEngine,
    /// The engine said that it is ready.
    EngineReady,
}

/// Which promises do not hold.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("self-check failed: {0}")]
pub struct Error(String);

/// Checks all promises; the rows go into the status.
///
/// # Errors
/// With every promise that does not hold.
pub fn run(machine: &mut Machine, moment: Moment) -> Result<(), Error> {
    let evidence = Evidence::gather(&machine.handover, machine.supervisor.engine_pid());
    machine.checks = judge_all(&evidence, machine, moment);
    let held = machine.checks.iter().filter(|check| check.holds).count();
    let left_out = machine.checks.iter().filter(|check| check.left_out.is_some()).count();
    let all = machine.checks.len() - left_out;
    kmsg::info(&format!("self-check ({moment:?}): {held} of {all} promises hold, {left_out} are left out"));
    failures(&machine.checks)
}

/// The promises without which nothing else may even be tried: the root is what was signed, and lockdown is on.
///
/// # Errors
/// With those that do not hold.
pub fn require_integrity(machine: &Machine) -> Result<(), Error> {
    let checks = judge_all(&Evidence::gather(&machine.handover, None), machine, Moment::BeforeEngine);
    let integral: Vec<_> = checks
        .into_iter()
        .filter(|check| PROMISES.iter().any(|promise| promise.id == check.id && promise.integrity))
        .collect();
    failures(&integral)
}

fn judge_all(evidence: &Evidence, machine: &Machine, moment: Moment) -> Vec<Check> {
    let isolation = machine.settings.as_ref().map(Administered::isolation).unwrap_or_default();
    let rows = PROMISES.iter().map(|promise| {
        let is_containers = moment == Moment::EngineReady && isolation == Switch::Off && !promise.integrity;
        let left_out = left_out(machine.platform(), Part::Promise(promise.id));
        let left_out = left_out.or(is_containers.then_some(ISOLATION_OFF));
        let (holds, found) = match (left_out, (promise.check)(evidence, &machine.manifest)) {
            (Some(_), _) => (false, String::new()),
            (None, Ok(found)) => (true, found),
            (None, Err(found)) => (false, found),
        };
        let left_out = left_out.map(str::to_owned);
        Check { id: promise.id.into(), promise: promise.promise.into(), holds, found, left_out }
    });
    rows.collect()
}

fn failures(checks: &[Check]) -> Result<(), Error> {
    let failed = checks.iter().filter(|check| !check.holds && check.left_out.is_none());
    let failed: Vec<_> = failed.map(|check| format!("{} (found: {})", check.id, check.found)).collect();
    if failed.is_empty() { Ok(()) } else { Err(Error(failed.join("; "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failed_promise_is_named_with_what_was_found() {
        let row = |id: &str, holds| Check {
            id: id.into(),
            promise: String::new(),
            holds,
            found: "x".into(),
            left_out: None,
        };
        assert_eq!(failures(&[row("a", true)]), Ok(()));
        assert_eq!(failures(&[Check { left_out: Some("why".into()), ..row("b", false) }]), Ok(()));
        let error = failures(&[row("a", false), row("b", true), row("c", false)]).unwrap_err();
        assert_eq!(error.to_string(), "self-check failed: a (found: x); c (found: x)");
    }
}
