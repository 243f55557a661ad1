//! The first stage: from power-on to the verified root.
//!
//! Invariant: signature before verity before mount. Nothing read from the disk is used before the manifest's
//! signature was checked with the key in the initramfs, but for choosing which slot to check.

pub mod disk;
pub mod secure_boot;
pub mod slot;
pub mod switch;
pub mod verify;
pub mod verity;

use std::time::Duration;

use eci_contract::attest::{self, ENTER_INITRD, LEAVE_INITRD};
use eci_contract::status::Step;
use eci_tpm::pcr::{KERNEL_IMAGE, SYSTEM};

use crate::handover::{self, Handover};
use crate::measured::Measuring;
use crate::{boots, clock, kmsg, power};

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
    SecureBoot(#[from] secure_boot::Error),
    #[error(transparent)]
    Verity(#[from] verity::Error),
    #[error(transparent)]
    Switch(#[from] switch::Error),
    #[error(transparent)]
    Handover(#[from] handover::Error),
}

/// Runs the stage. Ends in the system stage, or in one line on the console that says why not, and power-off; where a version
/// on trial was refused, in a restart, for it has fewer tries then and the proven one is next.
pub fn run() -> ! {
    power::install_panic_hook();
    let mut steps = Steps { handover: Handover { started_ms: clock::boot_ms(), ..Handover::default() } };
    let refusal = match boot(&mut steps) {
        Ok(never) => match never {},
        Err(err) => err,
    };
    kmsg::error(&format!("boot refused: {}", kmsg::chain(&refusal)));
    if steps.handover.on_trial {
        power::restart()
    }
    boots::note_end(&mut steps.handover);
    power::off()
}

fn boot(steps: &mut Steps) -> Result<std::convert::Infallible, Error> {
    steps.time("pseudo file systems", switch::mount_pseudo)?;
    let mut measuring = Measuring::default();
    measuring.open();
    measuring.measure(KERNEL_IMAGE, ENTER_INITRD.to_owned());
    let disk = steps.time("find disk", || disk::wait(DISK_DEADLINE))?;
    let partitions = steps.time("choose slot", || slot::choose(&disk))?;
    (steps.handover.disk, steps.handover.sector) = (disk.name.clone(), disk.sector);
    steps.handover.medium = disk.medium;
    steps.handover.slot = partitions.slot;
    steps.handover.counted = steps.time("count boot", || slot::count(&disk, &partitions))?;
    // Not before: a version on trial whose boots are not counted would be restarted for ever.
    steps.handover.on_trial = partitions.count.on_trial();
    let verified = steps.time("verify signature", || verify::verify(&partitions))?;
    steps.time("not too old", || verify::check_age(&disk, &partitions, &verified.manifest))?;
    steps.handover.secure_boot = steps.time("secure boot", secure_boot::is_enforced)?.unwrap_or(true);
    let signature = steps.handover.secure_boot.then_some(&*verified.root_hash_signature);
    steps.time("verity", || {
        let devices = verity::Devices::of_slot(&partitions)?;
        verity::activate(verity::DEVICE_NAME, &devices, &verified.manifest.root, &verity::OPTIONS, signature)
    })?;
    // Before anything of it is read.
    measuring.measure(SYSTEM, attest::root(&verified.manifest.root.root_hash));
    steps.time("mount root", || switch::mount_root(verity::DEVICE_NAME))?;
    verity::DEVICE_NAME.clone_into(&mut steps.handover.verity_device);
    measuring.measure(KERNEL_IMAGE, LEAVE_INITRD.to_owned());
    steps.handover.measured = measuring.told().clone();
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
