//! The second stage: PID 1 on the verified root.
//!
//! [`steps`] is the boot in order. After it, [`event_loop`] supervises until something asks for the end, and
//! [`shutdown`] is that end: the only way out.
//!
//! Invariant: the engine is started only after every fatal step and every promise of [`selfcheck`] held, and is
//! stopped when one does not hold after it started.

pub mod apparmor;
pub mod attest;
pub mod cgroups;
pub mod choice;
pub mod control;
pub mod data;
pub mod event_loop;
pub mod firewall;
pub mod hidden;
pub mod input;
pub mod leftovers;
mod links;
pub mod machine;
pub mod mounts;
pub mod network;
pub mod notify;
pub mod program;
pub mod read_ahead;
pub mod ring;
pub mod rosetta;
pub mod selfcheck;
pub mod services;
pub mod settings;
pub mod shares;
pub mod shutdown;
pub mod steps;
pub mod sysctls;
pub mod trial;

use crate::{handover, kmsg, power};

/// Runs the stage until power-off.
pub fn run() -> ! {
    power::install_panic_hook();
    let mut machine = match handover::read() {
        Ok((handover, manifest)) => machine::Machine::new(handover, manifest),
        Err(err) => {
            kmsg::error(&format!("boot refused: {}", kmsg::chain(&err)));
            power::off()
        }
    };
    let platform = machine.platform();
    match steps::run(&mut machine) {
        Ok(()) => match event_loop::run(&mut machine) {
            Ok(()) => kmsg::notice("all services have stopped"),
            Err(err) => kmsg::error(&format!("supervision failed: {}", kmsg::chain(&err))),
        },
        Err(refusal) => {
            kmsg::error(&format!("boot refused: {refusal}"));
            trial::give_up_at_once(&mut machine);
        }
    }
    shutdown::finish(platform, machine.then)
}
