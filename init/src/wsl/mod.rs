//! The first stage in a distro of WSL 2: from the archive's few files to the verified root.
//!
//! WSL starts `/sbin/init` as PID 1 of namespaces for processes, mounts, hostname and IPC, and takes it for systemd. Kernel, network
//! and the root of the cgroup tree are those of all distros. [`choices`] lists what is left out for that; everything else is as on a
//! machine, from the same signed root.
//!
//! Invariant: signature before verity before mount, as in the initramfs. But who is root in the distro can replace this program
//! and the key beside it: WSL makes its user root without asking, so this protects against damage, not against that user.

pub mod cgroup;
pub mod choices;
pub mod doors;
pub mod root;
pub mod systemctl;

use std::convert::Infallible;
use std::io;

use eci_contract::status::Step;
use eci_contract::wsl::{MANIFEST, SIGNATURE};

use crate::handover::{self, Handover, Platform};
use crate::initramfs::verify::{self, Verified};
use crate::initramfs::{switch, verity};
use crate::{clock, kmsg, power};

/// What WSL sets for PID 1, as other container managers do for systemd.
const CONTAINER: (&str, &str) = ("container", "wsl");

/// What is told at each start; SECURITY.md has the long form.
const LIMITS: &str = "WSL 2: containers are isolated from each other and from this distro; the distro is not protected from \
                      the Windows user, who can become root in it (`wsl -u root`, `--debug-shell`, `--system`) or edit its disk";

/// One step.
struct StageStep {
    name: &'static str,
    /// What would be missing without it.
    why: &'static str,
    run: fn(&mut Stage) -> Result<(), Error>,
}

const STEPS: &[StageStep] = &[
    StageStep {
        name: "platform",
        why: "another container manager does not start this as WSL does",
        run: |_| require_wsl(),
    },
    StageStep {
        name: "verify signature",
        why: "nothing else of the archive is used before",
        run: |stage| {
            stage.verified = Some(verify::verify_files(MANIFEST, SIGNATURE)?);
            Ok(())
        },
    },
    StageStep {
        name: "mount namespace",
        why: "WSL's own processes and sessions keep the distro's mounts, and see none of ours",
        run: |_| Ok(root::leave_mounts()?),
    },
    StageStep {
        name: "cgroups",
        why: "a branch of the tree that all distros share, which is the whole tree from here on",
        run: |_| Ok(cgroup::enter_branch()?),
    },
    StageStep {
        name: "verity",
        why: "each block of the root is checked when it is read; one that is not as signed gives an error",
        run: |stage| {
            let name = root::device_name()?;
            root::activate(&name, &stage.verified()?.manifest.root)?;
            stage.handover.verity_device = name;
            Ok(())
        },
    },
    StageStep {
        name: "mount root",
        why: "read-only; its device goes away with the last mount of it",
        run: |stage| {
            let mounted = switch::mount_root(&stage.handover.verity_device);
            // Without a mount, it goes away at once.
            root::remove_device_with_mount(&stage.handover.verity_device)?;
            Ok(mounted?)
        },
    },
    StageStep {
        name: "pseudo file systems",
        why: "mounts of our own, with the flags that they have on a machine",
        run: |_| Ok(switch::mount_pseudo_below(switch::NEW_ROOT)?),
    },
    StageStep {
        name: "data folder",
        why: "images, containers and volumes live on the distro's own disk",
        run: |_| Ok(root::bind_data()?),
    },
    StageStep {
        name: "doors",
        why: "the folders in which the distro and others find the engine's socket, and nothing else of ours",
        run: |_| Ok(doors::open()?),
    },
];

/// Why the start was refused.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("started by something else than WSL: the environment says container={found:?}, and not \"wsl\"")]
    Platform { found: String },
    #[error("the manifest was not verified")]
    Order,
    #[error(transparent)]
    Verify(#[from] verify::Error),
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    #[error(transparent)]
    Root(#[from] root::Error),
    #[error(transparent)]
    Doors(#[from] doors::Error),
    #[error(transparent)]
    Switch(#[from] switch::Error),
    #[error(transparent)]
    Verity(#[from] verity::Error),
    #[error(transparent)]
    Handover(#[from] handover::Error),
    #[error("cannot execute `{}`", switch::SECOND_STAGE)]
    Execute(#[source] io::Error),
}

#[derive(Default)]
struct Stage {
    handover: Handover,
    verified: Option<Verified>,
}

impl Stage {
    fn verified(&self) -> Result<&Verified, Error> {
        self.verified.as_ref().ok_or(Error::Order)
    }
}

/// Runs the stage. Ends in the system stage, or in one line in the kernel's log that says why not, and the end of the distro.
pub fn run() -> ! {
    power::install_panic_hook();
    kmsg::notice(LIMITS);
    let refusal = match boot() {
        Ok(never) => match never {},
        Err(refusal) => refusal,
    };
    kmsg::error(&format!("start refused: {refusal}"));
    power::off()
}

fn boot() -> Result<Infallible, String> {
    let mut stage = Stage::default();
    stage.handover.platform = Platform::Wsl;
    stage.handover.started_ms = clock::boot_ms();
    for step in STEPS {
        kmsg::info(&format!("{}: starting ({})", step.name, step.why));
        let start = clock::boot_ms();
        (step.run)(&mut stage).map_err(|err| format!("{}: {}", step.name, kmsg::chain(&err)))?;
        let ms = clock::boot_ms().saturating_sub(start);
        stage.handover.steps.push(Step { name: step.name.into(), ms, outcome: "ok".into() });
    }
    enter(&stage).map_err(|err| kmsg::chain(&err))
}

/// Moves into the verified root and goes on there. Does not return.
fn enter(stage: &Stage) -> Result<Infallible, Error> {
    root::pivot()?;
    handover::write(&stage.handover, &stage.verified()?.bytes)?;
    Err(Error::Execute(root::execute(switch::SECOND_STAGE)))
}

/// The environment is WSL's. It steers nothing: this says at once why the steps after it would fail.
fn require_wsl() -> Result<(), Error> {
    let (name, value) = CONTAINER;
    let found = std::env::var(name).unwrap_or_default();
    if found == value { Ok(()) } else { Err(Error::Platform { found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_checked_before_anything_is_read_or_mounted() {
        let position = |name: &str| STEPS.iter().position(|step| step.name == name).unwrap();
        assert!(position("verify signature") < position("verity"));
        assert!(position("verity") < position("mount root"));
        assert!(STEPS.iter().all(|step| !step.why.is_empty()));
    }

    #[test]
    fn errors_say_what_to_look_at() {
        let error = Error::Platform { found: "docker".into() };
        assert!(error.to_string().contains("container=\"docker\""));
        let error = Error::Execute(io::ErrorKind::NotFound.into());
        assert_eq!(error.to_string(), "cannot execute `/usr/sbin/init`");
    }
}
