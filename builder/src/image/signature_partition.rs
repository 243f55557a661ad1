//! What the signature partition of a slot says: the signed manifest, beside the signed root hash, as JSON padded with NULs.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eci_contract::disk::SignaturePartition;

use super::region::Region;

/// More than the largest manifest takes in base64, with its signature and the JSON around them.
const MAX_BYTES: u64 = 128 * 1024;

/// Why a signature partition cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The partition cannot be read.
    #[error("cannot read the signature partition")]
    Read(#[from] io::Error),
    /// Its text is not of the schema.
    #[error("the signature partition does not follow its schema")]
    Schema(#[from] serde_json::Error),
    /// A field is not base64.
    #[error("the signature partition's {field} is not base64")]
    Base64 {
        /// Name of the field.
        field: &'static str,
    },
    /// Something follows the text.
    #[error("the signature partition has other bytes than NULs after its text")]
    Padding,
}

/// The signed manifest of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Root hash as the partition says it, for other tools; to be compared with the manifest's.
    pub root_hash: String,
    /// Whose signature of it follows: the certificate's digest.
    pub fingerprint: String,
    /// The root hash's signature ([`root_hash`](super::secure_boot::root_hash)).
    pub root_hash_signature: Vec<u8>,
    /// The exact bytes of the manifest.
    pub manifest: Vec<u8>,
    /// Their signature.
    pub signature: Vec<u8>,
}

/// The text of the partition; NULs follow it to the partition's end.
#[must_use]
pub fn to_bytes(signed: &Signed) -> Vec<u8> {
    let partition = SignaturePartition {
        root_hash: signed.root_hash.clone(),
        certificate_fingerprint: signed.fingerprint.clone(),
        signature: STANDARD.encode(&signed.root_hash_signature),
        eci_manifest: STANDARD.encode(&signed.manifest),
        eci_manifest_signature: STANDARD.encode(&signed.signature),
    };
    serde_json::to_vec(&partition).expect("strings are JSON")
}

/// Reads the partition; `None` where it is empty, as in a slot without an image.
///
/// # Errors
/// [`Error`].
pub fn read(partition: Region<'_>) -> Result<Option<Signed>, Error> {
    let head = partition.first(MAX_BYTES);
    let mut bytes = vec![0; usize::try_from(head.length()).map_err(io::Error::other)?];
    head.read_exact_at(&mut bytes, 0)?;
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (text, padding) = bytes.split_at(end);
    if padding.iter().any(|byte| *byte != 0) {
        return Err(Error::Padding);
    }
    if text.is_empty() {
        return Ok(None);
    }
    let partition: SignaturePartition = serde_json::from_slice(text)?;
    let decode = |field, text: &str| STANDARD.decode(text).map_err(|_| Error::Base64 { field });
    Ok(Some(Signed {
        manifest: decode("eciManifest", &partition.eci_manifest)?,
        signature: decode("eciManifestSignature", &partition.eci_manifest_signature)?,
        root_hash_signature: decode("signature", &partition.signature)?,
        root_hash: partition.root_hash,
        fingerprint: partition.certificate_fingerprint,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn parse(text: &[u8]) -> Result<Option<Signed>, Error> {
        let mut file = tempfile::tempfile().expect("temporary file");
        file.write_all(text).expect("written");
        file.set_len(1 << 20).expect("padded");
        read(Region::whole(&file).expect("size"))
    }

    fn signed(manifest: Vec<u8>) -> Signed {
        let (root_hash, fingerprint) = ("0".repeat(64), "1".repeat(64));
        Signed {
            root_hash,
            fingerprint,
            root_hash_signature: vec![9; 2048],
            manifest,
            signature: vec![7; 64],
        }
    }

    #[test]
    fn reads_back_what_it_wrote() {
        let signed = signed(b"{}\n".to_vec());
        assert_eq!(parse(&to_bytes(&signed)).expect("our own"), Some(signed));
        assert_eq!(parse(b"").expect("an empty slot"), None);
    }

    #[test]
    fn the_largest_manifest_has_room() {
        let signed = signed(vec![b'x'; eci_contract::manifest::MAX_BYTES]);
        assert_eq!(parse(&to_bytes(&signed)).expect("our own"), Some(signed));
    }

    #[test]
    fn garbage_is_refused() {
        for (text, message) in [
            (&b"garbage"[..], "the signature partition does not follow its schema"),
            (b"{}", "the signature partition does not follow its schema"),
            (b"{}\0\0x", "the signature partition has other bytes than NULs after its text"),
            (
                br#"{"rootHash":"","certificateFingerprint":"","signature":"","eciManifest":"%","eciManifestSignature":""}"#,
                "the signature partition's eciManifest is not base64",
            ),
        ] {
            assert_eq!(parse(text).expect_err(message).to_string(), message);
        }
    }
}
