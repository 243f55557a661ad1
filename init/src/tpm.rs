//! The machine's TPM 2.0, where it has one, behind the kernel's resource manager: what was loaded is gone when the device is closed.
//!
//! No answer is waited for without end: a chip that hangs would hang PID 1.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use eci_tpm::command::{self, MAX_ANSWER_BYTES, PCRS_AT_ONCE};
use eci_tpm::pcr::{Pcr, QUOTED};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, major, minor};

/// The kernel's resource manager, and the chip itself. There is only the latter for a TPM 1.2.
const DEVICES: [&str; 2] = ["/dev/tpmrm0", "/dev/tpm0"];
/// How often a quote is asked for while registers change under it.
const ATTEMPTS: u32 = 4;

/// Why the TPM was of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device failed.
    #[error("cannot use the TPM's device")]
    Device(#[source] io::Error),
    /// It does not answer.
    #[error("the TPM does not answer within {} s", .0.as_secs())]
    Late(Duration),
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

/// An open TPM, of which no answer is waited for longer than this.
#[derive(Debug)]
pub struct Tpm {
    device: File,
    patience: Duration,
}

impl Tpm {
    /// Opens it; `None` where the machine has none.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn open(patience: Duration) -> Result<Option<Self>, Error> {
        let flags = i32::from_ne_bytes(OFlags::NONBLOCK.bits().to_ne_bytes());
        match OpenOptions::new().read(true).write(true).custom_flags(flags).open(DEVICES[0]) {
            Ok(device) => Ok(Some(Self { device, patience })),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(Error::Device(err)),
        }
    }

    /// One that somebody else has opened.
    #[must_use]
    pub fn passed(device: OwnedFd, patience: Duration) -> Self {
        Self { device: device.into(), patience }
    }

    /// For [`Tpm::passed`] in another process. Two that ask at once get in each other's way.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn pass(&self) -> Result<OwnedFd, Error> {
        self.device.as_fd().try_clone_to_owned().map_err(Error::Device)
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
        self.device.write_all(command).map_err(Error::Device)?;
        let until = Instant::now() + self.patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
            match poll(&mut [PollFd::new(&self.device, PollFlags::IN)], Some(&left)) {
                Ok(0) => {
                    // Closed, the device would wait for the chip. So it stays open, in nobody's hands.
                    std::mem::forget(self.device.try_clone());
                    return Err(Error::Late(self.patience));
                }
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(err) => return Err(Error::Device(err.into())),
            }
        }
        let mut answer = vec![0; MAX_ANSWER_BYTES];
        let length = self.device.read(&mut answer).map_err(Error::Device)?;
        answer.truncate(length);
        Ok(answer)
    }
}

/// Numbers of the devices that there are.
///
/// # Errors
/// When one is there and cannot be looked at.
pub fn numbers() -> io::Result<Vec<(u32, u32)>> {
    let number = |path| match std::fs::metadata(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => None,
        found => Some(found.map(|found| (major(found.rdev()), minor(found.rdev())))),
    };
    DEVICES.into_iter().filter_map(number).collect()
}

fn failed(what: &'static str) -> impl FnOnce(command::Error) -> Error {
    move |source| Error::Command { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::thread;

    /// A TPM that gives these answers, and then none any more.
    fn answering(answers: Vec<Vec<u8>>) -> Tpm {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        thread::spawn(move || {
            let mut asked = [0; 1024];
            for answer in answers {
                assert!(theirs.read(&mut asked).unwrap() > 0);
                theirs.write_all(&answer).unwrap();
            }
            // Until nobody asks any more.
            while theirs.read(&mut asked).is_ok_and(|length| length > 0) {}
        });
        Tpm::passed(ours.into(), Duration::from_millis(100))
    }

    #[test]
    fn a_chip_that_hangs_is_given_up() {
        let done = vec![0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0];
        let mut tpm = answering(vec![done]);
        tpm.measure(11, "a").unwrap();
        let error = tpm.measure(11, "b").unwrap_err();
        assert_eq!(error.to_string(), "the TPM does not answer within 0 s");
    }

    #[test]
    fn errors_say_what_the_tpm_was_to_do() {
        let refusal = vec![0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x49];
        let error = answering(vec![refusal]).measure(11, "a").unwrap_err();
        assert_eq!(eci_contract::errors::chain(&error), "cannot measure: the TPM answers with error 0x149");
    }
}
