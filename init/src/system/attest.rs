//! Evidence of this boot, for whoever asks over the link. A TPM takes its time, up to seconds for a key, so that a helper asks it and
//! PID 1 goes on; the helper has the TPM as its standard input and the asker's connection as its standard output.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eci_contract::attest::{Evidence, MAX_NONCE_BYTES, Measurement, NO_TPM, VERSION};
use eci_contract::link::Reply;
use eci_tpm::event_log;
use rustix::io::ioctl_fionbio;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use super::machine::Machine;
use crate::kmsg;
use crate::tpm::{self, Tpm};

/// The argument that makes `init` this helper; never PID 1.
pub const ROLE: &str = "attest";
/// This program.
const INIT: &str = "/usr/sbin/init";
/// The firmware's event log. A machine whose firmware keeps none does not have it.
const FIRMWARE_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";

/// How long the asker may take to read.
const SEND_DEADLINE: Duration = Duration::from_secs(10);
const NO_CAPABILITIES: CapabilitySets = CapabilitySets {
    effective: CapabilitySet::empty(),
    permitted: CapabilitySet::empty(),
    inheritable: CapabilitySet::empty(),
};

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The asker gave no nonce, or a longer one than a TPM signs.
    #[error("a nonce is 1 to {MAX_NONCE_BYTES} bytes in hexadecimal")]
    Nonce,
    /// Another asker is being served.
    #[error("the TPM is being asked already; try again in a second")]
    Busy,
    /// The helper cannot be started.
    #[error("cannot start the helper that asks the TPM")]
    Start(#[source] io::Error),
    /// Registers still change.
    #[error("the machine is still booting; try again when its engine is ready")]
    Booting,
    /// There is nothing to ask.
    #[error("{NO_TPM}")]
    NoTpm,
    /// It was given up.
    #[error("the TPM failed while the machine booted; `eci-builder logs` says how")]
    Failed,
    /// What the helper was started with is not what PID 1 starts it with.
    #[error("the helper was not started by PID 1")]
    Arguments,
    /// The TPM failed.
    #[error(transparent)]
    Tpm(#[from] tpm::Error),
    /// The log is there and cannot be read.
    #[error("cannot read `{FIRMWARE_LOG}`")]
    Log(#[source] io::Error),
    /// The log is larger than any reader would take.
    #[error("the firmware's event log is larger than {} bytes", event_log::MAX_BYTES)]
    LargeLog,
}

/// Has a helper answer on this connection.
///
/// # Errors
/// When it is not to be asked, or cannot be started; then nothing was answered.
pub fn start(asker: &UnixStream, nonce: &str, machine: &mut Machine) -> Result<(), Error> {
    from_hex(nonce).ok_or(Error::Nonce)?;
    let told = machine.measuring.told();
    let device = match machine.measuring.device() {
        _ if machine.attesting.is_some() => return Err(Error::Busy),
        _ if machine.boot_ms.engine == 0 && machine.refusal.is_none() => return Err(Error::Booting),
        None if told.failed => return Err(Error::Failed),
        None => return Err(Error::NoTpm),
        Some(device) => device.try_clone().map_err(Error::Start)?,
    };
    let measured = serde_json::to_string(&told.measurements).map_err(|err| Error::Start(err.into()))?;
    let connection = asker.as_fd().try_clone_to_owned().map_err(Error::Start)?;
    let mut command = Command::new(INIT);
    command.args([ROLE, nonce, &measured]).env_clear().current_dir("/");
    command.stdin(device).stdout(connection).stderr(Stdio::null());
    // PID 1 reaps it with all others.
    machine.attesting = Some(command.spawn().map_err(Error::Start)?.id());
    Ok(())
}

/// The helper: answers on its standard output.
pub fn run() -> ! {
    let arguments: Vec<_> = std::env::args().skip(2).collect();
    let reply = match evidence(&arguments) {
        Ok(evidence) => Reply::Evidence(Box::new(evidence)),
        Err(err) => Reply::Error(kmsg::chain(&err)),
    };
    let mut line = serde_json::to_vec(&reply).expect("invariant: a reply has only string keys");
    line.push(b'\n');
    let mut stdout = io::stdout();
    // PID 1 waits for no connection, and this one is shared with it; nor does the helper for an asker who does not read.
    let waits = ioctl_fionbio(&stdout, false)
        .and_then(|()| set_socket_timeout(&stdout, Timeout::Send, Some(SEND_DEADLINE)));
    // Nobody is left to tell when the asker has gone.
    let answered = waits.map_err(io::Error::from).and_then(|()| stdout.write_all(&line));
    std::process::exit(i32::from(answered.is_err()))
}

fn evidence(arguments: &[String]) -> Result<Evidence, Error> {
    let [nonce, measured] = arguments else { return Err(Error::Arguments) };
    let question = from_hex(nonce).ok_or(Error::Nonce)?;
    let measured: Vec<Measurement> = serde_json::from_str(measured).map_err(|_| Error::Arguments)?;
    // What it reads is root's, which it stays.
    set_capabilities(None, NO_CAPABILITIES).map_err(|err| Error::Start(err.into()))?;
    let quote = Tpm::of_helper()?.quote(&question)?;
    Ok(Evidence {
        version: VERSION,
        nonce: nonce.clone(),
        key: STANDARD.encode(quote.key),
        attested: STANDARD.encode(quote.attested),
        signature: STANDARD.encode(quote.signature),
        pcrs: quote.pcrs.iter().map(ToString::to_string).collect(),
        firmware_log: STANDARD.encode(firmware_log()?),
        measured,
    })
}

fn firmware_log() -> Result<Vec<u8>, Error> {
    match fs::read(FIRMWARE_LOG) {
        Ok(log) if log.len() > event_log::MAX_BYTES => Err(Error::LargeLog),
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(Error::Log(err)),
        log => Ok(log.unwrap_or_default()),
    }
}

/// The bytes of a nonce.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<_>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0 && !digits.is_empty())?;
    let bytes = digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte * 16 + digit));
    let bytes: Option<Vec<_>> = bytes.map(|byte| u8::try_from(byte).ok()).collect();
    bytes.filter(|bytes| bytes.len() <= MAX_NONCE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_bytes_that_a_tpm_takes() {
        assert_eq!(from_hex("00ff10"), Some(vec![0, 255, 16]));
        assert_eq!(from_hex(&"ab".repeat(MAX_NONCE_BYTES)).map(|bytes| bytes.len()), Some(MAX_NONCE_BYTES));
        for text in ["", "0", "0g", "+1", "é", &"ab".repeat(MAX_NONCE_BYTES + 1)] {
            assert_eq!(from_hex(text), None, "{text}");
        }
    }
}
