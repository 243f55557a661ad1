//! A quote: registers that a TPM has signed, with a nonce that says when it was asked.

use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use crate::command::{ATTESTATION_KEY, selection};
use crate::pcr::{Pcr, QUOTED, sha256};
use crate::wire::Reader;
use crate::{ALG_ECC, ALG_ECDSA, ALG_NULL, ALG_SHA256, CURVE_P256};

/// `TPM_GENERATED_VALUE`: what begins so, a restricted key signs only when the TPM wrote it.
const GENERATED: u32 = 0xff54_4347;
/// `TPM_ST_ATTEST_QUOTE`.
const ATTEST_QUOTE: u16 = 0x8018;
/// Bytes of a coordinate of P-256.
const COORDINATE_BYTES: usize = 32;

/// Why a quote is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The public half is none of the kind that the image asks the TPM for.
    #[error("the key is not one that a TPM uses for quotes alone")]
    Key,
    /// The signature is not one of that key's kind.
    #[error("the signature is malformed")]
    Signature,
    /// The signature is not of this quote, or not by this key.
    #[error("the signature does not verify with the key")]
    Unsigned,
    /// What was signed is no quote of the registers that are asked for.
    #[error("what was signed is not a quote of PCRs 0 to 15")]
    Malformed,
    /// It answers another question.
    #[error("it answers another nonce: it is an old quote, or one for somebody else")]
    Nonce,
    /// It is about other values.
    #[error("the values of the PCRs are not those that were signed")]
    Values,
}

/// What a machine gives of a quote, as its TPM wrote it.
#[derive(Clone, Copy, Debug)]
pub struct Quote<'a> {
    /// `TPMT_PUBLIC` of the attestation key.
    pub key: &'a [u8],
    /// `TPMS_ATTEST`.
    pub attested: &'a [u8],
    /// `TPMT_SIGNATURE`.
    pub signature: &'a [u8],
}

impl Quote<'_> {
    /// That these are the values of registers 0 to 15, as the holder of the key signed them in answer to the nonce.
    ///
    /// That the key is a TPM's at all, and this machine's, is for whoever knows it to say.
    ///
    /// # Errors
    /// [`Error`].
    pub fn verify(&self, nonce: &[u8], pcrs: &[Pcr]) -> Result<(), Error> {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point(self.key).ok_or(Error::Key)?);
        let signature = numbers(self.signature).ok_or(Error::Signature)?;
        key.verify(self.attested, &signature).map_err(|_| Error::Unsigned)?;
        let (answers, digest) = content(self.attested).ok_or(Error::Malformed)?;
        if answers != nonce {
            return Err(Error::Nonce);
        }
        let values: Vec<_> = pcrs.iter().flat_map(|pcr| pcr.0).collect();
        (digest == sha256(&values)).then_some(()).ok_or(Error::Values)
    }
}

/// The key's point, uncompressed, if it is a key that the image asks for and no other.
fn point(public: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader(public);
    let kind = (reader.short()?, reader.short()?, reader.word()?);
    let no_policy = reader.sized()?.is_empty();
    let parameters = [reader.short()?, reader.short()?, reader.short()?, reader.short()?, reader.short()?];
    let wanted = [ALG_NULL, ALG_ECDSA, ALG_SHA256, CURVE_P256, ALG_NULL];
    if kind != (ALG_ECC, ALG_SHA256, ATTESTATION_KEY) || !no_policy || parameters != wanted {
        return None;
    }
    let (x, y) = (coordinate(reader.sized()?)?, coordinate(reader.sized()?)?);
    reader.end()?;
    Some([&[4][..], &x, &y].concat())
}

/// The two numbers of an ECDSA signature.
fn numbers(signature: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader(signature);
    if (reader.short()?, reader.short()?) != (ALG_ECDSA, ALG_SHA256) {
        return None;
    }
    let (r, s) = (coordinate(reader.sized()?)?, coordinate(reader.sized()?)?);
    reader.end()?;
    Some([r, s].concat())
}

/// A number in full length: TPMs may leave zeros at its start out.
fn coordinate(number: &[u8]) -> Option<[u8; COORDINATE_BYTES]> {
    let missing = COORDINATE_BYTES.checked_sub(number.len())?;
    let mut full = [0; COORDINATE_BYTES];
    full.get_mut(missing..)?.copy_from_slice(number);
    Some(full)
}

