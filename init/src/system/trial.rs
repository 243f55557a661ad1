//! The first boots of a new version: it gets the engine ready, or the old one is booted again.

use eci_slots::choice;

use super::machine::Machine;
use super::shutdown::Then;
use crate::handover::Handover;
use crate::{boots, clock, kmsg};

/// Milliseconds since power-on until which the engine has to be ready: its own limit of 180 s (`services.json`), a restart of it,
/// and what comes before.
const DEADLINE_MS: u64 = 400_000;

/// The engine is ready and every promise holds: the slot is the one to boot from now on.
pub fn note_ready(machine: &mut Machine) {
    if !machine.handover.on_trial {
        return boots::note_end(&mut machine.handover);
    }
    match write_down(&machine.handover) {
        Ok(()) => {
            machine.handover.on_trial = false;
            let version = &machine.manifest.version;
            kmsg::notice(&format!("slot {}: version {version} has proven itself", machine.handover.slot));
        }
        // It stays on trial, and is tried again at the next boot.
        Err(err) => kmsg::error(&format!("slot {}: {}", machine.handover.slot, kmsg::chain(&err))),
    }
}

/// Ends a trial that does not lead to an engine. A proven version's boot has come to an end when it is refused one, or shut down.
pub fn judge(machine: &mut Machine) {
    if machine.refusal.is_some() || machine.stopping {
        boots::note_end(&mut machine.handover);
    }
    let is_over = machine.refusal.is_some() || clock::boot_ms() > DEADLINE_MS;
    let is_undecided = machine.handover.on_trial && machine.boot_ms.engine == 0 && !machine.stopping;
    if is_undecided && is_over {
        machine.then = Then::Restart;
        machine.stop("this version is on trial and does not get the engine ready");
    }
}

/// The same for a boot that does not get as far as to services.
pub fn give_up_at_once(machine: &mut Machine) {
    boots::note_end(&mut machine.handover);
    if machine.handover.on_trial {
        machine.then = Then::Restart;
    }
}

fn write_down(handover: &Handover) -> Result<(), boots::Error> {
    boots::change(&handover.disk, handover.sector, |table| {
        let (this, other) = choice::proven(table.count(handover.slot.other())?);
        table.set_count(handover.slot.other(), other)?;
        table.set_count(handover.slot, this)
    })
}
