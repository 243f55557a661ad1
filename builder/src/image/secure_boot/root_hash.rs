//! The signature of a root hash, as the kernel checks it before it makes a dm-verity device.
//!
//! Format: PKCS #7 in DER, detached, without attributes, over the root hash's 64 hexadecimal digits
//! (`Documentation/admin-guide/device-mapper/verity.rst`, `root_hash_sig_key_desc`); the signature partition of the Discoverable
//! Partitions Specification carries it.

use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerInfo};
use der::Decode;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

use super::super::digest::Sha256;
use super::{Certificate, Signer, pkcs7};

/// File name of the signature, as `veritysetup --root-hash-signature` takes it.
pub const FILE: &str = "root-hash.p7s";
/// File name of what a Secure Boot key signs for an image that is not signed yet.
pub const TO_BE_SIGNED_FILE: &str = "root-hash.tbs";

/// Bits of the RSA keys that the kernel takes (`rsa_check_key_length` in `crypto/rsa.c`), of those that we do.
const KERNEL_KEYS: [usize; 3] = [2048, 3072, 4096];

/// Why a root hash is not signed, or not by whom it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be signed.
    #[error(transparent)]
    Sign(#[from] super::Error),
    /// What is in the signature's place is none.
    #[error("it is not a signature in PKCS #7 (DER)")]
    Malformed(#[from] der::Error),
    /// It is PKCS #7 of another kind than the kernel takes.
    #[error("it has {what}")]
    Kind {
        /// What is there and should not, or the other way round.
        what: &'static str,
    },
    /// The certificate's key did not sign it.
    #[error("it is not a signature of {root_hash} by the key of {name}")]
    Signature {
        /// The root hash.
        root_hash: Sha256,
        /// Whom the certificate is for.
        name: String,
    },
    /// It is signed by somebody else.
    #[error("it is signed by {found}, not by {wanted}")]
    Signer {
        /// Who signed it.
        found: String,
        /// Who should have.
        wanted: String,
    },
}

/// What an RSA key signs (PKCS #1 1.5 with SHA-256) for a root hash: its digits.
#[must_use]
pub fn to_be_signed(root_hash: Sha256) -> Vec<u8> {
    root_hash.to_string().into_bytes()
}

/// The signature of a root hash. The same root hash, key and certificate give the same bytes.
///
/// # Errors
/// [`Error::Sign`], [`Error::Malformed`], and [`Error::Kind`] for a key that the kernel does not take.
pub fn sign(root_hash: Sha256, signer: &Signer) -> Result<Vec<u8>, Error> {
    let rsa = signer.sign(&to_be_signed(root_hash))?;
    check(root_hash, &rsa, signer.certificate())?;
    wrap(&rsa, signer.certificate())
}

/// The signature of a root hash from one that somebody else made, if that is of this root hash and by the certificate's key: RSA's of
/// [`to_be_signed`] and nothing else, or PKCS #7 in DER as `openssl smime -sign -binary -noattr` writes it. Both give the bytes that
/// [`sign`] gives.
///
/// # Errors
/// Every variant of [`Error`] but [`Error::Sign`].
pub fn accept(root_hash: Sha256, signature: &[u8], certificate: &Certificate) -> Result<Vec<u8>, Error> {
    let rsa = match parse(signature) {
        Ok(signed) => signer_of(&signed)?.signature.as_bytes().to_vec(),
        Err(_) if pkcs7::RSA_BYTES.contains(&signature.len()) => signature.to_vec(),
        Err(error) => return Err(error),
    };
    check(root_hash, &rsa, certificate)?;
    wrap(&rsa, certificate)
}

/// Checks the signature of a root hash, to its last byte, and gives the certificate of who made it: `wanted`, where that is given.
///
/// # Errors
/// Every variant of [`Error`] but [`Error::Sign`].
pub fn verify(
    root_hash: Sha256,
    signature: &[u8],
    wanted: Option<&Certificate>,
) -> Result<Certificate, Error> {
    let signed = parse(signature)?;
    let signer = signer_of(&signed)?;
    let certificate = pkcs7::certificate_of(&signed, signer)?;
    let certificate = certificate.ok_or(Error::Kind { what: "no certificate of its signer" })?;
    if let Some(wanted) = wanted.filter(|wanted| wanted.der() != certificate.der()) {
        return Err(Error::Signer { found: certificate.name(), wanted: wanted.name() });
    }
    let rsa = signer.signature.as_bytes();
    check(root_hash, rsa, &certificate)?;
    if wrap(rsa, &certificate)? != signature {
        return Err(Error::Kind { what: "another form than a build gives it" });
    }
    Ok(certificate)
}

fn wrap(rsa: &[u8], certificate: &Certificate) -> Result<Vec<u8>, Error> {
    Ok(pkcs7::to_der(&pkcs7::detached(rsa, certificate)?)?)
}

fn parse(signature: &[u8]) -> Result<SignedData, Error> {
    let info = ContentInfo::from_der(signature)?;
    if info.content_type != pkcs7::SIGNED_DATA {
        return Err(Error::Kind { what: "no signed data" });
    }
    Ok(info.content.decode_as()?)
}

/// The one signer, of a message as the kernel takes it.
fn signer_of(signed: &SignedData) -> Result<&SignerInfo, Error> {
    let [signer] = signed.signer_infos.0.as_slice() else {
        return Err(Error::Kind { what: "not exactly one signer" });
    };
    if signer.signed_attrs.is_some() {
        return Err(Error::Kind { what: "signed attributes; leave them out (openssl: -noattr)" });
    }
    Ok(signer)
}

fn check(root_hash: Sha256, rsa: &[u8], certificate: &Certificate) -> Result<(), Error> {
    if !KERNEL_KEYS.contains(&(rsa.len() * 8)) {
        return Err(Error::Kind {
            what: "a key of another size than the kernel takes: 2048, 3072 or 4096 bits",
        });
    }
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, certificate.public_key());
    let verified = key.verify(&to_be_signed(root_hash), rsa);
    verified.map_err(|_| Error::Signature { root_hash, name: certificate.name() })
}
