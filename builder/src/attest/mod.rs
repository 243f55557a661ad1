//! Holds what a machine's TPM says of a boot against what a signed manifest foretells.
//!
//! Invariant: nothing of the evidence is believed but what the quote signs, and nothing of the quote before its signature and nonce
//! hold. The logs are what a machine claims; they count where they give the values that were signed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eci_contract::attest::{self, Evidence, PHASES, READY, VERSION};
use eci_contract::errors::chain;
use eci_contract::manifest::{Manifest, Measured};
use eci_policy::settings::DEFAULT;
use eci_tpm::event_log::{self, Log, PROGRAM};
use eci_tpm::pcr::{EXTENSIONS, KERNEL_ADDED, KERNEL_IMAGE, PROGRAMS, Pcr, QUOTED, SYSTEM, sha256};
use eci_tpm::quote::Quote;

use crate::image::digest::{Sha256, from_hex, to_hex};
use crate::image::verify::Report;

#[cfg(test)]
mod tests;

/// Registers by which firmware is known again: its code, that of its devices, and the keys that it trusts. Others change with the
/// order of boot and the partition table.
const OF_FIRMWARE: [u32; 4] = [0, 2, 3, 7];
/// Most bytes that an event about the firmware itself has; a program is larger.
const SMALL_EVENT_BYTES: usize = 256;

/// Why evidence cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is of another version.
    #[error("the evidence has version {found}; this eci-builder reads version {VERSION}")]
    Version {
        /// What it says.
        found: u32,
    },
    /// A part is not what it should be.
    #[error("the evidence's {part} is not {wanted}")]
    Malformed {
        /// Which part.
        part: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// The firmware's log is not one.
    #[error("the evidence has no log of its firmware that can be read")]
    Log(#[from] event_log::Error),
}

/// What the evidence should be of.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Manifest of the image; its signature holds.
    pub manifest: &'a Manifest,
    /// The question that was asked.
    pub nonce: &'a [u8],
    /// Digest of the administrator's settings that should be in force; any where there is none.
    pub settings: Option<Sha256>,
    /// Evidence of the same machine from a day when it was trusted; where there is none, key and firmware are anybody's.
    pub reference: Option<&'a Known>,
}

/// By what a machine is known again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    key: Sha256,
    firmware: [Pcr; OF_FIRMWARE.len()],
}

impl Known {
    /// What evidence says of key and firmware, whatever it is of.
    ///
    /// # Errors
    /// [`Error`].
    pub fn of(evidence: &Evidence) -> Result<Self, Error> {
        Ok(Parts::of(evidence)?.known())
    }
}

/// Evidence, taken out of its text.
struct Parts {
    key: Vec<u8>,
    attested: Vec<u8>,
    signature: Vec<u8>,
    pcrs: Vec<Pcr>,
    firmware_log: Vec<u8>,
}

impl Parts {
    fn of(evidence: &Evidence) -> Result<Self, Error> {
        if evidence.version != VERSION {
            return Err(Error::Version { found: evidence.version });
        }
        let bytes =
            |part, text: &str| STANDARD.decode(text).map_err(|_| Error::Malformed { part, wanted: "base64" });
        let pcr = |text: &String| text.parse::<Sha256>().ok().map(|digest| Pcr(digest.0));
        let pcrs: Option<Vec<_>> = evidence.pcrs.iter().map(pcr).collect();
        let pcrs = pcrs.filter(|pcrs| u32::try_from(pcrs.len()) == Ok(QUOTED));
        Ok(Self {
            key: bytes("key", &evidence.key)?,
            attested: bytes("quote", &evidence.attested)?,
            signature: bytes("signature", &evidence.signature)?,
            pcrs: pcrs.ok_or(Error::Malformed { part: "pcrs", wanted: "16 SHA-256 digests" })?,
            firmware_log: bytes("firmwareLog", &evidence.firmware_log)?,
        })
    }

    fn pcr(&self, number: u32) -> Pcr {
        usize::try_from(number).ok().and_then(|index| self.pcrs.get(index)).copied().unwrap_or_default()
    }

    fn known(&self) -> Known {
        Known { key: Sha256(sha256(&self.key)), firmware: OF_FIRMWARE.map(|number| self.pcr(number)) }
    }
}

