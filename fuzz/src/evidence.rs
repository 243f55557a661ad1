//! Evidence of a measured boot: whatever a machine gives for its firmware's log, nothing is read that is not there, and whatever it
//! gives for a quote, no key signed it.

use eci_tpm::command;
use eci_tpm::event_log::{Event, Log, MAX_BYTES};
use eci_tpm::pcr::Pcr;
use eci_tpm::quote::{Error, Quote};

/// What parts key, quote and signature.
const NEXT: &[u8] = b"\n--\n";
/// `EV_NO_ACTION`.
const NO_ACTION: u32 = 3;

/// Reads `input` as a log, as a TPM's answer, and as a quote.
///
/// # Panics
/// A promise is broken.
pub fn check(input: &[u8]) {
    if let Ok(log) = Log::read(input) {
        check_log(input, &log);
    }
    check_answer(input);
    check_quote(input);
}

fn check_log(input: &[u8], log: &Log<'_>) {
    assert!(input.len() <= MAX_BYTES);
    let read: usize = log.events.iter().map(|event| 16 + event.data.len()).sum();
    assert!(read <= input.len(), "{read} bytes of {}", input.len());
    for event in &log.events {
        assert_ne!(event.kind, NO_ACTION, "what was not measured counts");
        assert!(input.windows(32).any(|window| window == event.digest), "a digest that nobody gave");
    }
    let pcrs = log.replay();
    assert_eq!(pcrs.len(), 16);
    for (number, pcr) in (0_u32..).zip(&pcrs).skip(1) {
        let touched = log.events.iter().any(|event| event.pcr == number);
        assert_eq!(*pcr != Pcr::default(), touched, "PCR {number}");
    }
    // Written by the specification once more, it is the same log.
    let bytes = written(&log.events);
    if bytes.len() <= MAX_BYTES {
        assert_eq!(Log::read(&bytes).expect("a log").events, log.events);
    }
}

/// A log with digests of SHA-256 alone.
fn written(events: &[Event<'_>]) -> Vec<u8> {
    let mut bytes = [&[0; 4][..], &[3, 0, 0, 0], &[0; 20], &[33, 0, 0, 0], b"Spec ID Event03\0"].concat();
    bytes.extend([&[0; 8][..], &[1, 0, 0, 0, 0x0b, 0, 32, 0, 0]].concat());
    for event in events {
        let length = u32::try_from(event.data.len()).expect("part of the input");
        bytes.extend([event.pcr.to_le_bytes(), event.kind.to_le_bytes(), 1_u32.to_le_bytes()].concat());
        bytes.extend([&[0x0b, 0][..], &event.digest, &length.to_le_bytes(), event.data].concat());
    }
    bytes
}

fn check_answer(input: &[u8]) {
    let success = input.get(6..10) == Some(&[0; 4][..]);
    assert!(success || command::done(input).is_err(), "a refusal is taken for success");
    for first in [0, 8] {
        if let Ok((_, pcrs)) = command::pcrs(input, first) {
            assert!(success && pcrs.len() <= 8 && pcrs.len() * 34 <= input.len());
        }
    }
    if let Ok((_, key)) = command::attestation_key(input) {
        assert!(success && key.len() < input.len());
    }
    if let Ok((attested, signature)) = command::quoted(input) {
        assert!(success && attested.len() + signature.len() < input.len());
    }
}

fn check_quote(input: &[u8]) {
    let mut rest = input;
    let mut part = || {
        let end = rest.windows(NEXT.len()).position(|window| window == NEXT);
        let (part, more) = end.map_or((rest, &[][..]), |end| (&rest[..end], &rest[end + NEXT.len()..]));
        rest = more;
        part
    };
    let (key, attested, signature) = (part(), part(), part());
    let quote = Quote { key, attested, signature };
    // Nobody can sign by chance, so that nothing of what would have been signed is looked at.
    let verified = quote.verify(b"a nonce", &[Pcr([0x5a; 32]); 16]);
    assert!(matches!(verified, Err(Error::Key | Error::Signature | Error::Unsigned)), "{verified:?}");
}
