//! Holds what a machine's TPM says of a boot against what a signed manifest foretells.
//!
//! Invariant: nothing of the evidence is believed but what the quote signs, and nothing of the quote before its signature and nonce
//! hold. The logs are what a machine claims; they count where they give the values that were signed, and no event by what a log calls
//! it, but by its digest.
//!
//! | PCR | judged by |
//! | --- | --- |
//! | 0, 3, 7 | the reference: the firmware's own code, its devices' settings, Secure Boot |
//! | 2 | the reference; without one there are no drivers but the firmware's own |
//! | 4 | `eci.efi`, then, but under Secure Boot, the kernel in it, and nothing else |
//! | 9 | the manifest: what arrived at the kernel |
//! | 11 | the manifest, and the phases of a whole boot |
//! | 15 | the manifest's root hash, the settings, and whether isolation is off |
//! | 8, 10, 12, 13, 14 | nothing: boot loaders, file measurements, additions of the stub, shim |
//! | 1, 5, 6 | nobody: order of boot and partition table, which choose what is measured elsewhere, and what vendors like |

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eci_contract::attest::{self, Evidence, PHASES, READY, VERSION};
use eci_contract::errors::chain;
use eci_contract::manifest::{Manifest, Measured};
use eci_policy::settings::DEFAULT;
use eci_tpm::event_log::{self, Log, PROGRAM, SEPARATOR};
use eci_tpm::pcr::{DRIVERS, KERNEL_IMAGE, KERNEL_INPUT, PROGRAMS, Pcr, QUOTED, SYSTEM, sha256};
use eci_tpm::quote::{self, Quote};

use crate::image::digest::{Sha256, from_hex, to_hex};
use crate::image::verify::Report;

#[cfg(test)]
mod tests;

