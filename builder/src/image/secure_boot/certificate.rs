//! X.509 certificates (RFC 5280), as far as signing and checking need them.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use der::{Decode, Encode};
use x509_cert::certificate::TbsCertificate;
use x509_cert::time::Time;

use super::super::digest::Sha256;
use super::super::signature::pem;
use super::Error;

/// No certificate of any kind is larger.
const MAX_BYTES: u64 = 64 * 1024;

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    parsed: x509_cert::Certificate,
    der: Vec<u8>,
}

impl Certificate {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Certificate`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        let wrong = |problem| Error::Certificate { path: path.to_owned(), problem };
        if fs::metadata(path).map_err(failed)?.len() > MAX_BYTES {
            return Err(wrong("is larger than any certificate"));
        }
        let bytes = fs::read(path).map_err(failed)?;
        let text = std::str::from_utf8(&bytes).ok().and_then(pem::decode);
        let (label, der) = text.ok_or_else(|| wrong("is not a PEM file"))?;
        let der =
            der.filter(|_| label == "CERTIFICATE").ok_or_else(|| wrong("is a PEM file of something else"))?;
        Self::from_der(&der).map_err(|_| wrong("does not follow RFC 5280"))
    }

    /// A certificate by its DER.
    ///
    /// # Errors
    /// What the parser said.
    pub(super) fn from_der(der: &[u8]) -> Result<Self, der::Error> {
        Ok(Self { parsed: x509_cert::Certificate::from_der(der)?, der: der.to_owned() })
    }

    /// A certificate that was part of something else.
    ///
    /// # Errors
    /// When it cannot be written as DER.
    pub(super) fn from_parsed(parsed: &x509_cert::Certificate) -> Result<Self, der::Error> {
        Ok(Self { parsed: parsed.clone(), der: parsed.to_der()? })
    }

    /// Its DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its PEM file.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.der)
    }

    /// The SHA-256 of its DER, hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        Sha256::of(&[&self.der]).to_string()
    }

    /// Whom it is for, and the first 16 digits of its SHA-256, as `keygen` shows it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} ({})", self.tbs().subject, self.fingerprint().get(..16).unwrap_or_default())
    }

    /// The last moment of its time, when that is before `now`.
    #[must_use]
    pub fn expired(&self, now: SystemTime) -> Option<String> {
        let end = self.tbs().validity.not_after;
        (end.to_system_time() < now).then(|| end.to_string())
    }

    /// The last moment of its time.
    #[must_use]
    pub fn valid_until(&self) -> String {
        self.tbs().validity.not_after.to_string()
    }

    /// The first moment of its time.
    pub(super) fn valid_from(&self) -> Time {
        self.tbs().validity.not_before
    }

    /// Its public key as `ring` has RSA keys: PKCS #1's `RSAPublicKey`.
    pub(super) fn public_key(&self) -> &[u8] {
        self.tbs().subject_public_key_info.subject_public_key.raw_bytes()
    }

    pub(super) fn parsed(&self) -> &x509_cert::Certificate {
        &self.parsed
    }

    fn tbs(&self) -> &TbsCertificate {
        &self.parsed.tbs_certificate
    }
}
