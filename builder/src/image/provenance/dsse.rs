//! DSSE, an envelope for what is signed together with its type.
//!
//! Format: <https://github.com/secure-systems-lab/dsse/blob/master/envelope.md>, and `protocol.md` beside it for what is signed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::super::signature::PublicKey;

/// Type of an in-toto statement in an envelope.
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// Why bytes are no envelope of ours.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not JSON of an envelope's form.
    #[error("it is no DSSE envelope")]
    Form(#[from] serde_json::Error),
    /// It holds something else.
    #[error("it holds `{found}`, not `{PAYLOAD_TYPE}`")]
    Type {
        /// The type that it states.
        found: String,
    },
    /// A field is not base64.
    #[error("its {field} is not base64")]
    Base64 {
        /// "payload" or "signature".
        field: &'static str,
        /// Why not.
        source: base64::DecodeError,
    },
}

/// A statement with the signatures that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    payload: Vec<u8>,
    signatures: Vec<Vec<u8>>,
    key_id: String,
}

/// An envelope as JSON has it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    payload_type: String,
    payload: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
struct WireSignature {
    /// Says which key to try, and is not signed.
    #[serde(default)]
    keyid: String,
    sig: String,
}

impl Envelope {
    /// A statement that nobody has signed yet.
    #[must_use]
    pub fn unsigned(statement: Vec<u8>) -> Self {
        Self { payload: statement, signatures: Vec::new(), key_id: String::new() }
    }

    /// The same statement with this signature of [`Envelope::to_be_signed`] alone.
    #[must_use]
    pub fn signed(self, key: &PublicKey, signature: &[u8]) -> Self {
        Self { signatures: vec![signature.to_owned()], key_id: key.id(), ..self }
    }

    /// The statement.
    #[must_use]
    pub fn statement(&self) -> &[u8] {
        &self.payload
    }

    /// What a key signs: type and statement, each with its length in front ("PAE" in the format).
    #[must_use]
    pub fn to_be_signed(&self) -> Vec<u8> {
        let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), self.payload.len());
        [head.as_bytes(), &self.payload].concat()
    }

    /// Whether it has any signature.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        !self.signatures.is_empty()
    }

    /// Whether one of its signatures is this key's.
    #[must_use]
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let message = self.to_be_signed();
        self.signatures.iter().any(|signature| key.verifies(&message, signature))
    }

    /// The envelope's bytes: equal envelopes have equal ones.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let signature = |signature: &Vec<u8>| WireSignature {
            keyid: self.key_id.clone(),
            sig: STANDARD.encode(signature),
        };
        let wire = Wire {
            payload_type: PAYLOAD_TYPE.to_owned(),
            payload: STANDARD.encode(&self.payload),
            signatures: self.signatures.iter().map(signature).collect(),
        };
        let mut bytes = serde_json::to_vec(&wire).expect("an envelope has string keys only");
        bytes.push(b'\n');
        bytes
    }

    /// Reads an envelope. Nothing of it is to be believed before [`Envelope::is_signed_by`].
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let wire: Wire = serde_json::from_slice(bytes)?;
        if wire.payload_type != PAYLOAD_TYPE {
            return Err(Error::Type { found: wire.payload_type });
        }
        let decode =
            |text: &str, field| STANDARD.decode(text).map_err(|source| Error::Base64 { field, source });
        let signatures = wire.signatures.iter().map(|of| decode(&of.sig, "signature"));
        Ok(Self {
            payload: decode(&wire.payload, "payload")?,
            signatures: signatures.collect::<Result<_, _>>()?,
            key_id: wire.signatures.first().map(|of| of.keyid.clone()).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::signature::SigningKey;
    use super::*;

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_seed(&[byte; 32])
    }

    fn signed() -> Envelope {
        let envelope = Envelope::unsigned(b"{\"a\":1}".to_vec());
        let signature = key(1).sign(&envelope.to_be_signed());
        envelope.signed(&key(1).public(), &signature)
    }

    #[test]
    fn what_is_signed_is_type_and_statement_with_their_lengths() {
        let envelope = Envelope::unsigned(b"hello".to_vec());
        assert_eq!(envelope.to_be_signed(), b"DSSEv1 28 application/vnd.in-toto+json 5 hello");
    }

    #[test]
    fn it_reads_back_what_it_wrote_and_knows_its_signer() {
        let envelope = Envelope::parse(&signed().to_bytes()).expect("our own");
        assert_eq!(envelope, signed());
        assert!(envelope.is_signed() && envelope.is_signed_by(&key(1).public()));
        assert!(!envelope.is_signed_by(&key(2).public()));
        let unsigned = Envelope::parse(&Envelope::unsigned(b"x".to_vec()).to_bytes()).expect("our own");
        assert!(!unsigned.is_signed() && !unsigned.is_signed_by(&key(1).public()));
    }

    #[test]
    fn a_byte_more_of_the_statement_and_the_signature_is_another_s() {
        let mut envelope = signed();
        envelope.payload.push(b'\n');
        assert!(!envelope.is_signed_by(&key(1).public()));
        let mut envelope = signed();
        envelope.signatures[0][63] ^= 1;
        assert!(!envelope.is_signed_by(&key(1).public()));
    }

    #[test]
    fn one_signature_of_several_is_enough_and_key_ids_prove_nothing() {
        let mut envelope = signed();
        envelope.signatures.insert(0, vec![0; 64]);
        envelope.key_id = "somebody".to_owned();
        assert!(envelope.is_signed_by(&key(1).public()));
        let lie = Envelope::unsigned(b"x".to_vec()).signed(&key(1).public(), &[0; 64]);
        assert!(!lie.is_signed_by(&key(1).public()));
    }

    #[test]
    fn what_is_no_envelope_says_why() {
        let said = |text: String| Envelope::parse(text.as_bytes()).expect_err("none").to_string();
        let text = String::from_utf8(signed().to_bytes()).expect("JSON");
        assert_eq!(said("[]".to_owned()), "it is no DSSE envelope");
        assert_eq!(said(text.replace("signatures", "signature")), "it is no DSSE envelope");
        assert_eq!(
            said(text.replace("in-toto+json", "in-toto+yaml")),
            "it holds `application/vnd.in-toto+yaml`, not `application/vnd.in-toto+json`"
        );
        assert_eq!(said(text.replace("\"payload\":\"", "\"payload\":\"*")), "its payload is not base64");
        assert_eq!(said(text.replace("\"sig\":\"", "\"sig\":\"*")), "its signature is not base64");
    }
}
