//! The boot of the second stage, as a table. Reading it tells what happens, in order.

use std::iter;
use std::thread;

use eci_contract::attest::{self, SYSINIT};
use eci_contract::choice::Switch;
use eci_contract::registries::PROXY;
use eci_contract::status::Step;
use eci_policy::settings::machine as policy;
use eci_tpm::pcr::{KERNEL_IMAGE, SYSTEM};

use super::machine::Machine;
use super::{
    apparmor, cgroups, choice, data, firewall, hidden, leftovers, links, mounts, network, read_ahead,
    rosetta, selfcheck, services, settings, shares, sysctls,
};
use crate::wsl::choices::{Part, left_out};
use crate::{clock, kmsg, power};

/// What a failed step means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The machine powers off: a promise of the image is broken.
    Fatal,
    /// The machine stays up to say why, and the engine is never started.
    RefuseEngine,
    /// The boot goes on without it.
    Degrade,
}

/// One step.
struct BootStep {
    name: &'static str,
    on_failure: OnFailure,
    /// What would be missing without it.
    why: &'static str,
    run: fn(&mut Machine) -> Result<(), Error>,
}

const STEPS: &[BootStep] = &[
    BootStep {
        name: "console",
        on_failure: OnFailure::Fatal,
        why: "standard descriptors move off the console: from here on nobody can read it",
        run: |_| Ok(mounts::leave_console()?),
    },
    BootStep {
        name: "mounts",
        on_failure: OnFailure::Fatal,
        why: "every writable mount gets its final flags before anything is started",
        run: |machine| Ok(mounts::mount_all(machine.platform())?),
    },
    BootStep {
        name: "sysctls",
        on_failure: OnFailure::Fatal,
        why: "kernel settings are written and read back",
        run: |_| Ok(sysctls::apply()?),
    },
    BootStep {
        name: "integrity",
        on_failure: OnFailure::Fatal,
        why: "the root really is the verity device of the signed manifest, and lockdown is on",
        run: |machine| Ok(selfcheck::require_integrity(machine)?),
    },
    BootStep {
        name: "hidden paths",
        on_failure: OnFailure::RefuseEngine,
        why: "a procfs that a container mounts by itself tells no more of the VM than the one that it was given",
        run: |_| Ok(hidden::close()?),
    },
    BootStep {
        name: "ctrl-alt-del",
        on_failure: OnFailure::Degrade,
        why: "the keys ask PID 1 for an orderly shutdown, the kernel does not restart at once",
        run: |_| Ok(power::keep_ctrl_alt_del()?),
    },
    BootStep {
        name: "hostname",
        on_failure: OnFailure::Degrade,
        why: "logs and `docker info` name the machine",
        run: |_| Ok(network::set_hostname()?),
    },
    BootStep {
        name: "loopback",
        on_failure: OnFailure::Degrade,
        why: "programs of the engine talk to themselves on 127.0.0.1",
        run: |_| Ok(network::bring_loopback_up()?),
    },
    BootStep {
        name: "cgroups",
        on_failure: OnFailure::RefuseEngine,
        why: "containers get limits only from controllers that the root passes down",
        run: |_| Ok(cgroups::prepare()?),
    },
    BootStep {
        name: "console closed",
        on_failure: OnFailure::RefuseEngine,
        why: "no container opens it, by a node that an image brings along",
        run: |_| Ok(cgroups::close_console()?),
    },
    BootStep {
        name: "tpm",
        on_failure: OnFailure::RefuseEngine,
        why: "PID 1 has it open, and from here on nobody else can: registers cannot be taken back, and a chip can be spoilt",
        run: |machine| {
            machine.measuring.open();
            Ok(cgroups::close_tpm()?)
        },
    },
    BootStep {
        name: "firewall",
        on_failure: OnFailure::RefuseEngine,
        why: "no program of the VM is reached over a network, whatever port one opens; loaded beside what follows",
        run: |machine| {
            machine.firewall = Some(firewall::start()?);
            Ok(())
        },
    },
    BootStep {
        name: "apparmor",
        on_failure: OnFailure::RefuseEngine,
        why: "the profiles of containers and of the engine are loaded before there are any",
        run: |_| Ok(apparmor::load()?),
    },
    BootStep {
        name: "settings",
        on_failure: OnFailure::RefuseEngine,
        why: "what the administrator set is known before anything starts that it is about",
        run: |machine| {
            machine.settings = Some(settings::read()?);
            Ok(())
        },
    },
    BootStep {
        name: "limits",
        on_failure: OnFailure::RefuseEngine,
        why: "whatever started the machine, it is no larger and no older than the administrator allows",
        run: |machine| {
            let Some(settings) = &machine.settings else { return Ok(()) };
            Ok(settings.judge(size_of_machine(&machine.manifest.version))?)
        },
    },
    BootStep {
        name: "isolation",
        // A choice that is not the user's changes nothing, an update that locks it included: no user keeps that from proving itself.
        on_failure: OnFailure::Degrade,
        why: "the administrator says whether containers are isolated, or leaves it to who starts the machine",
        run: |machine| {
            let choice = choice::read()?;
            Ok(machine.settings.as_mut().map_or(Ok(()), |settings| settings.choose(choice))?)
        },
    },
    BootStep {
        name: "services",
        on_failure: OnFailure::RefuseEngine,
        why: "the table of what runs",
        run: |machine| {
            // Without settings the engine is refused, and gets none.
            let settings = machine.settings.as_ref();
            let engine =
                settings.map(|settings| settings.engine(&machine.manifest.version)).unwrap_or_default();
            let isolation = settings.map(settings::Administered::isolation).unwrap_or_default();
            let registries = settings.and_then(settings::Administered::registries);
            machine.supervisor = services::load(machine.platform(), &engine, isolation, registries)?;
            Ok(())
        },
    },
    BootStep {
        name: "open files",
        on_failure: OnFailure::Degrade,
        why: "PID 1 keeps a listener of each container for the service that answers them",
        run: |_| services::store::make_room().map_err(Error::OpenFiles),
    },
    BootStep {
        name: "read ahead",
        on_failure: OnFailure::Degrade,
        why: "the engine's 150 MB come into memory while the data disk is looked at",
        run: |machine| read_ahead::start(&machine.supervisor).map_err(Error::ReadAhead),
    },
    BootStep {
        name: "data disk",
        on_failure: OnFailure::RefuseEngine,
        why: "images, containers and volumes live there; it is made, checked, grown, never overwritten",
        run: |machine| Ok(data::mount(&machine.handover.disk)?),
    },
    BootStep {
        name: "links",
        on_failure: OnFailure::RefuseEngine,
        why: "the engine follows no link in volumes and layers, where containers put them in its way",
        run: |_| Ok(links::follow_none()?),
    },
    BootStep {
        name: "leftovers",
        on_failure: OnFailure::Degrade,
        why: "what the engine could not remove, deeper than its profile has names for, keeps no space for good",
        run: |_| Ok(leftovers::empty()?),
    },
    BootStep {
        name: "settings taken",
        on_failure: OnFailure::RefuseEngine,
        why: "an older edition of a config disk does not follow a newer one",
        run: |machine| {
            let taken = machine.settings.as_ref().map_or(Ok(()), settings::Administered::take);
            if taken.is_err() {
                // Nothing is in force.
                machine.settings = None;
            }
            Ok(taken?)
        },
    },
    BootStep {
        name: "measure settings",
        on_failure: OnFailure::Degrade,
        why: "whoever asks the TPM learns what was in force before anything started that could pretend it",
        run: |machine| {
            if let Some(settings) = &machine.settings {
                machine.measuring.measure(SYSTEM, attest::settings(settings.sha256()));
                if settings.isolation() == Switch::Off {
                    machine.measuring.measure(SYSTEM, attest::ISOLATION_OFF.to_owned());
                }
            }
            Ok(())
        },
    },
    BootStep {
        name: "isolation told",
        on_failure: OnFailure::RefuseEngine,
        why: "the runtime isolates unless it is told otherwise, and nobody else can tell it",
        run: |machine| {
            Ok(machine.settings.as_ref().map_or(Ok(()), settings::Administered::tell_of_isolation)?)
        },
    },
    BootStep {
        name: "socket list",
        on_failure: OnFailure::RefuseEngine,
        why: "runtime and gate know which containers may have the engine's socket, and what for",
        run: |machine| {
            Ok(machine.settings.as_ref().map_or(Ok(()), settings::Administered::tell_of_socket)?)
        },
    },
    BootStep {
        name: "ports",
        on_failure: OnFailure::RefuseEngine,
        why: "the gate has the host publish ports of containers no further than the administrator allows",
        run: |machine| {
            let platform = machine.platform();
            Ok(machine.settings.as_ref().map_or(Ok(()), |settings| settings.tell_of_ports(platform))?)
        },
    },
    BootStep {
        name: "registries",
        on_failure: OnFailure::RefuseEngine,
        why: "before anything fetches, the kernel lets it speak to the one program alone that judges where it may fetch from",
        run: |machine| {
            let Some(settings) = &machine.settings else { return Ok(()) };
            settings.tell_of_registries(machine.platform())?;
            let Some(registries) = settings.registries() else { return Ok(()) };
            let addresses: Vec<_> = iter::once(PROXY.into()).chain(registries.loopback()).collect();
            Ok(cgroups::keep_diallers_to(&addresses)?)
        },
    },
    BootStep {
        name: "shares",
        on_failure: OnFailure::RefuseEngine,
        why: "folders of the host are there before the engine starts containers that have them, and none that the administrator does not allow",
        run: |machine| {
            let allowed = machine.settings.as_ref().map(settings::Administered::shares);
            machine.shares = allowed.map_or(Ok(Vec::new()), shares::mount)?;
            Ok(())
        },
    },
    BootStep {
        name: rosetta::STEP,
        on_failure: OnFailure::Degrade,
        why: "containers run x86-64 programs as well, by the program that a Mac gives for that",
        run: |machine| {
            machine.rosetta = Some(rosetta::register()?);
            Ok(())
        },
    },
    BootStep {
        name: "firewall in force",
        on_failure: OnFailure::RefuseEngine,
        why: "before the engine opens anything",
        run: |machine| Ok(machine.firewall.take().map_or(Ok(()), firewall::Loading::finish)?),
    },
    BootStep {
        name: "self-check",
        on_failure: OnFailure::RefuseEngine,
        why: "every promise is read back before the engine may start; again when it is ready",
        run: |machine| Ok(selfcheck::run(machine, selfcheck::Moment::BeforeEngine)?),
    },
    BootStep {
        name: "measure sysinit",
        on_failure: OnFailure::Degrade,
        why: "everything is decided that the engine starts with",
        run: |machine| {
            machine.measuring.measure(KERNEL_IMAGE, SYSINIT.to_owned());
            Ok(())
        },
    },
];

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Mounts(#[from] mounts::Error),
    #[error(transparent)]
    Sysctls(#[from] sysctls::Error),
    #[error(transparent)]
    Selfcheck(#[from] selfcheck::Error),
    #[error(transparent)]
    Hidden(#[from] hidden::Error),
    #[error("cannot keep ctrl-alt-del from restarting the machine")]
    Keys(#[from] power::KeysError),
    #[error(transparent)]
    Network(#[from] network::Error),
    #[error(transparent)]
    Cgroups(#[from] cgroups::Error),
    #[error(transparent)]
    Firewall(#[from] firewall::Error),
    #[error(transparent)]
    Apparmor(#[from] apparmor::Error),
    #[error(transparent)]
    Settings(#[from] settings::Error),
    #[error(transparent)]
    Choice(#[from] choice::Error),
    #[error(transparent)]
    Shares(#[from] shares::Error),
    #[error(transparent)]
    Rosetta(#[from] rosetta::Error),
    #[error(transparent)]
    Services(#[from] services::Error),
    #[error("cannot have more files open")]
    OpenFiles(#[source] rustix::io::Errno),
    #[error("cannot start the helper that reads ahead")]
    ReadAhead(#[source] std::io::Error),
    #[error(transparent)]
    Data(#[from] data::Error),
    #[error(transparent)]
    Links(#[from] links::Error),
    #[error(transparent)]
    Leftovers(#[from] leftovers::Error),
}

/// What the kernel has, for [`settings::Administered::judge`].
fn size_of_machine(version: &str) -> policy::Machine<'_> {
    let memory = rustix::system::sysinfo();
    let memory = memory.totalram.saturating_mul(memory.mem_unit.into());
    // PID 1 may run on all of them.
    let cpus = thread::available_parallelism()
        .map_or(u32::MAX, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX));
    policy::Machine { memory, cpus, version }
}

/// Runs every step.
///
/// # Errors
/// With the failed step and its reason, when that step is fatal.
pub fn run(machine: &mut Machine) -> Result<(), String> {
    for step in STEPS {
        let not_here = || (step.name == rosetta::STEP).then(rosetta::left_out).flatten();
        if let Some(why) = left_out(machine.platform(), Part::Step(step.name)).or_else(not_here) {
            kmsg::info(&format!("{}: left out ({why})", step.name));
            machine.steps.push(Step { name: step.name.into(), ms: 0, outcome: format!("left out: {why}") });
            continue;
        }
        kmsg::info(&format!("{}: starting ({})", step.name, step.why));
        let start = clock::boot_ms();
        let result = (step.run)(machine);
        let ms = clock::boot_ms().saturating_sub(start);
        let outcome = result.as_ref().map_or_else(|err| kmsg::chain(err), |()| "ok".to_owned());
        machine.steps.push(Step { name: step.name.into(), ms, outcome: outcome.clone() });
        if result.is_ok() {
            kmsg::info(&format!("{}: ok {ms}ms", step.name));
            continue;
        }
        kmsg::error(&format!("{}: failed: {outcome}", step.name));
        match step.on_failure {
            OnFailure::Fatal => return Err(format!("{}: {outcome}", step.name)),
            OnFailure::RefuseEngine => machine.refuse_engine(outcome),
            OnFailure::Degrade => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_step_says_why() {
        for (index, step) in STEPS.iter().enumerate() {
            assert!(!step.why.is_empty());
            assert!(STEPS[..index].iter().all(|other| other.name != step.name), "{}", step.name);
        }
    }

    #[test]
    fn what_is_left_out_elsewhere_is_the_name_of_something() {
        for choice in crate::wsl::choices::LEFT_OUT {
            let known = match choice.part {
                Part::Step(name) => STEPS.iter().any(|step| step.name == name),
                Part::Mount(target) => mounts::MOUNTS.iter().any(|row| row.target == target),
                Part::Promise(id) => selfcheck::promises::PROMISES.iter().any(|promise| promise.id == id),
                Part::Service(name) => name == network::SERVICE,
                Part::Request(name) => name == "clock",
            };
            assert!(known, "{:?}", choice.part);
        }
    }

    #[test]
    fn what_an_image_promises_is_fatal_and_checked_before_the_engine() {
        let position = |name: &str| STEPS.iter().position(|step| step.name == name).unwrap();
        for name in ["console", "mounts", "sysctls", "integrity"] {
            assert_eq!(STEPS[position(name)].on_failure, OnFailure::Fatal, "{name}");
        }
        assert_eq!(position("self-check"), STEPS.len() - 2);
        assert!(position("integrity") < position("data disk"));
        assert!(position("integrity") < position("settings") && position("settings") < position("services"));
    }
}