/// Adds a check for each thing that the evidence shows.
///
/// # Errors
/// [`Error`] when there is nothing to look at. Evidence of another boot than should be is a report that does not hold.
pub fn judge(evidence: &Evidence, expected: &Expected<'_>, report: &mut Report) -> Result<(), Error> {
    let parts = Parts::of(evidence)?;
    let log = Log::read(&parts.firmware_log)?;
    let quote = Quote { key: &parts.key, attested: &parts.attested, signature: &parts.signature };
    let signed = quote.verify(expected.nonce, &parts.pcrs).map_err(|error| chain(&error));
    if !report.add("TPM", "quote", signed.map(|()| format!("answers {}", to_hex(expected.nonce)))) {
        report.skip("boot", "all", "it is in the quote, and that is not believed");
        return Ok(());
    }
    who(&parts.known(), expected.reference, &log, report);
    report.add("firmware", "event log", replayed(&log, &parts));
    match &expected.manifest.uki.measured {
        Some(measured) => {
            report.add("firmware", "programs", programs(&log, expected.manifest, measured));
            report.add("eci.efi", "parts", parts_and_phases(evidence, &parts, measured));
        }
        None => {
            let before = "the image is from before that was foretold; build it again";
            report.add("eci.efi", "parts", Err(before.to_owned()));
        }
    }
    report.add("eci.efi", "nothing beside it", nothing_added(&parts));
    system(evidence, &parts, expected, report);
    Ok(())
}

/// Whether it is the machine that it was.
fn who(found: &Known, reference: Option<&Known>, log: &Log<'_>, report: &mut Report) {
    let secure_boot = match log.secure_boot() {
        Some(true) => "Secure Boot on",
        Some(false) => "Secure Boot off",
        None => "it says nothing of Secure Boot",
    };
    let Some(known) = reference else {
        report.skip("TPM", "key", &format!("sha256 {}; --reference would say whose it is", found.key));
        report.skip("firmware", "its own code", &format!("{secure_boot}; --reference would say whose it is"));
        return;
    };
    let key = if found.key == known.key {
        Ok(format!("sha256 {}, as in the reference", found.key))
    } else {
        Err(format!("sha256 {}: another TPM's than the reference's, {}", found.key, known.key))
    };
    report.add("TPM", "key", key);
    let pairs = OF_FIRMWARE.into_iter().zip(found.firmware.iter().zip(&known.firmware));
    let other: Vec<_> =
        pairs.filter(|(_, (now, then))| now != then).map(|(pcr, _)| pcr.to_string()).collect();
    let firmware = if other.is_empty() {
        Ok(format!("{secure_boot}, as in the reference"))
    } else {
        Err(format!("{secure_boot}; other than in the reference: PCR {}", other.join(", ")))
    };
    report.add("firmware", "its own code", firmware);
}

/// Whether the log gives the values that were signed, of all registers but those that PID 1 goes on with.
fn replayed(log: &Log<'_>, parts: &Parts) -> Result<String, String> {
    for (number, value) in (0..).zip(log.replay()) {
        let quoted = parts.pcr(number);
        if value != quoted && ![KERNEL_IMAGE, SYSTEM].contains(&number) {
            return Err(format!("PCR {number} is {quoted}, and the log gives {value}"));
        }
    }
    Ok(format!("{} events give the values that were signed", log.events.len()))
}

/// Whether the firmware started the image, the kernel within, and nothing else: another program could have pretended all that follows.
fn programs(log: &Log<'_>, manifest: &Manifest, measured: &Measured) -> Result<String, String> {
    let (image, kernel) = (&manifest.uki.authenticode_sha256, &measured.kernel_authenticode_sha256);
    let mut started = Vec::new();
    for event in log.events.iter().filter(|event| event.pcr == PROGRAMS) {
        let digest = to_hex(&event.digest);
        // What the firmware says of itself is measured as it is, and there is no room for a program.
        let words = event.data.len() <= SMALL_EVENT_BYTES && sha256(event.data) == event.digest;
        match event.kind {
            PROGRAM if digest == *image => started.push("eci.efi"),
            PROGRAM if digest == *kernel => started.push("the kernel in it"),
            PROGRAM => return Err(format!("it started another program, of Authenticode sha256 {digest}")),
            _ if words => {}
            kind => return Err(format!("it measured something of kind {kind:#x} that is not known")),
        }
    }
    if started.contains(&"eci.efi") {
        Ok(format!("{}, and nothing else", started.join(", ")))
    } else {
        Err("it did not start the image's eci.efi".to_owned())
    }
}

