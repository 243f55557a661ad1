//! Commands to a TPM, and what it answers.
//!
//! A command is written to the device in one piece, and its answer read in one piece of at most [`MAX_ANSWER_BYTES`].

use crate::pcr::{Pcr, QUOTED};
use crate::wire::{Reader, sized};
use crate::{ALG_ECC, ALG_ECDSA, ALG_NULL, ALG_SHA256, CURVE_P256};

/// No TPM answers with more.
pub const MAX_ANSWER_BYTES: usize = 4096;
/// Longest data that a TPM measures in one command (`TPM2B_EVENT`).
pub const MAX_EVENT_BYTES: usize = 1024;
/// Registers that a TPM reads in one command (`TPML_DIGEST`).
pub const PCRS_AT_ONCE: u32 = 8;

/// Handles that the kernel's resource manager gives to what it holds for one opener: there is room for three.
pub const HELD: [u32; 3] = [0x80ff_ffff, 0x80ff_fffe, 0x80ff_fffd];

const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;
const CREATE_PRIMARY: u32 = 0x0131;
const PCR_EVENT: u32 = 0x013c;
const FLUSH_CONTEXT: u32 = 0x0165;
const QUOTE: u32 = 0x0158;
const PCR_READ: u32 = 0x017e;
/// `TPM_RH_ENDORSEMENT`.
const ENDORSEMENT: u32 = 0x4000_000b;
/// `TPMA_OBJECT` of a key that the chip made, that never leaves it, and that signs what the chip itself says and nothing else:
/// `fixedTPM`, `fixedParent`, `sensitiveDataOrigin`, `userWithAuth`, `noDA`, `restricted`, `sign`.
pub(crate) const ATTESTATION_KEY: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 10 | 1 << 16 | 1 << 18;

/// Why there is no answer to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The TPM refuses.
    #[error("the TPM answers with error {code:#x}")]
    Refused {
        /// `TPM_RC`.
        code: u32,
    },
    /// The answer is not what belongs to the command.
    #[error("the TPM's answer is not understood")]
    Malformed,
}

/// Measures data of at most [`MAX_EVENT_BYTES`] into a register, in all banks that the TPM has.
#[must_use]
pub fn measure(pcr: u32, data: &[u8]) -> Vec<u8> {
    with_password(PCR_EVENT, pcr, &sized(data))
}

/// Reads registers from `first` on, at most [`PCRS_AT_ONCE`] and below [`QUOTED`].
#[must_use]
pub fn read_pcrs(first: u32) -> Vec<u8> {
    let wanted = (first..QUOTED).take(PCRS_AT_ONCE as usize).fold(0, |bits, pcr| bits | 1 << pcr);
    framed(NO_SESSIONS, PCR_READ, &selection(wanted))
}

/// Makes the attestation key: the same one each time, for it is derived from the TPM's endorsement seed.
#[must_use]
pub fn create_attestation_key() -> Vec<u8> {
    let public = [
        &ALG_ECC.to_be_bytes()[..],
        &ALG_SHA256.to_be_bytes(),
        &ATTESTATION_KEY.to_be_bytes(),
        // No policy, and no symmetric cipher: it is the parent of nothing.
        &sized(&[]),
        &ALG_NULL.to_be_bytes(),
        &[ALG_ECDSA.to_be_bytes(), ALG_SHA256.to_be_bytes()].concat(),
        &CURVE_P256.to_be_bytes(),
        &ALG_NULL.to_be_bytes(),
        // The point is the TPM's to choose.
        &sized(&[]),
        &sized(&[]),
    ];
    let no_secrets = sized(&[sized(&[]), sized(&[])].concat());
    let (no_outside_info, no_pcrs) = (sized(&[]), 0_u32.to_be_bytes());
    let parameters = [no_secrets, sized(&public.concat()), no_outside_info, no_pcrs.to_vec()].concat();
    with_password(CREATE_PRIMARY, ENDORSEMENT, &parameters)
}

/// Has the registers below [`QUOTED`] signed by the key with this handle, together with a nonce of at most 64 bytes.
#[must_use]
pub fn quote(key: u32, nonce: &[u8]) -> Vec<u8> {
    let parameters = [sized(nonce), ALG_NULL.to_be_bytes().to_vec(), selection((1 << QUOTED) - 1)].concat();
    with_password(QUOTE, key, &parameters)
}

/// Takes what was made out of the TPM again.
#[must_use]
pub fn flush(handle: u32) -> Vec<u8> {
    framed(NO_SESSIONS, FLUSH_CONTEXT, &handle.to_be_bytes())
}

/// That a command without an answer of its own was carried out.
///
/// # Errors
/// [`Error`].
pub fn done(answer: &[u8]) -> Result<(), Error> {
    body(answer).map(drop)
}