/// Registers by which firmware is known again: its code, that of its devices, and the keys that it trusts. Others change with the
/// order of boot and the partition table.
const OF_FIRMWARE: [u32; 4] = [0, 2, 3, 7];
/// What the firmware measures into PCR 4 before it starts a program. That one has come back is not on the list: nobody knows what it did.
const BEFORE_PROGRAMS: [&[u8]; 2] = [b"Calling EFI Application from Boot Option", SEPARATOR];
/// What it measures when one has.
const CAME_BACK: &[u8] = b"Returning from EFI Application from Boot Option";
/// Registers that nothing is measured into, with who else would.
const EMPTY: [(u32, &str); 5] = [
    (8, "a boot loader"),
    (10, "a kernel that measures files"),
    (12, "another command line or credentials for the stub"),
    (13, "extensions for the initramfs"),
    (14, "shim"),
];
/// Fewest bytes of a nonce: answers to shorter ones could be collected in advance.
const LEAST_NONCE_BYTES: usize = 16;
/// Most texts of PID 1's, and bytes of each.
const MOST_TEXTS: usize = 32;
const MAX_TEXT_BYTES: usize = 128;

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
    /// What is to be held against is not itself to be believed.
    #[error("the reference is no evidence of anything")]
    Reference(#[source] quote::Error),
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
    /// A machine whose containers are not isolated will do.
    pub isolation_off: bool,
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
    /// What evidence says of key and firmware, whatever image it is of.
    ///
    /// # Errors
    /// [`Error`]; also when the key did not sign it.
    pub fn of(evidence: &Evidence) -> Result<Self, Error> {
        let parts = Parts::of(evidence)?;
        let nonce = nonce(&evidence.nonce)?;
        parts.quote().verify(&nonce, &parts.pcrs).map_err(Error::Reference)?;
        Ok(parts.known())
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
        let legal =
            |text: &str| text.len() <= MAX_TEXT_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic());
        if evidence.measured.len() > MOST_TEXTS || !evidence.measured.iter().all(|one| legal(&one.text)) {
            return Err(Error::Malformed { part: "measured", wanted: "a few plain words" });
        }
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

    fn quote(&self) -> Quote<'_> {
        Quote { key: &self.key, attested: &self.attested, signature: &self.signature }
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
    let signed = parts.quote().verify(expected.nonce, &parts.pcrs).map_err(|error| chain(&error));
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
            report.add("eci.efi", "what the kernel got", kernel_input(&parts, measured));
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
        report.add("firmware", "drivers", no_drivers(log));
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

/// Whether no driver came from anywhere but the firmware: it could do as it likes with all that follows.
fn no_drivers(log: &Log<'_>) -> Result<String, String> {
    let mut own = log.events.iter().filter(|event| event.pcr == DRIVERS);
    match own.find(|event| event.digest != sha256(SEPARATOR)) {
        None => Ok("none but its own".to_owned()),
        Some(event) => {
            let digest = to_hex(&event.digest);
            Err(format!("it started one of sha256 {digest}; --reference would say whether it always does"))
        }
    }
}

/// Whether the firmware started the image, that the kernel within, and nothing else was: another program, before or after, could have
/// pretended all that follows.
fn programs(log: &Log<'_>, manifest: &Manifest, measured: &Measured) -> Result<String, String> {
    let chain = [&manifest.uki.authenticode_sha256, &measured.kernel_authenticode_sha256];
    let mut started = 0;
    for event in log.events.iter().filter(|event| event.pcr == PROGRAMS) {
        let digest = to_hex(&event.digest);
        if chain.get(started).is_some_and(|next| **next == digest) {
            started += 1;
        } else if started > 0 || !BEFORE_PROGRAMS.iter().any(|words| sha256(words) == event.digest) {
            if event.digest == sha256(CAME_BACK) {
                return Err("an earlier boot option was tried first: put the image before it".to_owned());
            }
            let what = if event.kind == PROGRAM { "another program" } else { "something that is not known" };
            let when = ["before eci.efi", "after eci.efi", "after the kernel"].get(started).unwrap_or(&"");
            return Err(format!("{what} {when}, of sha256 {digest}"));
        }
    }
    match started {
        0 => Err("it did not start the image's eci.efi".to_owned()),
        // There the stub starts it without the firmware, which would want a signature of the kernel's own; that of eci.efi covers it.
        1 if log.secure_boot() == Some(true) => Ok("eci.efi, and nothing else".to_owned()),
        1 => Err("eci.efi did not start the kernel in it".to_owned()),
        _ => Ok("eci.efi, the kernel in it, and nothing else".to_owned()),
    }
}

/// Whether the kernel itself measured the image's command line and initramfs: whoever starts a kernel by another way gives it other ones.
fn kernel_input(parts: &Parts, measured: &Measured) -> Result<String, String> {
    let quoted = parts.pcr(KERNEL_INPUT).to_string();
    if quoted == measured.pcr9 {
        Ok("the image's command line and initramfs".to_owned())
    } else {
        Err(format!("another command line or initramfs: PCR 9 is {quoted}, and should be {}", measured.pcr9))
    }
}

/// Whether the stub measured the parts of this image, and the boot went on to its end.
fn parts_and_phases(evidence: &Evidence, parts: &Parts, measured: &Measured) -> Result<String, String> {
    let phases: Vec<_> = claimed(evidence, KERNEL_IMAGE);
    let image: Sha256 = measured.pcr11.parse().expect("a parsed manifest has a digest there");
    let quoted = parts.pcr(KERNEL_IMAGE);
    let (value, without) = (after(Pcr(image.0), &phases), after(Pcr::default(), &phases));
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

/// Whether nobody measured anything that the image's way of booting has no part in.
fn nothing_added(parts: &Parts) -> Result<String, String> {
    match EMPTY.iter().find(|(number, _)| parts.pcr(*number) != Pcr::default()) {
        None => Ok("no other command line, no credentials, no extensions".to_owned()),
        Some((number, who)) => Err(format!("something is measured in PCR {number}: {who}")),
    }
}

/// Whether the root that runs is the image's, and the settings are those that should be.
fn system(evidence: &Evidence, parts: &Parts, expected: &Expected<'_>, report: &mut Report) {
    let lines = claimed(evidence, SYSTEM);
    let value = after(Pcr::default(), &lines);
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
    let (settings, isolation) = match lines.as_slice() {
        [_, settings] => (settings, Ok("on".to_owned())),
        [_, settings, off] if *off == attest::ISOLATION_OFF => {
            let off = "off: containers are root of the machine";
            let outcome = if expected.isolation_off { Ok(off) } else { Err(off) };
            (settings, outcome.map(str::to_owned).map_err(|off| format!("{off}; --isolation-off takes that")))
        }
        _ => {
            report.add("settings", "digest", Err("none are in force, or more than one".to_owned()));
            return;
        }
    };
    report.add("settings", "isolation", isolation);
    let is = |digest: Sha256| *settings == attest::settings(&digest.to_string());
    let digits = settings.strip_prefix(&attest::settings("")).map(str::parse::<Sha256>);
    match expected.settings {
        _ if !matches!(digits, Some(Ok(_))) => {
            report.add("settings", "digest", Err(format!("`{settings}` is measured in their place")));
        }
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

/// The value of a register after these texts were measured into it.
fn after(start: Pcr, texts: &[&str]) -> Pcr {
    texts.iter().fold(start, |pcr, text| pcr.measure(text.as_bytes()))
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
    let bytes =
        from_hex(text).filter(|bytes| (LEAST_NONCE_BYTES..=attest::MAX_NONCE_BYTES).contains(&bytes.len()));
    bytes.ok_or(Error::Malformed { part: "nonce", wanted: "16 to 64 bytes in hexadecimal" })
}