/// Whether the stub measured the parts of this image, and the boot went on to its end.
fn parts_and_phases(evidence: &Evidence, parts: &Parts, measured: &Measured) -> Result<String, String> {
    let phases: Vec<_> = claimed(evidence, KERNEL_IMAGE);
    let start: Sha256 = measured.pcr11.parse().expect("a parsed manifest has a digest there");
    let (quoted, image) = (parts.pcr(KERNEL_IMAGE), start);
    let value = phases.iter().fold(Pcr(start.0), |pcr, phase| pcr.measure(phase.as_bytes()));
    let without = phases.iter().fold(Pcr::default(), |pcr, phase| pcr.measure(phase.as_bytes()));
    if value != quoted {
        return Err(match quoted == without {
            true => "no firmware measured a kernel: the machine was given one directly".to_owned(),
            false => {
                format!("PCR 11 is {quoted}; from {image} and {} it would be {value}", phases.join(", "))
            }
        });
    }
    if phases == PHASES {
        return Ok(format!("kernel, initrd and command line; then {}", phases.join(", ")));
    }
    let last = phases.last().copied().unwrap_or("nothing");
    Err(format!("the boot got as far as {last}, and not to {READY} by {}", PHASES.join(", ")))
}

/// Whether the stub gave the kernel what is in the image and nothing else.
fn nothing_added(parts: &Parts) -> Result<String, String> {
    let empty = Pcr::default();
    match (parts.pcr(KERNEL_ADDED) == empty, parts.pcr(EXTENSIONS) == empty) {
        (true, true) => Ok("no other command line, no credentials, no extensions".to_owned()),
        (false, _) => Err("the stub was given another command line or credentials (PCR 12)".to_owned()),
        (true, false) => Err("the stub was given extensions for the initramfs (PCR 13)".to_owned()),
    }
}

/// Whether the root that runs is the image's, and the settings are those that should be.
fn system(evidence: &Evidence, parts: &Parts, expected: &Expected<'_>, report: &mut Report) {
    let lines = claimed(evidence, SYSTEM);
    let value = lines.iter().fold(Pcr::default(), |pcr, line| pcr.measure(line.as_bytes()));
    let wanted = attest::root(&expected.manifest.root.root_hash);
    let quoted = parts.pcr(SYSTEM);
    let root = match lines.split_first() {
        _ if value != quoted => Err(format!("PCR 15 is {quoted}, and what PID 1 tells of it gives {value}")),
        Some((first, _)) if *first == wanted => {
            Ok(format!("the image's, root hash {}", expected.manifest.root.root_hash))
        }
        Some((first, _)) => Err(format!("`{first}` is measured, and the image has `{wanted}`")),
        None => Err("nothing is measured: PID 1 is not the image's, or its TPM failed".to_owned()),
    };
    if !report.add("root", "root hash", root) {
        report.skip("settings", "digest", "they are measured with the root, and that does not hold");
        return;
    }
    let [_, settings] = lines.as_slice() else {
        report.add("settings", "digest", Err("none are in force, or more than one".to_owned()));
        return;
    };
    let is = |digest: Sha256| *settings == attest::settings(&digest.to_string());
    match expected.settings {
        Some(digest) if is(digest) => drop(report.add("settings", "digest", Ok(format!("sha256 {digest}")))),
        Some(digest) => {
            let other = format!("`{settings}` is in force, and {digest} was wanted");
            report.add("settings", "digest", Err(other));
        }
        None if is(Sha256::of(&[DEFAULT.as_bytes()])) => {
            report.add("settings", "digest", Ok("the default: isolation on and locked".to_owned()));
        }
        None => {
            let whose = format!("{settings}; --settings would say whether it should be");
            report.skip("settings", "digest", &whose);
        }
    }
}

/// What PID 1 says that it measured into a register.
fn claimed(evidence: &Evidence, pcr: u32) -> Vec<&str> {
    let own = evidence.measured.iter().filter(|measured| measured.pcr == pcr);
    own.map(|measured| measured.text.as_str()).collect()
}

/// The bytes of a nonce.
///
/// # Errors
/// [`Error::Malformed`].
pub fn nonce(text: &str) -> Result<Vec<u8>, Error> {
    let bytes = from_hex(text).filter(|bytes| (1..=attest::MAX_NONCE_BYTES).contains(&bytes.len()));
    bytes.ok_or(Error::Malformed { part: "nonce", wanted: "1 to 64 bytes in hexadecimal" })
}
