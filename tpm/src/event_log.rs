//! The firmware's log of what it measured, as the kernel hands it on (`binary_bios_measurements` in securityfs).
//!
//! A log proves nothing by itself. Replayed, it gives the values of registers, and those a TPM signs.

use crate::ALG_SHA256;
use crate::pcr::{DIGEST_BYTES, Pcr, QUOTED, sha256};

/// Largest log that is read, in bytes. Firmware reserves 64 KiB for one.
pub const MAX_BYTES: usize = 256 * 1024;
/// Most digests that an event may have; there are five kinds.
const MOST_DIGESTS: u32 = 8;
/// Signature of the first event of a log with digests of more than one kind.
const SPECIFICATION: &[u8] = b"Spec ID Event03\0";
/// Signature of the event that says where measuring began.
const LOCALITY: &[u8] = b"StartupLocality\0";
/// `EV_NO_ACTION`: nothing was measured.
const NO_ACTION: u32 = 0x0000_0003;

/// `EV_SEPARATOR`: the firmware is done with a register, and four zeros are measured.
pub const SEPARATOR: &[u8] = &[0; 4];
/// `EV_EFI_VARIABLE_DRIVER_CONFIG`.
pub const VARIABLE: u32 = 0x8000_0001;
/// `EV_EFI_BOOT_SERVICES_APPLICATION`: a program, by its Authenticode digest.
pub const PROGRAM: u32 = 0x8000_0003;

/// Why a log is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is too large.
    #[error("the firmware's event log is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// It is not of the format.
    #[error("the firmware's event log is not one of TPM 2.0")]
    Malformed,
    /// An event has no digest of the kind that is looked at.
    #[error("the firmware's event log has no SHA-256 digests")]
    NoSha256,
}

/// Something that was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The register.
    pub pcr: u32,
    /// What it is (`EV_…`).
    pub kind: u32,
    /// Its SHA-256 digest.
    pub digest: [u8; DIGEST_BYTES],
    /// What the firmware says of it, or for some kinds what it measured.
    pub data: &'a [u8],
}

/// A log that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log<'a> {
    /// What was measured, in order.
    pub events: Vec<Event<'a>>,
    /// What PCR 0 began with.
    locality: u8,
}

impl<'a> Log<'a> {
    /// Reads a log; an empty one is that of a machine whose firmware measures nothing.
    ///
    /// # Errors
    /// [`Error`].
    pub fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_BYTES {
            return Err(Error::TooLarge);
        }
        let mut log = Self::default();
        if bytes.is_empty() {
            return Ok(log);
        }
        let mut reader = Little(bytes);
        let sizes = digest_sizes(&mut reader).ok_or(Error::Malformed)?;
        while !reader.0.is_empty() {
            let (event, digest) = event(&mut reader, &sizes).ok_or(Error::Malformed)?;
            match (event.kind, event.data.strip_prefix(LOCALITY)) {
                (NO_ACTION, Some(locality)) => log.locality = *locality.first().ok_or(Error::Malformed)?,
                (NO_ACTION, None) => {}
                _ => log.events.push(Event { digest: digest.ok_or(Error::NoSha256)?, ..event }),
            }
        }
        Ok(log)
    }

    /// The values that registers 0 to 15 have after all of it.
    #[must_use]
    pub fn replay(&self) -> Vec<Pcr> {
        let value = |pcr| {
            let mut start = Pcr::default();
            if let (0, Some(last)) = (pcr, start.0.last_mut()) {
                *last = self.locality;
            }
            let own = self.events.iter().filter(|event| event.pcr == pcr);
            own.fold(start, |value, event| value.extend(&event.digest))
        };
        (0..QUOTED).map(value).collect()
    }

    /// Whether the firmware enforced Secure Boot, as it measured that; `None` where it did not say.
    #[must_use]
    pub fn secure_boot(&self) -> Option<bool> {
        let variables = self.events.iter().filter(|event| event.kind == VARIABLE && event.pcr == 7);
        // The data is the log's word alone, unless it is what was measured.
        let measured = variables.filter(|event| sha256(event.data) == event.digest);
        let mut values = measured.filter_map(|event| variable(event.data, "SecureBoot"));
        values.next().map(|value| value == [1])
    }
}

/// The first event, which is in the older format and says what digests have how many bytes.
fn digest_sizes(reader: &mut Little<'_>) -> Option<Vec<(u16, usize)>> {
    let (pcr, kind) = (reader.word()?, reader.word()?);
    let _digest = reader.bytes(20)?;
    let mut data = Little(reader.sized()?);
    if (pcr, kind) != (0, NO_ACTION) || data.bytes(SPECIFICATION.len())? != SPECIFICATION {
        return None;
    }
    let _class_and_version = data.bytes(8)?;
    let count = data.word().filter(|count| *count <= MOST_DIGESTS)?;
    (0..count).map(|_| Some((data.short()?, usize::from(data.short()?)))).collect()
}

