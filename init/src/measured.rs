//! Measured boot: what is told to the TPM while the machine boots. It keeps nobody from anything; it is there for those who ask later
//! (`eci-builder attest`), whom nothing that ran afterwards can deceive.
//!
//! PID 1 goes on where firmware, stub and kernel left off: phases into PCR 11, the root and the administrator's settings into PCR 15. From
//! before services start, nobody else can open the device.

use std::time::Duration;

use eci_contract::attest::Measurement;
use serde::{Deserialize, Serialize};

use crate::kmsg;
use crate::tpm::Tpm;

/// How long a boot waits for one measurement. Chips take some ten milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was measured so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// In order.
    pub measurements: Vec<Measurement>,
    /// The TPM failed, and was told nothing more. A register is not what it has to be then, and whoever asks learns of that.
    pub failed: bool,
}

/// A boot that is measured, as far as there is a TPM and it works.
#[derive(Debug, Default)]
pub struct Measuring {
    told: Told,
    tpm: Option<Tpm>,
}

impl Measuring {
    /// Goes on after what was told by a stage before this one.
    #[must_use]
    pub fn after(told: Told) -> Self {
        Self { told, tpm: None }
    }

    /// Opens the TPM, if there is one that has not failed.
    pub fn open(&mut self) {
        match Tpm::open(PATIENCE) {
            _ if self.told.failed => {}
            Ok(tpm) => self.tpm = tpm,
            Err(err) => self.give_up(&kmsg::chain(&err)),
        }
    }

    /// Measures text into a register. A TPM that fails keeps no machine from booting.
    pub fn measure(&mut self, pcr: u32, text: String) {
        match self.tpm.as_mut().map(|tpm| tpm.measure(pcr, &text)) {
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

    /// The TPM, if there is one that has not failed.
    #[must_use]
    pub fn tpm(&self) -> Option<&Tpm> {
        self.tpm.as_ref()
    }

    fn give_up(&mut self, why: &str) {
        kmsg::error(&format!("nothing more is measured in this boot: {why}"));
        self.told.failed = true;
        self.tpm = None;
    }
}
