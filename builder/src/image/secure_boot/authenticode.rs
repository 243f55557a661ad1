//! The signature in a PE file, as firmware checks it.
//!
//! Format: Microsoft's "Windows Authenticode Portable Executable Signature Format" 1.0, and UEFI 2.10, 32.2.

use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{SignedData, SignerInfo};
use der::asn1::{ObjectIdentifier, OctetString};
use der::{Any, Decode, Encode, Reader, SliceReader, Tag, Tagged};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

use super::super::digest::Sha256;
use super::super::uki::pe;
use super::{Certificate, Signer, pkcs7};

/// `SPC_INDIRECT_DATA_OBJID`: the content is the digest of something else.
const INDIRECT_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.4");
/// `SpcIndirectDataContent` up to the digest: that it is of a PE file (`SPC_PE_IMAGE_DATAOBJ`, without flags and with an
/// empty link), and of SHA-256. The digest's 32 bytes are all that differs.
const CONTENT: [u8; 46] = [
    0x30, 0x4c, 0x30, 0x17, 0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x01, 0x0f, 0x30,
    0x09, 0x03, 0x01, 0x00, 0xa0, 0x04, 0xa2, 0x02, 0x80, 0x00, 0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60,
    0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20,
];
/// Where the digest with its algorithm begins in [`CONTENT`]; others describe the file before it in other words.
const DIGEST_INFO: usize = 27;
/// First bytes of a PE file.
const DOS_MAGIC: &[u8] = b"MZ";
/// A signature is filled up to a multiple of this.
const PADDING: usize = 8;