/// Nonce and digest of what was signed.
fn content(attested: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader(attested);
    if (reader.word()?, reader.short()?) != (GENERATED, ATTEST_QUOTE) {
        return None;
    }
    let _signer = reader.sized()?;
    let nonce = reader.sized()?;
    let _clock = (reader.long()?, reader.word()?, reader.word()?, reader.byte()?);
    let _firmware = reader.long()?;
    let all = selection((1 << QUOTED) - 1);
    (reader.bytes(all.len())? == all).then_some(())?;
    let digest = reader.sized()?;
    reader.end()?;
    Some((nonce, digest))
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;
    use crate::wire::sized;

    /// A key of this test in a TPM's words, with attributes of the caller's choice.
    struct Chip {
        pair: EcdsaKeyPair,
        attributes: u32,
    }

    impl Chip {
        fn new() -> Self {
            let (random, kind) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
            let bytes = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("a key");
            let pair = EcdsaKeyPair::from_pkcs8(kind, bytes.as_ref(), &random).expect("our own");
            Self { pair, attributes: ATTESTATION_KEY }
        }

        fn public(&self) -> Vec<u8> {
            let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
            let words =
                [ALG_NULL, ALG_ECDSA, ALG_SHA256, CURVE_P256, ALG_NULL].map(u16::to_be_bytes).concat();
            [
                [ALG_ECC, ALG_SHA256].map(u16::to_be_bytes).concat(),
                self.attributes.to_be_bytes().to_vec(),
                sized(&[]),
                words,
                sized(x),
                sized(y),
            ]
            .concat()
        }

        fn sign(&self, attested: &[u8]) -> Vec<u8> {
            let signature = self.pair.sign(&SystemRandom::new(), attested).expect("signed");
            let (r, s) = signature.as_ref().split_at(32);
            [[ALG_ECDSA, ALG_SHA256].map(u16::to_be_bytes).concat(), sized(r), sized(s)].concat()
        }

        fn verify(&self, attested: &[u8], nonce: &[u8], pcrs: &[Pcr]) -> Result<(), Error> {
            let (key, signature) = (self.public(), self.sign(attested));
            Quote { key: &key, attested, signature: &signature }.verify(nonce, pcrs)
        }
    }

    const PCRS: [Pcr; 16] = [Pcr([3; 32]); 16];

    fn attested(magic: u32, nonce: &[u8], bits: u32) -> Vec<u8> {
        let digest = sha256(&PCRS.iter().flat_map(|pcr| pcr.0).collect::<Vec<_>>());
        let head = [&magic.to_be_bytes()[..], &ATTEST_QUOTE.to_be_bytes()].concat();
        [head, sized(b"signer"), sized(nonce), vec![0; 25], selection(bits), sized(&digest)].concat()
    }

    #[test]
    fn a_quote_is_believed_with_its_own_nonce_and_values() {
        let (chip, signed) = (Chip::new(), attested(GENERATED, b"now", 0xffff));
        assert_eq!(chip.verify(&signed, b"now", &PCRS), Ok(()));
        assert_eq!(chip.verify(&signed, b"noz", &PCRS), Err(Error::Nonce));
        let mut others = PCRS;
        others[15].0[31] ^= 1;
        assert_eq!(chip.verify(&signed, b"now", &others), Err(Error::Values));
        assert_eq!(chip.verify(&signed, b"now", &PCRS[..15]), Err(Error::Values));
    }

    #[test]
    fn what_no_tpm_wrote_is_no_quote() {
        let chip = Chip::new();
        for signed in [
            attested(GENERATED ^ 1, b"now", 0xffff),
            attested(GENERATED, b"now", 0xfffe),
            [attested(GENERATED, b"now", 0xffff), vec![0]].concat(),
        ] {
            assert_eq!(chip.verify(&signed, b"now", &PCRS), Err(Error::Malformed));
        }
    }

    #[test]
    fn another_key_and_a_key_of_another_kind_are_refused() {
        let (mut chip, signed) = (Chip::new(), attested(GENERATED, b"now", 0xffff));
        let (key, signature) = (Chip::new().public(), chip.sign(&signed));
        let quote = Quote { key: &key, attested: &signed, signature: &signature };
        assert_eq!(quote.verify(b"now", &PCRS), Err(Error::Unsigned));
        // Not restricted: it would sign whatever somebody in the machine has it sign.
        chip.attributes ^= 1 << 16;
        assert_eq!(chip.verify(&signed, b"now", &PCRS), Err(Error::Key));
        let cut = Quote { signature: &signature[..20], ..quote };
        assert_eq!(cut.verify(b"now", &PCRS), Err(Error::Signature));
    }

    #[test]
    fn zeros_at_the_start_of_a_number_may_be_missing() {
        assert_eq!(coordinate(&[5]).map(|full| (full[0], full[31])), Some((0, 5)));
        assert_eq!(coordinate(&[0; 33]), None);
    }
}
