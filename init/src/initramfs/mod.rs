//! The first stage: from power-on to the verified root.
//!
//! Invariant: signature before verity before mount. Nothing read from the disk is used before the manifest's
//! signature was checked with the key in the initramfs, but for choosing which slot to check.

pub mod disk;
pub mod slot;
pub mod switch;
pub mod verify;
pub mod verity;

use std::time::Duration;

use eci_contract::status::Step;

use crate::handover::{self, Handover};
use crate::{clock, kmsg, power};

/// How long the disk may take to appear. Hyper-V's SCSI took 2 s on a loaded host; twice that and a half more.
const DISK_DEADLINE: Duration = Duration::from_secs(5);

/// Why the boot was refused.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Disk(#[from] disk::Error),
    #[error(transparent)]
    Slot(#[from] slot::Error),
    #[error(transparent)]
    Verify(#[from] verify::Error),
    #[error(transparent)]
    Verity(#[from] verity::Error),
    #[error(transparent)]
    Switch(#[from] switch::Error),
    #[error(transparent)]
    Handover(#[from] handover::Error),
}

/// Runs the stage. Ends in the system stage, or in one line on the console that says why not, and power-off.
pub fn run() -> ! {
    power::install_panic_hook();
    let refusal = match boot() {
        Ok(never) => match never {},
        Err(err) => err,
    };
    kmsg::error(&format!("boot refused: {}", kmsg::chain(&refusal)));
    power::off()
}

fn boot() -> Result<std::convert::Infallible, Error> {
    let mut steps = Steps { handover: Handover { started_ms: clock::boot_ms(), ..Handover::default() } };
    steps.time("pseudo file systems", switch::mount_pseudo)?;
    let disk = steps.time("find disk", || disk::wait(DISK_DEADLINE))?;
    let partitions = steps.time("choose slot", || slot::choose(&disk))?;
    let verified = steps.time("verify signature", || verify::verify(&partitions))?;
    steps.time("verity", || verity::activate(&partitions, &verified))?;
    steps.time("mount root", switch::mount_root)?;
    steps.handover.disk = disk.name;
    handover::write(&steps.handover, &verified.bytes)?;
    Ok(switch::switch_root()?)
}

/// Steps done so far, with their times.
struct Steps {
    handover: Handover,
}

impl Steps {
    fn time<T, E: Into<Error>>(
        &mut self,
        name: &str,
        step: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Error> {
        let start = clock::boot_ms();
        let value = step().map_err(Into::into)?;
        let ms = clock::boot_ms().saturating_sub(start);
        self.handover.steps.push(Step { name: name.into(), ms, outcome: "ok".into() });
        Ok(value)
    }
}
