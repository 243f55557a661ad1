//! UEFI Secure Boot: keys with certificates, the variables that enrol them, and the signatures on the unified kernel image and of the
//! root hash.
//!
//! The firmware has three keys. PK says who owns the machine and signs changes of KEK; KEK signs changes of db; db is what
//! programs are signed with (UEFI 2.10, 32.3). OpenSSL makes the keys, `ring` signs with them; what is signed is built here
//! from RustCrypto's types. RSA signatures of PKCS #1 1.5 have nothing random in them and no time goes in, so that two
//! builds are the same bytes; `sbsign` and `osslsigncode` put the time of signing in. What they make is taken all the same.

mod authenticode;
mod certificate;
mod files;
mod pkcs7;
pub mod root_hash;
mod signer;
mod variables;

pub use authenticode::{Error as SignatureError, attach, sign, to_be_signed, verify};
pub use certificate::Certificate;
pub use files::{FOLDER, generate, host_signer};
pub use signer::Signer;

use std::io;
use std::path::PathBuf;

use crate::tool;

/// Why a key or a certificate cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The key cannot be used.
    #[error("the key `{}` {problem}", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The certificate cannot be used.
    #[error("the certificate `{}` {problem}", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The certificate is another key's.
    #[error("the certificate `{}` is not the one of the key `{}`", .certificate.display(), .key.display())]
    Mismatch {
        /// The key.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
    },
    /// The certificate's time is over.
    #[error("the certificate `{}` has expired on {on}", .path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// Its last moment.
        on: String,
    },
    /// There are keys already, and firmware may trust them.
    #[error("`{}` exists; a key is never overwritten", .path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`", .path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// OpenSSL did not make a key.
    #[error("cannot make the key `{name}`")]
    OpenSsl {
        /// Name of the key.
        name: &'static str,
        /// What it said.
        source: tool::Error,
    },
    /// Something that was to be signed cannot be written as DER.
    #[error("cannot encode a signature")]
    Encode(#[from] der::Error),
    /// The key does not sign.
    #[error("the key does not sign")]
    Sign,
}

#[cfg(test)]
pub(crate) mod tests;
