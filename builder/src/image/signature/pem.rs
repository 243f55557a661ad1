//! PEM, and DER as far as Ed25519 keys need it (RFC 7468, RFC 8410).
//!
//! Both DER forms are a fixed prefix and 32 bytes, so there is no parser to get wrong.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Error, PUBLIC_BYTES};

/// PKCS#8 version 1 around a seed. Version 2 carries the public key too, and OpenSSL before 3.2 cannot read that.
const PRIVATE_PREFIX: &[u8] = &[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// SubjectPublicKeyInfo around a public key.
const PUBLIC_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
/// Characters of base64 in a line.
const LINE_CHARACTERS: usize = 64;
/// No key file of any kind is larger.
const MAX_BYTES: u64 = 64 * 1024;

/// Which half of a key pair a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Private,
    Public,
}

impl Kind {
    /// How messages name it.
    pub(super) fn wanted(self) -> &'static str {
        match self {
            Self::Private => "private key",
            Self::Public => "public key",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Private => "PRIVATE KEY",
            Self::Public => "PUBLIC KEY",
        }
    }
}

/// Reads a PEM file that must hold this kind of key, and gives its DER.
pub(super) fn read(path: &Path, kind: Kind) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let not_pem = || Error::NotPem { path: path.to_owned() };
    if fs::metadata(path).map_err(failed)?.len() > MAX_BYTES {
        return Err(not_pem());
    }
    let bytes = fs::read(path).map_err(failed)?;
    let (label, der) = std::str::from_utf8(&bytes).ok().and_then(decode).ok_or_else(not_pem)?;
    match label {
        _ if label == kind.label() => der.ok_or_else(not_pem),
        _ if label.starts_with("ENCRYPTED ") => Err(Error::Encrypted { path: path.to_owned() }),
        _ => Err(Error::WrongKind {
            path: path.to_owned(),
            label: label.to_lowercase(),
            wanted: kind.wanted(),
        }),
    }
}

/// The PEM file of a private key.
pub(super) fn private(seed: &[u8; 32]) -> String {
    encode(Kind::Private.label(), &[PRIVATE_PREFIX, seed].concat())
}

/// The PEM file of a public key.
pub(super) fn public(key: &[u8; PUBLIC_BYTES]) -> String {
    encode(Kind::Public.label(), &[PUBLIC_PREFIX, key].concat())
}

/// The 32 bytes in a public key's DER.
pub(super) fn public_bytes(der: &[u8]) -> Option<[u8; PUBLIC_BYTES]> {
    der.strip_prefix(PUBLIC_PREFIX)?.try_into().ok()
}

/// A PEM file of one block.
pub(in crate::image) fn encode(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<_> = base64
        .as_bytes()
        .chunks(LINE_CHARACTERS)
        .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
        .collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Label and content of the first PEM block; content is `None` where it is not base64, as in encrypted old forms.
pub(in crate::image) fn decode(text: &str) -> Option<(&str, Option<Vec<u8>>)> {
    let (_, block) = text.split_once("-----BEGIN ")?;
    let (label, rest) = block.split_once("-----")?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let base64: String = body.split_whitespace().collect();
    Some((label, STANDARD.decode(base64).ok()))
}
