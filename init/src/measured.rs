//! Measured boot: what is told to the TPM while the machine boots. It keeps nobody from anything; it is there for those who ask later
//! (`eci-builder attest`), whom nothing that ran afterwards can deceive.
//!
//! PID 1 goes on where firmware and stub left off: phases into PCR 11, the root and the administrator's settings into PCR 15.

use eci_contract::attest::Measurement;

use crate::kmsg;
use crate::tpm::{Error, Tpm};

/// Measures text into a register, and keeps it in the log of measurements. A TPM that fails keeps no machine from booting: the register
/// is then not what it has to be, and whoever asks learns of that.
pub fn measure(log: &mut Vec<Measurement>, pcr: u32, text: String) {
    match try_to(pcr, &text) {
        Ok(false) => {}
        Ok(true) => log.push(Measurement { pcr, text }),
        Err(err) => kmsg::error(&format!("`{text}` is not measured into PCR {pcr}: {}", kmsg::chain(&err))),
    }
}

/// Whether there was a TPM to measure into.
fn try_to(pcr: u32, text: &str) -> Result<bool, Error> {
    let Some(mut tpm) = Tpm::open()? else { return Ok(false) };
    tpm.measure(pcr, text)?;
    Ok(true)
}
