//! Signatures by keys that stay on a token: a smart card, a hardware security module, SoftHSM.
//!
//! The token's own library (PKCS #11 2.40) runs in this process, as in every program that speaks with it. What it gives back is a
//! signature as one from another machine, and is checked as such.

mod uri;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;

pub use uri::{Error as UriError, SCHEME, Uri};

/// Why a token does not sign.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library cannot be loaded, or does not start.
    #[error("cannot use the PKCS #11 library `{}`", .path.display())]
    Module {
        /// The library.
        path: PathBuf,
        /// What it said.
        source: cryptoki::error::Error,
    },
    /// The URI names no token or key, or more than one.
    #[error("{found} {what}s match `{uri}`, and it has to be one")]
    NotOne {
        /// "token", "Ed25519 private key" or "RSA private key".
        what: &'static str,
        /// The URI.
        uri: String,
        /// How many there are.
        found: usize,
    },
    /// The PIN cannot be read.
    #[error("cannot read the PIN in `{}`", .path.display())]
    Pin {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The token refuses.
    #[error("cannot {operation} `{uri}`")]
    Token {
        /// "ask", "log in to", "look for the key" or "sign with".
        operation: &'static str,
        /// The URI.
        uri: String,
        /// What the token said.
        source: cryptoki::error::Error,
    },
}

/// How a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519: 64 bytes.
    Ed25519,
    /// RSA with SHA-256 as PKCS #1 1.5 has it.
    RsaSha256,
}

impl Algorithm {
    fn key(self) -> (KeyType, &'static str) {
        match self {
            Self::Ed25519 => (KeyType::EC_EDWARDS, "Ed25519 private key"),
            Self::RsaSha256 => (KeyType::RSA, "RSA private key"),
        }
    }

    fn mechanism(self) -> Mechanism<'static> {
        match self {
            Self::Ed25519 => Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519)),
            Self::RsaSha256 => Mechanism::Sha256RsaPkcs,
        }
    }
}

/// Has the only key that `uri` names sign a message.
///
/// # Errors
/// [`Error`].
pub fn sign(uri: &Uri, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, Error> {
    let failed = |operation| {
        let uri = uri.to_string();
        move |source| Error::Token { operation, uri, source }
    };
    let library = load(&uri.module)?;
    let slot = slot(&library, uri)?;
    let session = library.open_ro_session(slot).map_err(failed("ask"))?;
    if let Some(path) = &uri.pin_source {
        let pin = fs::read_to_string(path).map_err(|source| Error::Pin { path: path.clone(), source })?;
        let pin = AuthPin::from(pin.trim_end_matches(['\r', '\n']).to_owned());
        session.login(UserType::User, Some(&pin)).map_err(failed("log in to"))?;
    }
    let key = key(&session, uri, algorithm)?;
    session.sign(&algorithm.mechanism(), key, message).map_err(failed("sign with"))
}

fn load(path: &Path) -> Result<Pkcs11, Error> {
    let failed = |source| Error::Module { path: path.to_owned(), source };
    let library = Pkcs11::new(path).map_err(failed)?;
    library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).map_err(failed)?;
    Ok(library)
}

fn slot(library: &Pkcs11, uri: &Uri) -> Result<Slot, Error> {
    let failed = |source| Error::Token { operation: "ask", uri: uri.to_string(), source };
    let mut found = Vec::new();
    for slot in library.get_slots_with_initialized_token().map_err(failed)? {
        if matches(uri, &library.get_token_info(slot).map_err(failed)?) {
            found.push(slot);
        }
    }
    single(&found, "token", uri)
}

fn matches(uri: &Uri, token: &TokenInfo) -> bool {
    let is = [token.label(), token.manufacturer_id(), token.model(), token.serial_number()];
    uri.token.iter().zip(is).all(|(wanted, is)| wanted.as_ref().is_none_or(|wanted| wanted == is))
}

fn key(session: &Session, uri: &Uri, algorithm: Algorithm) -> Result<cryptoki::object::ObjectHandle, Error> {
    let (kind, what) = algorithm.key();
    let mut wanted = vec![Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(kind)];
    wanted.extend(uri.object.as_ref().map(|label| Attribute::Label(label.as_bytes().to_vec())));
    wanted.extend(uri.id.as_ref().map(|id| Attribute::Id(id.clone())));
    let found = session.find_objects(&wanted);
    let failed = |source| Error::Token { operation: "look for the key", uri: uri.to_string(), source };
    single(&found.map_err(failed)?, what, uri)
}

fn single<T: Copy>(found: &[T], what: &'static str, uri: &Uri) -> Result<T, Error> {
    match found {
        [one] => Ok(*one),
        _ => Err(Error::NotOne { what, uri: uri.to_string(), found: found.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_none_is_named() {
        let uri: Uri = "pkcs11:?module-path=/nowhere/token.so".parse().expect("sound");
        let error = sign(&uri, Algorithm::Ed25519, b"message").expect_err("no library");
        assert_eq!(error.to_string(), "cannot use the PKCS #11 library `/nowhere/token.so`");
    }

    #[test]
    fn one_is_taken_and_none_or_two_are_counted() {
        let uri: Uri = "pkcs11:token=a?module-path=x".parse().expect("sound");
        assert_eq!(single(&[7], "token", &uri).expect("one"), 7);
        let error = single(&[7, 8], "token", &uri).expect_err("two").to_string();
        assert_eq!(error, "2 tokens match `pkcs11:token=a?module-path=x`, and it has to be one");
        assert!(single::<u8>(&[], "token", &uri).is_err());
    }
}
