//! Ed25519 signatures (RFC 8032) over the exact bytes of a manifest, with keys in PEM files as OpenSSL has them.

mod files;
pub(super) mod pem;

use std::fmt;
use std::io;
use std::path::PathBuf;

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::digest::{Sha256, to_hex};

pub use files::{PRIVATE_NAME, PUBLIC_NAME, generate, host_key};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;
/// Bytes of a public key as the initramfs has it.
pub const PUBLIC_BYTES: usize = 32;

/// Why a key cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key file cannot be read.
    #[error("cannot read the key `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The key file is not a PEM file.
    #[error("`{}` is not a PEM file", .path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
    },
    /// The key is locked with a passphrase.
    #[error("the key `{}` is encrypted; decrypt it with `openssl pkey -in FILE -out FILE`", .path.display())]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// The PEM file holds something else.
    #[error("`{}` holds a {label}, not an Ed25519 {wanted}", .path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// What its first line says.
        label: String,
        /// What was looked for.
        wanted: &'static str,
    },
    /// The key has the right label and is not Ed25519.
    #[error("the key `{}` is not an Ed25519 {wanted}", .path.display())]
    NotEd25519 {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// A key of that name is there already, and images may be signed with it.
    #[error("`{}` exists; a key is never overwritten", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A key file cannot be written.
    #[error("cannot write the key `{}`", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system gives no random numbers.
    #[error("cannot draw random numbers for a key")]
    Random,
}

/// A private key.
pub struct SigningKey {
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// Reads a PKCS#8 PEM file.
    ///
    /// # Errors
    /// [`Error`] says what the file is instead.
    pub fn read(path: &std::path::Path) -> Result<Self, Error> {
        let der = pem::read(path, pem::Kind::Private)?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der);
        let wanted = pem::Kind::Private.wanted();
        Ok(Self { pair: pair.map_err(|_| Error::NotEd25519 { path: path.to_owned(), wanted })? })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let bytes = self.pair.public_key().as_ref();
        PublicKey(bytes.try_into().expect("an Ed25519 public key has 32 bytes"))
    }

    /// Signs a message. Ed25519 is deterministic: equal messages give equal signatures.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.pair.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    pub(in crate::image) fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed);
        Self { pair: pair.expect("any 32 bytes are an Ed25519 seed") }
    }
}

impl fmt::Debug for SigningKey {
    /// Names the key and never shows it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SigningKey({})", self.public().id())
    }
}

/// A public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(pub [u8; PUBLIC_BYTES]);

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo PEM file.
    ///
    /// # Errors
    /// [`Error`] says what the file is instead.
    pub fn read(path: &std::path::Path) -> Result<Self, Error> {
        let der = pem::read(path, pem::Kind::Public)?;
        let wanted = pem::Kind::Public.wanted();
        let bytes = pem::public_bytes(&der);
        bytes.map(Self).ok_or_else(|| Error::NotEd25519 { path: path.to_owned(), wanted })
    }

    /// Reads the PEM file of either half of a key pair.
    ///
    /// # Errors
    /// [`Error`] says what the file is instead.
    pub fn read_of_either(path: &std::path::Path) -> Result<Self, Error> {
        match Self::read(path) {
            Err(Error::WrongKind { .. }) => SigningKey::read(path).map(|key| key.public()),
            read => read,
        }
    }

    /// The SubjectPublicKeyInfo PEM file of the key.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::public(&self.0)
    }

    /// Short name of the key: the first 16 digits of the SHA-256 of its 32 bytes.
    #[must_use]
    pub fn id(&self) -> String {
        to_hex(&Sha256::of(&[&self.0]).0[..8])
    }

    /// Whether `signature` is this key's for `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

/// 32 random bytes from the system.
fn random_seed() -> Result<[u8; 32], Error> {
    let random: ring::rand::Random<[u8; 32]> =
        ring::rand::generate(&SystemRandom::new()).map_err(|_| Error::Random)?;
    Ok(random.expose())
}

#[cfg(test)]
mod tests;
