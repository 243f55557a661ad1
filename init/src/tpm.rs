//! The machine's TPM 2.0, where it has one, behind the kernel's resource manager.
//!
//! The kernel waits for a chip that hangs, up to two minutes for a command and more for a key, and neither poll(2) nor close(2) ends that.
//! So PID 1 opens the device, and leaves it to helpers to ask ([`Tpm`]).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use eci_tpm::command::{self, HELD, MAX_ANSWER_BYTES, PCRS_AT_ONCE};
use eci_tpm::pcr::{Pcr, QUOTED};
use rustix::fs::{major, minor};

/// The kernel's resource manager. A TPM 1.2 has none.
const MANAGER: &str = "/dev/tpmrm0";
/// The chip itself.
const CHIP: &str = "/dev/tpm0";
/// How often a quote is asked for while registers change under it.
const ATTEMPTS: u32 = 4;

/// Why the TPM was of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device failed.
    #[error("cannot use `{MANAGER}`")]
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

/// Opens the device, for helpers; `None` where the machine has none.
///
/// # Errors
/// [`Error::Device`].
pub fn open() -> Result<Option<OwnedFd>, Error> {
    match OpenOptions::new().read(true).write(true).open(MANAGER) {
        Ok(device) => Ok(Some(device.into())),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(Error::Device(err)),
    }
}

/// A TPM that is asked. One at a time: openers and helpers share what the kernel keeps for it.
#[derive(Debug)]
pub struct Tpm(File);

impl Tpm {
    /// On a helper's standard input.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn of_helper() -> Result<Self, Error> {
        let device = io::stdin().as_fd().try_clone_to_owned().map_err(Error::Device)?;
        Ok(Self::new(device.into()))
    }

    /// Without what a helper that was killed half way has left: an answer, and keys.
    fn new(mut device: File) -> Self {
        drop(device.read(&mut [0; MAX_ANSWER_BYTES]));
        let mut tpm = Self(device);
        for handle in HELD {
            // The kernel knows none of them otherwise, and does not trouble the chip.
            drop(tpm.ask(&command::flush(handle)));
        }
        tpm
    }

    /// Measures text into a register.
    ///
    /// # Errors
    /// [`Error`].
    pub fn measure(&mut self, pcr: u32, text: &str) -> Result<(), Error> {
        let answer = self.ask(&command::measure(pcr, text.as_bytes()))?;
        command::done(&answer).map_err(failed("measure"))
    }

    /// Has registers 0 to 15 signed, together with the nonce.
    ///
    /// # Errors
    /// [`Error`].
    pub fn quote(&mut self, nonce: &[u8]) -> Result<Quote, Error> {
        let made = self.ask(&command::create_attestation_key())?;
        let (handle, key) = command::attestation_key(&made).map_err(failed("make the attestation key"))?;
        let quote = self.quote_by(handle, key, nonce);
        // The device stays open, and the chip has room for three.
        let flushed = self.ask(&command::flush(handle)).map(drop);
        quote.and_then(|quote| flushed.map(|()| quote))
    }

    fn quote_by(&mut self, handle: u32, key: Vec<u8>, nonce: &[u8]) -> Result<Quote, Error> {
        for _ in 0..ATTEMPTS {
            let Some((before, pcrs)) = self.pcrs()? else { continue };
            let answer = self.ask(&command::quote(handle, nonce))?;
            let (attested, signature) = command::quoted(&answer).map_err(failed("quote"))?;
            if self.pcrs()?.is_some_and(|(after, _)| after == before) {
                return Ok(Quote { key, attested, signature, pcrs });
            }
        }
        Err(Error::Restless)
    }

    /// Registers 0 to 15, and how many changes there have been; `None` when there was one in between.
    fn pcrs(&mut self) -> Result<Option<(u32, Vec<Pcr>)>, Error> {
        let (mut changes, mut values) = (None, Vec::new());
        for first in (0..QUOTED).step_by(PCRS_AT_ONCE as usize) {
            let answer = self.ask(&command::read_pcrs(first))?;
            let (now, more) = command::pcrs(&answer, first).map_err(failed("read registers"))?;
            if *changes.get_or_insert(now) != now {
                return Ok(None);
            }
            values.extend(more);
        }
        Ok(changes.map(|changes| (changes, values)))
    }

    fn ask(&mut self, command: &[u8]) -> Result<Vec<u8>, Error> {
        self.0.write_all(command).map_err(Error::Device)?;
        let mut answer = vec![0; MAX_ANSWER_BYTES];
        let length = self.0.read(&mut answer).map_err(Error::Device)?;
        answer.truncate(length);
        Ok(answer)
    }
}

/// Numbers of the devices that there are or can be: that of the chip, and all of the manager's kind, which further chips have as well.
///
/// # Errors
/// When one is there and cannot be looked at.
pub fn numbers() -> io::Result<Vec<(u32, Option<u32>)>> {
    let number = |path| match std::fs::metadata(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(|found| Some((major(found.rdev()), minor(found.rdev())))),
    };
    let chip = number(CHIP)?.map(|(major, minor)| (major, Some(minor)));
    Ok(chip.into_iter().chain(number(MANAGER)?.map(|(major, _)| (major, None))).collect())
}

fn failed(what: &'static str) -> impl FnOnce(command::Error) -> Error {
    move |source| Error::Command { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::thread;

    /// A TPM that answers so, once it was asked whether something is left.
    fn answering(answer: Vec<u8>) -> Tpm {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            let mut asked = [0; 1024];
            theirs.write_all(b"left by another").unwrap();
            for _ in HELD {
                assert!(theirs.read(&mut asked).unwrap() > 0);
                theirs.write_all(b"no such handle").unwrap();
            }
            assert!(theirs.read(&mut asked).unwrap() > 0);
            theirs.write_all(&answer).unwrap();
        });
        Tpm::new(OwnedFd::from(ours).into())
    }

    #[test]
    fn what_another_left_behind_is_no_answer() {
        answering(vec![0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0]).measure(11, "a").unwrap();
    }

    #[test]
    fn errors_say_what_the_tpm_was_to_do() {
        let refusal = vec![0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x49];
        let error = answering(refusal).measure(11, "a").unwrap_err();
        assert_eq!(eci_contract::errors::chain(&error), "cannot measure: the TPM answers with error 0x149");
    }
}
