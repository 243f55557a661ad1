//! PKCS #7 signed data (RFC 5652) with one signer and SHA-256, as firmware and the kernel take it.

use std::ops::RangeInclusive;

use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{
    CertificateSet, EncapsulatedContentInfo, SignedAttributes, SignedData, SignerIdentifier, SignerInfo,
    SignerInfos,
};
use der::asn1::{Null, ObjectIdentifier, OctetString, SetOfVec};
use der::{Any, Encode};
use x509_cert::attr::Attribute;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::super::digest::Sha256;
use super::Certificate;

/// `id-data` and `id-signedData`.
pub(super) const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
pub(super) const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
/// `id-sha256` and `rsaEncryption`, `id-contentType` and `id-messageDigest`.
pub(super) const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
pub(super) const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
pub(super) const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
pub(super) const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");

/// Bytes of an RSA signature of 2048 to 4096 bits. PKCS #7 with a certificate in it is longer.
pub(super) const RSA_BYTES: RangeInclusive<usize> = 256..=512;

/// What stands for content that goes along and is signed in its place, as the DER of this set: its type and its digest.
///
/// # Errors
/// When it cannot be written as DER.
pub(super) fn attributes(kind: ObjectIdentifier, content: &Any) -> Result<SignedAttributes, der::Error> {
    let digest = OctetString::new(Sha256::of(&[content.value()]).0)?;
    SetOfVec::try_from(vec![
        attribute(CONTENT_TYPE, Any::encode_from(&kind)?)?,
        attribute(MESSAGE_DIGEST, Any::encode_from(&digest)?)?,
    ])
}

/// Content with the signature of its [`attributes`].
///
/// # Errors
/// When it cannot be written as DER.
pub(super) fn around(
    kind: ObjectIdentifier,
    content: Any,
    signature: &[u8],
    certificate: &Certificate,
) -> Result<SignedData, der::Error> {
    let attributes = attributes(kind, &content)?;
    let content = EncapsulatedContentInfo { econtent_type: kind, econtent: Some(content) };
    signed_data(content, Some(attributes), signature, certificate)
}

/// The signature of something that does not go along.
///
/// # Errors
/// When it cannot be written as DER.
pub(super) fn detached(signature: &[u8], certificate: &Certificate) -> Result<SignedData, der::Error> {
    let content = EncapsulatedContentInfo { econtent_type: DATA, econtent: None };
    signed_data(content, None, signature, certificate)
}

/// Signed data as a message of its own, in DER.
///
/// # Errors
/// When it cannot be written as DER.
pub(super) fn to_der(signed: &SignedData) -> Result<Vec<u8>, der::Error> {
    ContentInfo { content_type: SIGNED_DATA, content: Any::encode_from(signed)? }.to_der()
}

/// The one certificate of the signer that goes along, if there is one.
///
/// # Errors
/// When it cannot be written as DER.
pub(super) fn certificate_of(
    signed: &SignedData,
    signer: &SignerInfo,
) -> Result<Option<Certificate>, der::Error> {
    let SignerIdentifier::IssuerAndSerialNumber(by) = &signer.sid else { return Ok(None) };
    let certificates = signed.certificates.iter().flat_map(|set| set.0.iter());
    let mut found = certificates.filter_map(|choice| match choice {
        CertificateChoices::Certificate(certificate) => {
            let of = &certificate.tbs_certificate;
            (of.issuer == by.issuer && of.serial_number == by.serial_number).then_some(certificate)
        }
        CertificateChoices::Other(_) => None,
    });
    match (found.next(), found.next()) {
        (Some(only), None) => Certificate::from_parsed(only).map(Some),
        _ => Ok(None),
    }
}

fn signed_data(
    encap_content_info: EncapsulatedContentInfo,
    signed_attrs: Option<SignedAttributes>,
    signature: &[u8],
    certificate: &Certificate,
) -> Result<SignedData, der::Error> {
    let certificate = certificate.parsed();
    let of = &certificate.tbs_certificate;
    let by = IssuerAndSerialNumber { issuer: of.issuer.clone(), serial_number: of.serial_number.clone() };
    let info = SignerInfo {
        version: CmsVersion::V1,
        sid: SignerIdentifier::IssuerAndSerialNumber(by),
        digest_alg: algorithm(SHA256)?,
        signed_attrs,
        signature_algorithm: algorithm(RSA)?,
        signature: OctetString::new(signature)?,
        unsigned_attrs: None,
    };
    let certificates = vec![CertificateChoices::Certificate(certificate.clone())];
    Ok(SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::try_from(vec![algorithm(SHA256)?])?,
        encap_content_info,
        certificates: Some(CertificateSet(SetOfVec::try_from(certificates)?)),
        crls: None,
        signer_infos: SignerInfos(SetOfVec::try_from(vec![info])?),
    })
}

fn attribute(oid: ObjectIdentifier, value: Any) -> Result<Attribute, der::Error> {
    Ok(Attribute { oid, values: SetOfVec::try_from(vec![value])? })
}

/// With the empty parameters that firmware expects to be there.
pub(super) fn algorithm(oid: ObjectIdentifier) -> Result<AlgorithmIdentifierOwned, der::Error> {
    Ok(AlgorithmIdentifierOwned { oid, parameters: Some(Any::encode_from(&Null)?) })
}
