//! Whether KVM really works here.
//!
//! Some hosts have a `/dev/kvm` that opens, answers its version, makes a VM, and then runs an ordinary guest for ever
//! without a line of output. So the proof is a guest that prints: our own kernel without a disk.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use eci_contract::manifest::Architecture;
use serde::{Deserialize, Serialize};

use super::artifacts::Artifacts;
use super::machine::{Accelerator, Plan, program};
use crate::cache::Cache;

/// How long a guest under KVM may take to its first line. A working one needs well under a second.
const PROOF_DEADLINE: Duration = Duration::from_secs(8);
/// KVM's device.
const DEVICE: &str = "/dev/kvm";
const POLL: Duration = Duration::from_millis(50);

/// Why KVM could not be tried.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} to try KVM")]
pub struct Error {
    operation: &'static str,
    source: io::Error,
}

/// The outcome of a trial, remembered for this kernel and boot of the host.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    release: String,
    boot_id: String,
    works: bool,
}

/// What is known of KVM without trying it.
#[derive(Debug)]
pub enum Kvm {
    /// It ran a guest in this boot of the host.
    Works,
    /// A guest under it printed nothing.
    Silent,
    /// This user cannot open its device.
    Closed(io::Error),
    /// Nobody has tried it since the host was booted.
    NotTried,
}

/// Looks at KVM's device and at what an earlier trial gave.
///
/// # Errors
/// [`Error`] when the host or the cache cannot be read.
pub fn known(cache: &Cache) -> Result<Kvm, Error> {
    if let Err(error) = OpenOptions::new().read(true).write(true).open(DEVICE) {
        return Ok(Kvm::Closed(error));
    }
    let (release, boot_id) = host()?;
    Ok(match recall(&memory(cache)?, &release, &boot_id) {
        Some(true) => Kvm::Works,
        Some(false) => Kvm::Silent,
        None => Kvm::NotTried,
    })
}

/// Whether guests of this architecture can be run by this host's processor at all.
#[must_use]
pub fn is_native(architecture: Architecture) -> bool {
    architecture.as_str() == std::env::consts::ARCH
}

/// Proves that KVM runs a guest, or remembers the proof from earlier in this boot of the host.
///
/// # Errors
/// [`Error`] when it could not be tried at all.
pub fn kvm_works(artifacts: &Artifacts, cache: &Cache) -> Result<bool, Error> {
    match known(cache)? {
        Kvm::Works => return Ok(true),
        Kvm::Silent | Kvm::Closed(_) => return Ok(false),
        Kvm::NotTried => {}
    }
    let (release, boot_id) = host()?;
    let memory = memory(cache)?;
    let works = prove(artifacts)?;
    let text = serde_json::to_vec(&Remembered { release, boot_id, works });
    text.map_err(io::Error::from)
        .and_then(|text| fs::write(&memory, text))
        .map_err(failed("remember the answer"))?;
    Ok(works)
}

/// Release of the host's kernel, and the id of its boot.
fn host() -> Result<(String, String), Error> {
    Ok((read("/proc/sys/kernel/osrelease")?, read("/proc/sys/kernel/random/boot_id")?))
}

/// Where a trial's outcome is kept.
fn memory(cache: &Cache) -> Result<PathBuf, Error> {
    let folder = cache.folder("").map_err(|error| failed("use the cache")(io::Error::other(error)))?;
    Ok(folder.join("kvm.json"))
}

/// A file that is missing, or of another format, remembers nothing.
fn recall(memory: &Path, release: &str, boot_id: &str) -> Option<bool> {
    let remembered: Remembered = serde_json::from_slice(&fs::read(memory).ok()?).ok()?;
    (remembered.release == release && remembered.boot_id == boot_id).then_some(remembered.works)
}

fn prove(artifacts: &Artifacts) -> Result<bool, Error> {
    let folder = tempfile::tempdir().map_err(failed("make a temporary folder"))?;
    let console = folder.path().join("console");
    let plan = Plan {
        architecture: artifacts.manifest.architecture,
        accelerator: Accelerator::Kvm,
        memory_mib: 512,
        cpus: 1,
        kernel: artifacts.kernel.clone(),
        initrd: artifacts.initrd.clone(),
        measured: None,
        console: console.clone(),
        body: None,
    };
    let mut command = Command::new(program(plan.architecture).0);
    command.args(plan.arguments()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut guest = command.spawn().map_err(failed("start QEMU"))?;
    let started = Instant::now();
    let printed = || fs::metadata(&console).is_ok_and(|console| console.len() > 0);
    let mut ended = false;
    while !printed() && !ended && started.elapsed() < PROOF_DEADLINE {
        thread::sleep(POLL);
        ended = guest.try_wait().map_err(failed("wait for QEMU"))?.is_some();
    }
    let works = printed();
    // It may have ended by itself; then there is nothing to kill.
    drop(guest.kill());
    guest.wait().map_err(failed("wait for QEMU"))?;
    Ok(works)
}

fn read(path: &'static str) -> Result<String, Error> {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(failed("identify the host"))
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error { operation, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_for_the_boot_it_was_found_in() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let memory = folder.path().join("kvm.json");
        assert_eq!(recall(&memory, "6.1", "a"), None);
        fs::write(&memory, r#"{"release":"6.1","boot_id":"a","works":false}"#).expect("remembered");
        assert_eq!(recall(&memory, "6.1", "a"), Some(false));
        assert_eq!(recall(&memory, "6.1", "b"), None);
        assert_eq!(recall(&memory, "6.2", "a"), None);
    }
}