/// Why a PE file is not signed, or not by whom it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no PE file.
    #[error(transparent)]
    Pe(#[from] pe::Error),
    /// It cannot be signed.
    #[error(transparent)]
    Sign(#[from] super::Error),
    /// Nobody signed it.
    #[error("it is not signed")]
    Unsigned,
    /// What is in the signature's place is none.
    #[error("its signature does not follow the format")]
    Malformed(#[from] der::Error),
    /// It is not the one signature with the digest, the attributes and the certificate that firmware looks for.
    #[error("its signature has no single {what}")]
    Lacks {
        /// What was looked for.
        what: &'static str,
    },
    /// It is a signature of another file.
    #[error("it has the digest {found}, and {signed} was signed")]
    Digest {
        /// The file's digest.
        found: Sha256,
        /// The signature's.
        signed: String,
    },
    /// The certificate's key did not sign it.
    #[error("its signature does not verify with the certificate of {name}")]
    Signature {
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

/// The file with its signature at the end. The same file, key and certificate give the same bytes.
///
/// # Errors
/// [`Error::Pe`] and [`Error::Sign`].
pub fn sign(image: &[u8], signer: &Signer) -> Result<Vec<u8>, Error> {
    let signature = signer.sign(&to_be_signed(image)?)?;
    attach_rsa(image, &signature, signer.certificate())
}

/// What an RSA key signs (PKCS #1 1.5 with SHA-256) for a file: the DER of the attributes that stand for it (RFC 5652, 5.4).
///
/// # Errors
/// [`Error::Pe`].
pub fn to_be_signed(image: &[u8]) -> Result<Vec<u8>, Error> {
    // The set itself, not under the tag that it has in the signer's information.
    Ok(pkcs7::attributes(INDIRECT_DATA, &content(image)?)?.to_der()?)
}

/// The file with a signature at its end that somebody else made, if that holds for the file and for the certificate. It is one of:
///
/// - RSA's of [`to_be_signed`] and nothing else, which gives the bytes that [`sign`] gives;
/// - PKCS #7 in DER, as `sbsign --detached` and `osslsigncode extract-signature` write it;
/// - the same file, signed.
///
/// # Errors
/// Every variant of [`Error`] but [`Error::Sign`].
pub fn attach(image: &[u8], signature: &[u8], certificate: &Certificate) -> Result<Vec<u8>, Error> {
    let signed = if signature.starts_with(DOS_MAGIC) {
        pe::attach_signature(image, pe::signature(signature)?.ok_or(Error::Unsigned)?)?
    } else if pkcs7::RSA_BYTES.contains(&signature.len()) {
        attach_rsa(image, signature, certificate)?
    } else {
        pe::attach_signature(image, signature)?
    };
    verify(&signed, Some(certificate))?;
    Ok(signed)
}

fn attach_rsa(image: &[u8], signature: &[u8], certificate: &Certificate) -> Result<Vec<u8>, Error> {
    let signed = pkcs7::around(INDIRECT_DATA, content(image)?, signature, certificate)?;
    Ok(pe::attach_signature(image, &pkcs7::to_der(&signed)?)?)
}

fn content(image: &[u8]) -> Result<Any, Error> {
    let digest = pe::authenticode_digest(image)?;
    Ok(Any::from_der(&[&CONTENT[..], &digest.0].concat())?)
}

/// Checks the signature in a file and gives the certificate of who made it: `wanted`, where that is given.
///
/// # Errors
/// Every variant of [`Error`] but [`Error::Sign`].
pub fn verify(image: &[u8], wanted: Option<&Certificate>) -> Result<Certificate, Error> {
    let signed = parse(pe::signature(image)?.ok_or(Error::Unsigned)?)?;
    let content = signed.encap_content_info.econtent.as_ref();
    let content = content.filter(|_| signed.encap_content_info.econtent_type == INDIRECT_DATA);
    let content = content.filter(|content| content.tag() == Tag::Sequence);
    let content = content.ok_or(Error::Lacks { what: "content" })?;
    let digest = pe::authenticode_digest(image)?;
    let expected = [&CONTENT[DIGEST_INFO..], &digest.0].concat();
    if !content.value().ends_with(&expected) {
        let tail = content.value().len().saturating_sub(digest.0.len());
        let signed = super::super::digest::to_hex(content.value().get(tail..).unwrap_or_default());
        return Err(Error::Digest { found: digest, signed });
    }
    let [signer] = signed.signer_infos.0.as_slice() else { return Err(Error::Lacks { what: "signer" }) };
    if !is_of_sha256_and_rsa(&signed, signer)? {
        return Err(Error::Lacks { what: "pair of SHA-256 and RSA" });
    }
    let certificate =
        pkcs7::certificate_of(&signed, signer)?.ok_or(Error::Lacks { what: "certificate of its signer" })?;
    if let Some(wanted) = wanted.filter(|wanted| wanted.der() != certificate.der()) {
        return Err(Error::Signer { found: certificate.name(), wanted: wanted.name() });
    }
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, certificate.public_key());
    let message = attributes(signer, content)?;
    let verified = key.verify(&message, signer.signature.as_bytes());
    verified.map_err(|_| Error::Signature { name: certificate.name() })?;
    Ok(certificate)
}

fn parse(bytes: &[u8]) -> Result<SignedData, Error> {
    let mut reader = SliceReader::new(bytes)?;
    let info = ContentInfo::decode(&mut reader)?;
    let rest = reader.read_slice(reader.remaining_len())?;
    if info.content_type != pkcs7::SIGNED_DATA || rest.len() >= PADDING || rest.iter().any(|byte| *byte != 0)
    {
        return Err(Error::Lacks { what: "signed data" });
    }
    Ok(info.content.decode_as()?)
}

/// Firmware finds out by these fields how to check, so they have to say what was done although nothing signs them.
fn is_of_sha256_and_rsa(signed: &SignedData, signer: &SignerInfo) -> Result<bool, der::Error> {
    let (digest, signature) = (pkcs7::algorithm(pkcs7::SHA256)?, pkcs7::algorithm(pkcs7::RSA)?);
    Ok(signed.version == CmsVersion::V1
        && signed.digest_algorithms.as_slice() == [digest.clone()]
        && signer.version == CmsVersion::V1
        && signer.digest_alg == digest
        && signer.signature_algorithm == signature)
}

/// The signed attributes, as they are signed, when they are those of this content.
fn attributes(signer: &SignerInfo, content: &Any) -> Result<Vec<u8>, Error> {
    let attributes = signer.signed_attrs.as_ref().ok_or(Error::Lacks { what: "set of attributes" })?;
    let digest = OctetString::new(Sha256::of(&[content.value()]).0)?;
    for (what, oid, value) in [
        ("content type", pkcs7::CONTENT_TYPE, Any::encode_from(&INDIRECT_DATA)?),
        ("digest of its content", pkcs7::MESSAGE_DIGEST, Any::encode_from(&digest)?),
    ] {
        let mut found = attributes.iter().filter(|attribute| attribute.oid == oid);
        let holds = found.next().is_some_and(|attribute| attribute.values.as_slice() == [value]);
        if !holds || found.next().is_some() {
            return Err(Error::Lacks { what });
        }
    }
    Ok(attributes.to_der()?)
}
