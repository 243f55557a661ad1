//! The machine's TPM 2.0, where it has one, behind the kernel's resource manager: what is loaded is gone when the device is closed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

use eci_tpm::command::{self, MAX_ANSWER_BYTES, PCRS_AT_ONCE};
use eci_tpm::pcr::{Pcr, QUOTED};

/// The kernel's resource manager. There is none for a TPM 1.2.
const DEVICE: &str = "/dev/tpmrm0";
/// How often a quote is asked for while registers change under it: a boot measures a few times, within seconds.
const ATTEMPTS: u32 = 4;

/// Why the TPM was of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device failed.
    #[error("cannot use `{DEVICE}`")]
    Device(#[source] io::Error),
    /// It answered, and not with what was asked for.
    #[error("cannot {what}")]
    Command {
        /// What it was to do.
        what: &'static str,
        /// What it answered.
        source: command::Error,
    },
    /// Somebody measures all the time.
    #[error("the registers do not come to rest")]
    Restless,
}

/// A quote with the values that it is about.
#[derive(Clone, Debug)]
pub struct Quote {
    /// `TPMT_PUBLIC` of the key.
    pub key: Vec<u8>,
    /// `TPMS_ATTEST`.
    pub attested: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
    /// Registers 0 to 15.
    pub pcrs: Vec<Pcr>,
}

/// An open TPM.
#[derive(Debug)]
pub struct Tpm(File);

impl Tpm {
    /// Opens it; `None` where the machine has none.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn open() -> Result<Option<Self>, Error> {
        match OpenOptions::new().read(true).write(true).open(DEVICE) {
            Ok(file) => Ok(Some(Self(file))),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(Error::Device(err)),
        }
    }

    /// Measures text into a register.
    ///
    /// # Errors
    /// [`Error`].
    pub fn measure(&mut self, pcr: u32, text: &str) -> Result<(), Error> {
        let answer = self.ask(&command::measure(pcr, text.as_bytes()))?;
        command::done(&answer).map_err(|source| Error::Command { what: "measure", source })
    }

    /// Has registers 0 to 15 signed, together with the nonce.
    ///
    /// # Errors
    /// [`Error`].
    pub fn quote(&mut self, nonce: &[u8]) -> Result<Quote, Error> {
        let failed = |what| move |source| Error::Command { what, source };
        let made = self.ask(&command::create_attestation_key())?;
        let (handle, key) = command::attestation_key(&made).map_err(failed("make the attestation key"))?;
        for _ in 0..ATTEMPTS {
            let (before, pcrs) = self.pcrs()?;
            let answer = self.ask(&command::quote(handle, nonce))?;
            let (attested, signature) = command::quoted(&answer).map_err(failed("quote"))?;
            if self.pcrs()?.0 == before {
                return Ok(Quote { key, attested, signature, pcrs });
            }
        }
        Err(Error::Restless)
    }

    /// Registers 0 to 15, and how many changes there have been.
    fn pcrs(&mut self) -> Result<(u32, Vec<Pcr>), Error> {
        let (mut changes, mut values) = (0, Vec::new());
        for first in (0..QUOTED).step_by(PCRS_AT_ONCE as usize) {
            let answer = self.ask(&command::read_pcrs(first))?;
            let (now, more) = command::pcrs(&answer, first)
                .map_err(|source| Error::Command { what: "read registers", source })?;
            changes = now;
            values.extend(more);
        }
        Ok((changes, values))
    }

    fn ask(&mut self, command: &[u8]) -> Result<Vec<u8>, Error> {
        self.0.write_all(command).map_err(Error::Device)?;
        let mut answer = vec![0; MAX_ANSWER_BYTES];
        let length = self.0.read(&mut answer).map_err(Error::Device)?;
        answer.truncate(length);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_the_tpm_was_to_do() {
        let source = command::Error::Refused { code: 0x149 };
        let error = Error::Command { what: "quote", source };
        assert_eq!(eci_contract::errors::chain(&error), "cannot quote: the TPM answers with error 0x149");
    }
}
