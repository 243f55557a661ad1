//! Measured boot: what is told to the TPM while the machine boots. It keeps nobody from anything; it is there for those who ask later
//! (`eci-builder attest`), whom nothing that ran afterwards can deceive.
//!
//! PID 1 goes on where firmware, stub and kernel left off: phases into PCR 11, the root and the administrator's settings into PCR 15. From
//! before services start, nobody else can open the device. A helper measures, for a chip that hangs would take PID 1 along.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use eci_contract::attest::Measurement;
use serde::{Deserialize, Serialize};

use crate::kmsg;
use crate::tpm::{self, Tpm};

/// The argument that makes `init` the helper; never PID 1.
pub const ROLE: &str = "measure";
/// This program, in either stage.
const INIT: &str = "/proc/self/exe";
/// How long a boot waits for one measurement, and it waits so once. Chips take some ten milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks whether the helper has ended.
const POLL: Duration = Duration::from_millis(1);

/// What was measured so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// In order.
    pub measurements: Vec<Measurement>,
    /// The TPM failed, and was told nothing more. A register is not what it has to be then, and whoever asks learns of that.
    pub failed: bool,
}

/// Why something was not measured.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot run the helper")]
    Helper(#[source] io::Error),
    #[error("the TPM does not answer within {} s", PATIENCE.as_secs())]
    Late,
    #[error("the helper ended with {0}")]
    Failed(ExitStatus),
}

/// A boot that is measured, as far as there is a TPM and it works.
#[derive(Debug, Default)]
pub struct Measuring {
    told: Told,
    device: Option<OwnedFd>,
}

impl Measuring {
    /// Goes on after what was told by a stage before this one.
    #[must_use]
    pub fn after(told: Told) -> Self {
        Self { told, device: None }
    }

    /// Opens the TPM, if there is one that has not failed.
    pub fn open(&mut self) {
        match tpm::open() {
            _ if self.told.failed => {}
            Ok(device) => self.device = device,
            Err(err) => self.give_up(&kmsg::chain(&err)),
        }
    }

    /// Measures text into a register. A TPM that fails keeps no machine from booting.
    pub fn measure(&mut self, pcr: u32, text: String) {
        match self.device.as_ref().map(|device| have_measured(device, pcr, &text)) {
            None => {}
            Some(Ok(())) => self.told.measurements.push(Measurement { pcr, text }),
            Some(Err(err)) => self.give_up(&format!("`{text}` for PCR {pcr}: {}", kmsg::chain(&err))),
        }
    }

    /// What was told.
    #[must_use]
    pub fn told(&self) -> &Told {
        &self.told
    }

    /// The TPM's device, if there is one that has not failed.
    #[must_use]
    pub fn device(&self) -> Option<&OwnedFd> {
        self.device.as_ref()
    }

    fn give_up(&mut self, why: &str) {
        kmsg::error(&format!("nothing more is measured in this boot: {why}"));
        self.told.failed = true;
        // The helper that hangs has it open still: closing it does not wait for the chip.
        self.device = None;
    }
}

fn have_measured(device: &OwnedFd, pcr: u32, text: &str) -> Result<(), Error> {
    let mut command = Command::new(INIT);
    command.args([ROLE, &pcr.to_string(), text]).env_clear().current_dir("/");
    command.stdin(device.try_clone().map_err(Error::Helper)?).stdout(Stdio::null()).stderr(Stdio::null());
    let mut helper = command.spawn().map_err(Error::Helper)?;
    let started = Instant::now();
    loop {
        match helper.try_wait().map_err(Error::Helper)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(Error::Failed(status)),
            // PID 1 reaps it with all other orphans.
            None if started.elapsed() > PATIENCE => return Err(Error::Late),
            None => thread::sleep(POLL),
        }
    }
}

/// The helper: measures what it was given, with the TPM on its standard input.
pub fn run() -> ! {
    let arguments: Vec<_> = std::env::args().skip(2).collect();
    let measured = match arguments.as_slice() {
        [pcr, text] => {
            pcr.parse().ok().map(|pcr| Tpm::of_helper().and_then(|mut tpm| tpm.measure(pcr, text)))
        }
        _ => None,
    };
    match measured {
        Some(Ok(())) => std::process::exit(0),
        Some(Err(err)) => kmsg::error(&kmsg::chain(&err)),
        None => {}
    }
    std::process::exit(1)
}