/// One event (`TCG_PCR_EVENT2`), and its digest of SHA-256.
fn event<'a>(
    reader: &mut Little<'a>,
    sizes: &[(u16, usize)],
) -> Option<(Event<'a>, Option<[u8; DIGEST_BYTES]>)> {
    let (pcr, kind) = (reader.word()?, reader.word()?);
    let count = reader.word().filter(|count| *count <= MOST_DIGESTS)?;
    let mut sha256 = None;
    for _ in 0..count {
        let algorithm = reader.short()?;
        let (_, size) = sizes.iter().find(|(known, _)| *known == algorithm)?;
        let digest = reader.bytes(*size)?;
        if algorithm == ALG_SHA256 {
            sha256 = Some(digest.try_into().ok()?);
        }
    }
    let data = reader.sized()?;
    Some((Event { pcr, kind, digest: [0; DIGEST_BYTES], data }, sha256))
}

/// The value in `UEFI_VARIABLE_DATA`, if it is that of this variable.
fn variable<'a>(data: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    let mut reader = Little(data);
    let _vendor = reader.bytes(16)?;
    let (characters, bytes) = (reader.long()?, reader.long()?);
    let name = reader.bytes(usize::try_from(characters).ok()?.checked_mul(2)?)?;
    let wanted: Vec<_> = wanted.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let value = reader.bytes(usize::try_from(bytes).ok()?)?;
    (name == wanted).then_some(value)
}

/// Reads numbers with the low byte first.
struct Little<'a>(&'a [u8]);

impl<'a> Little<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn short(&mut self) -> Option<u16> {
        self.bytes(2)?.try_into().ok().map(u16::from_le_bytes)
    }

    fn word(&mut self) -> Option<u32> {
        self.bytes(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn long(&mut self) -> Option<u64> {
        self.bytes(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// Bytes with four bytes of length before them.
    fn sized(&mut self) -> Option<&'a [u8]> {
        let length = self.word()?;
        self.bytes(usize::try_from(length).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA1: u16 = 0x0004;

    /// A log with digests of SHA-1 and SHA-256.
    fn log(events: &[(u32, u32, &[u8])]) -> Vec<u8> {
        let algorithms = [(SHA1, 20_u16), (ALG_SHA256, 32)];
        let sizes: Vec<_> = algorithms
            .iter()
            .flat_map(|(id, size)| [id.to_le_bytes(), size.to_le_bytes()].concat())
            .collect();
        let first = [SPECIFICATION, &[0; 8], &2_u32.to_le_bytes(), &sizes, &[0]].concat();
        let word = |number: u32| number.to_le_bytes();
        let length = |data: &[u8]| word(u32::try_from(data.len()).expect("short"));
        let mut bytes = [&word(0)[..], &word(NO_ACTION), &[0; 20], &length(&first), &first].concat();
        for (pcr, kind, data) in events {
            bytes.extend([word(*pcr), word(*kind), word(2)].concat());
            bytes.extend(
                [&SHA1.to_le_bytes()[..], &[9; 20], &ALG_SHA256.to_le_bytes(), &sha256(data)].concat(),
            );
            bytes.extend([&length(data)[..], data].concat());
        }
        bytes
    }

    #[test]
    fn a_log_replayed_gives_the_registers() {
        let bytes = log(&[(4, PROGRAM, b"one"), (7, 4, b"zero"), (4, PROGRAM, b"two")]);
        let read = Log::read(&bytes).expect("our own");
        assert_eq!(read.events.len(), 3);
        let pcrs = read.replay();
        assert_eq!(pcrs[4], Pcr::default().measure(b"one").measure(b"two"));
        assert_eq!((pcrs[7], pcrs[0]), (Pcr::default().measure(b"zero"), Pcr::default()));
    }

    #[test]
    fn where_measuring_began_is_in_register_0() {
        let bytes = log(&[(0, NO_ACTION, b"StartupLocality\0\x03")]);
        let pcrs = Log::read(&bytes).expect("our own").replay();
        assert_eq!((pcrs[0].0[31], pcrs[1].0[31]), (3, 0));
    }

    #[test]
    fn secure_boot_is_what_the_firmware_measured() {
        let variable = |name: &str, value: u8| {
            let name: Vec<_> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let (characters, bytes) = (name.len() as u64 / 2, 1_u64);
            [&[0; 16][..], &characters.to_le_bytes(), &bytes.to_le_bytes(), &name, &[value]].concat()
        };
        for (name, value, wanted) in
            [("SecureBoot", 1, Some(true)), ("SecureBoot", 0, Some(false)), ("PK", 1, None)]
        {
            let bytes = log(&[(7, VARIABLE, &variable(name, value))]);
            assert_eq!(Log::read(&bytes).expect("our own").secure_boot(), wanted);
        }
        // Its digest says that it was off.
        let mut bytes = log(&[(7, VARIABLE, &variable("SecureBoot", 0))]);
        *bytes.last_mut().expect("the value") = 1;
        assert_eq!(Log::read(&bytes).expect("our own").secure_boot(), None);
    }

    #[test]
    fn no_log_is_an_empty_one_and_any_cut_off_one_is_refused() {
        assert_eq!(Log::read(&[]), Ok(Log::default()));
        let bytes = log(&[(4, PROGRAM, b"one")]);
        let whole = log(&[]).len();
        for length in 1..bytes.len() {
            let cut = Log::read(&bytes[..length]);
            assert!(cut == Err(Error::Malformed) || length == whole, "{length}: {cut:?}");
        }
        assert_eq!(Log::read(&vec![0; MAX_BYTES + 1]), Err(Error::TooLarge));
        assert_eq!(Log::read(&[0xff; 512]), Err(Error::Malformed));
    }
}
