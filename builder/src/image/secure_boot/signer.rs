//! An RSA key with its certificate.

use std::fmt;
use std::fs;
use std::path::Path;

use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};

use super::super::signature::pem;
use super::{Certificate, Error};

/// A private key with the certificate that firmware knows it by.
pub struct Signer {
    pair: RsaKeyPair,
    certificate: Certificate,
}

impl Signer {
    /// Reads a private key (PKCS #8 or PKCS #1) and its certificate, both PEM files.
    ///
    /// # Errors
    /// [`Error`] says what either file is instead.
    pub fn read(key: &Path, certificate: &Path) -> Result<Self, Error> {
        let pair = read_key(key)?;
        let of = Certificate::read(certificate)?;
        if pair.public().as_ref() == of.public_key() {
            return Ok(Self { pair, certificate: of });
        }
        Err(Error::Mismatch { key: key.to_owned(), certificate: certificate.to_owned() })
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// RSA with SHA-256 as PKCS #1 1.5 has it: equal messages give equal signatures.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let mut signature = vec![0; self.pair.public().modulus_len()];
        let signed = self.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature);
        signed.map(|()| signature).map_err(|_| Error::Sign)
    }
}

impl fmt::Debug for Signer {
    /// Names the certificate and never shows the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Signer({})", self.certificate.name())
    }
}

fn read_key(path: &Path) -> Result<RsaKeyPair, Error> {
    let wrong = |problem| Error::Key { path: path.to_owned(), problem };
    let bytes = fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let text = std::str::from_utf8(&bytes).ok().and_then(pem::decode);
    let (label, der) = text.ok_or_else(|| wrong("is not a PEM file"))?;
    let encrypted = "is encrypted; decrypt it with `openssl pkey -in FILE -out FILE`";
    let der = match der {
        _ if label.starts_with("ENCRYPTED ") => return Err(wrong(encrypted)),
        // Old files have words before the base64 where they are encrypted.
        None => return Err(wrong(encrypted)),
        Some(der) => der,
    };
    let pair = match label {
        "PRIVATE KEY" => RsaKeyPair::from_pkcs8(&der),
        "RSA PRIVATE KEY" => RsaKeyPair::from_der(&der),
        _ => return Err(wrong("is a PEM file of something else than a private key")),
    };
    pair.map_err(|_| wrong("is not an RSA private key of 2048 to 4096 bits"))
}