/// Registers that were read, with the number of changes that all registers have seen.
///
/// # Errors
/// [`Error`]; also when the TPM has no bank of SHA-256.
pub fn pcrs(answer: &[u8], first: u32) -> Result<(u32, Vec<Pcr>), Error> {
    let mut reader = Reader(body(answer)?);
    let wanted = read_pcrs(first);
    let read = |reader: &mut Reader<'_>| {
        let changes = reader.word()?;
        let selection = wanted.get(10..)?;
        (reader.bytes(selection.len())? == selection).then_some(())?;
        let count = reader.word().filter(|count| *count <= PCRS_AT_ONCE)?;
        let values: Option<Vec<_>> = (0..count).map(|_| reader.sized()?.try_into().ok().map(Pcr)).collect();
        Some((changes, values?))
    };
    read(&mut reader).ok_or(Error::Malformed)
}

/// The attestation key that was made: its handle, and its public half (`TPMT_PUBLIC`).
///
/// # Errors
/// [`Error`].
pub fn attestation_key(answer: &[u8]) -> Result<(u32, Vec<u8>), Error> {
    let mut reader = Reader(body(answer)?);
    let read = |reader: &mut Reader<'_>| {
        let handle = reader.word()?;
        let _size = reader.word()?;
        Some((handle, reader.sized()?.to_vec()))
    };
    read(&mut reader).ok_or(Error::Malformed)
}

/// A quote that was made: what was signed (`TPMS_ATTEST`), and the signature (`TPMT_SIGNATURE`).
///
/// # Errors
/// [`Error`].
pub fn quoted(answer: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let mut reader = Reader(body(answer)?);
    let read = |reader: &mut Reader<'_>| {
        let size = usize::try_from(reader.word()?).ok()?;
        let mut parameters = Reader(reader.bytes(size)?);
        let attested = parameters.sized()?.to_vec();
        Some((attested, parameters.0.to_vec()))
    };
    read(&mut reader).ok_or(Error::Malformed)
}

/// `TPML_PCR_SELECTION` of registers of the SHA-256 bank, a bit each.
pub(crate) fn selection(bits: u32) -> Vec<u8> {
    let [low, middle, high, _] = bits.to_le_bytes();
    [&1_u32.to_be_bytes()[..], &ALG_SHA256.to_be_bytes(), &[3, low, middle, high]].concat()
}

/// A command about a handle whose password is empty.
fn with_password(code: u32, handle: u32, parameters: &[u8]) -> Vec<u8> {
    /// `TPM_RS_PW` without nonce, attributes and password, and its length before it.
    const PASSWORD: [u8; 13] = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];
    framed(SESSIONS, code, &[&handle.to_be_bytes()[..], &PASSWORD, parameters].concat())
}

fn framed(tag: u16, code: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(10 + body.len()).expect("invariant: commands are short");
    [&tag.to_be_bytes()[..], &size.to_be_bytes(), &code.to_be_bytes(), body].concat()
}

/// What comes after an answer's header.
fn body(answer: &[u8]) -> Result<&[u8], Error> {
    let mut reader = Reader(answer);
    let mut header = || Some((reader.short()?, reader.word()?, reader.word()?));
    let (_, size, code) = header().ok_or(Error::Malformed)?;
    if code != 0 {
        return Err(Error::Refused { code });
    }
    (usize::try_from(size) == Ok(answer.len())).then_some(reader.0).ok_or(Error::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u32, body: &[u8]) -> Vec<u8> {
        framed(NO_SESSIONS, code, body)
    }

    #[test]
    fn a_command_says_how_long_it_is() {
        for command in
            [measure(11, b"ready"), read_pcrs(8), create_attestation_key(), quote(7, &[1; 32]), flush(7)]
        {
            let size = u32::from_be_bytes(command[2..6].try_into().expect("four bytes"));
            assert_eq!(usize::try_from(size), Ok(command.len()));
        }
    }

    #[test]
    fn measuring_is_the_command_of_the_specification() {
        let wanted = [
            &[0x80, 0x02, 0, 0, 0, 34, 0, 0, 1, 0x3c, 0, 0, 0, 11][..],
            &[0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0],
            &[0, 5, b'r', b'e', b'a', b'd', b'y'],
        ];
        assert_eq!(measure(11, b"ready"), wanted.concat());
    }

    #[test]
    fn registers_are_those_that_were_asked_for() {
        let value = sized(&[7; 32]);
        let some = |bits, count: u32| {
            let head = [3_u32.to_be_bytes().to_vec(), selection(bits), count.to_be_bytes().to_vec()];
            answer(0, &[head.concat(), value.repeat(count as usize)].concat())
        };
        let (changes, values) = pcrs(&some(0xff00, 8), 8).expect("what was asked for");
        assert_eq!((changes, values), (3, vec![Pcr([7; 32]); 8]));
        assert_eq!(pcrs(&some(0x00ff, 8), 8), Err(Error::Malformed), "others");
        assert_eq!(pcrs(&some(0xff00, 9), 8), Err(Error::Malformed), "more than there are");
        assert_eq!(pcrs(&some(0xff00, 8)[..60], 8), Err(Error::Malformed), "cut off");
    }

    #[test]
    fn a_refusal_carries_its_number() {
        assert_eq!(done(&answer(0x0149, &[])), Err(Error::Refused { code: 0x149 }));
        assert_eq!(done(&[]), Err(Error::Malformed));
        assert_eq!(done(&answer(0, &[])), Ok(()));
    }
}
