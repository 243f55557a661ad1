//! From the bytes of a signature partition to a manifest that may be believed.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eci_contract::disk::SignaturePartition;
use eci_contract::manifest::{MAX_BYTES, Manifest, SCHEMA};
use eci_contract::paths;
use ring::signature::{ED25519, UnparsedPublicKey};

use super::slot::{ARCHITECTURE, SlotPartitions};

/// Upper bound of what is read from a signature partition, in bytes: a manifest in base64, twice over, and a page.
const MAX_PARTITION_BYTES: u64 = 2 * (MAX_BYTES as u64) + 4096;

/// A manifest whose signature was checked.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The parsed manifest.
    pub manifest: Manifest,
    /// The bytes that were signed.
    pub bytes: Vec<u8>,
}

/// Why an image is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key or a partition could not be read.
    #[error("cannot read {what}")]
    Read {
        /// What was read.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The partition does not hold what [`SignaturePartition`] says.
    #[error("signature partition {partition}: {what} is malformed")]
    Malformed {
        /// Partition name.
        partition: String,
        /// Which part.
        what: &'static str,
    },
    /// Changed bytes, another key, or another manifest.
    #[error("signature partition {partition}: manifest signature does not verify with the image key")]
    Signature {
        /// Partition name.
        partition: String,
    },
    /// The manifest is signed, but is not for this program or this disk.
    #[error("signed manifest of partition {partition}: {what} is `{found}`, expected `{expected}`")]
    Mismatch {
        /// Partition name.
        partition: String,
        /// Which field.
        what: &'static str,
        /// What was found.
        found: String,
        /// What it has to be.
        expected: String,
    },
}

/// Reads the slot's signature partition and checks it with the key in the initramfs.
///
/// # Errors
/// When anything about it is not as it has to be.
pub fn verify(partitions: &SlotPartitions) -> Result<Verified, Error> {
    let read = |what: &str| {
        let what = what.to_owned();
        move |source| Error::Read { what, source }
    };
    let key = std::fs::read(paths::IMAGE_KEY).map_err(read("the image key"))?;
    let device = Path::new("/dev").join(&partitions.signature.device);
    let mut bytes = Vec::new();
    File::open(device)
        .and_then(|file| file.take(MAX_PARTITION_BYTES).read_to_end(&mut bytes))
        .map_err(read(&format!("signature partition {}", partitions.signature.name)))?;
    let verified = check_signature(&partitions.signature.name, &bytes, &key)?;
    check_fields(partitions, &verified.manifest)?;
    Ok(verified)
}

/// Checks the signature in a signature partition's bytes, and only then parses the manifest.
fn check_signature(partition: &str, bytes: &[u8], key: &[u8]) -> Result<Verified, Error> {
    let malformed = |what| Error::Malformed { partition: partition.to_owned(), what };
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = bytes.get(..end).unwrap_or_default();
    let outer: SignaturePartition = serde_json::from_slice(text).map_err(|_| malformed("its JSON"))?;
    let signature = STANDARD.decode(&outer.eci_manifest_signature).map_err(|_| malformed("the signature"))?;
    let signed = STANDARD.decode(&outer.eci_manifest).map_err(|_| malformed("the manifest"))?;
    if signed.len() > MAX_BYTES {
        return Err(malformed("the manifest"));
    }
    UnparsedPublicKey::new(&ED25519, key)
        .verify(&signed, &signature)
        .map_err(|_| Error::Signature { partition: partition.to_owned() })?;
    let manifest: Manifest = serde_json::from_slice(&signed).map_err(|_| malformed("the signed manifest"))?;
    expect_equal(partition, "rootHash beside it", &outer.root_hash, &manifest.root.root_hash)?;
    Ok(Verified { manifest, bytes: signed })
}

/// Checks that a believed manifest is for this program, and that the partitions are those it speaks of.
fn check_fields(partitions: &SlotPartitions, manifest: &Manifest) -> Result<(), Error> {
    let name = &partitions.signature.name;
    let root = &manifest.root;
    let hash = &root.root_hash;
    let half = |range: std::ops::Range<usize>| hash.get(range).map(uuid_text).unwrap_or_default();
    expect_equal(name, "schema", &manifest.schema.to_string(), &SCHEMA.to_string())?;
    expect_equal(name, "architecture", manifest.architecture.as_str(), ARCHITECTURE.as_str())?;
    expect_equal(name, "root hash length", &hash.len().to_string(), "64")?;
    expect_equal(name, "file system", &root.filesystem, "erofs")?;
    expect_equal(name, "hash algorithm", &root.algorithm, "sha256")?;
    expect_equal(name, "data block size", &root.data_block_size.to_string(), "4096")?;
    expect_equal(name, "hash block size", &root.hash_block_size.to_string(), "4096")?;
    expect_equal(name, "root partition UUID", &partitions.root.uuid, &half(0..32))?;
    expect_equal(name, "verity partition UUID", &partitions.verity.uuid, &half(32..64))
}

fn expect_equal(partition: &str, what: &'static str, found: &str, expected: &str) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    let (found, expected) = (found.to_owned(), expected.to_owned());
    Err(Error::Mismatch { partition: partition.to_owned(), what, found, expected })
}

/// 32 hexadecimal digits in the grouping of a UUID.
fn uuid_text(digits: &str) -> String {
    let mut text = String::with_capacity(36);
    for (index, digit) in digits.chars().enumerate() {
        if [8, 12, 16, 20].contains(&index) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use eci_contract::manifest::Architecture;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    const HASH: &str = "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef";

    fn manifest() -> String {
        format!(
            r#"{{"schema":1,"name":"eci","version":"1","architecture":"{}","flavour":"shipped",
            "root":{{"filesystem":"erofs","algorithm":"sha256","rootHash":"{HASH}","salt":"00",
            "dataBlockSize":4096,"hashBlockSize":4096,"dataBlocks":9,"hashStartBlock":1}},
            "kernel":{{"file":"vmlinuz","size":1,"sha256":""}},
            "initrd":{{"file":"initrd.img","size":1,"sha256":""}},
            "uki":{{"file":"eci.efi","authenticodeSha256":""}},"versions":{{}}}}"#,
            ARCHITECTURE.as_str()
        )
    }

    fn pair(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn partition(manifest: &[u8], signature: &[u8], hash: &str) -> Vec<u8> {
        let outer = SignaturePartition {
            root_hash: hash.into(),
            eci_manifest: STANDARD.encode(manifest),
            eci_manifest_signature: STANDARD.encode(signature),
        };
        [serde_json::to_vec(&outer).unwrap(), vec![0; 512]].concat()
    }

    fn check(bytes: &[u8]) -> Result<Verified, Error> {
        check_signature("eci-signature-a", bytes, pair(1).public_key().as_ref())
    }

    #[test]
    fn a_good_signature_gives_the_manifest() {
        let manifest = manifest();
        let signature = pair(1).sign(manifest.as_bytes());
        let verified = check(&partition(manifest.as_bytes(), signature.as_ref(), HASH)).unwrap();
        assert_eq!(verified.manifest.root.data_blocks, 9);
        assert_eq!(verified.bytes, manifest.as_bytes());
    }

    #[test]
    fn one_changed_byte_anywhere_is_refused() {
        let manifest = manifest();
        let signature = pair(1).sign(manifest.as_bytes());
        let changed = manifest.replace(r#""dataBlocks":9"#, r#""dataBlocks":8"#);
        let error = check(&partition(changed.as_bytes(), signature.as_ref(), HASH)).unwrap_err();
        let text =
            "signature partition eci-signature-a: manifest signature does not verify with the image key";
        assert_eq!(error.to_string(), text);
        let mut bytes = signature.as_ref().to_vec();
        bytes[10] ^= 1;
        let result = check(&partition(manifest.as_bytes(), &bytes, HASH));
        assert!(matches!(result, Err(Error::Signature { .. })));
        // As `eci-builder build --unsigned` leaves it.
        let result = check(&partition(manifest.as_bytes(), b"", HASH));
        assert!(matches!(result, Err(Error::Signature { .. })));
    }

    #[test]
    fn a_signature_by_another_key_is_refused() {
        let manifest = manifest();
        let signature = pair(2).sign(manifest.as_bytes());
        let result = check(&partition(manifest.as_bytes(), signature.as_ref(), HASH));
        assert!(matches!(result, Err(Error::Signature { .. })));
    }

    #[test]
    fn an_empty_or_foreign_partition_is_malformed() {
        for bytes in [&[0; 4096][..], b"", b"{}", b"not json"] {
            assert!(matches!(check(bytes), Err(Error::Malformed { what: "its JSON", .. })));
        }
    }

    #[test]
    fn another_root_hash_beside_the_manifest_is_refused() {
        let manifest = manifest();
        let signature = pair(1).sign(manifest.as_bytes());
        let result = check(&partition(manifest.as_bytes(), signature.as_ref(), "ff"));
        assert!(matches!(result, Err(Error::Mismatch { what: "rootHash beside it", .. })));
    }

    #[test]
    fn fields_that_are_not_for_us_are_refused() {
        let slot = |uuid: &str| super::super::disk::Partition {
            device: String::new(),
            name: "p".into(),
            kind: String::new(),
            uuid: uuid.into(),
            boot: eci_contract::disk::BootCount::from_attributes(0),
        };
        let partitions = SlotPartitions {
            root: slot("00112233-4455-6677-8899-aabbccddeeff"),
            verity: slot("01234567-89ab-cdef-0123-456789abcdef"),
            signature: slot(""),
        };
        let good: Manifest = serde_json::from_str(&manifest()).unwrap();
        assert!(check_fields(&partitions, &good).is_ok());
        let other =
            if ARCHITECTURE == Architecture::X86_64 { Architecture::Aarch64 } else { Architecture::X86_64 };
        let refused = |change: &dyn Fn(&mut Manifest)| {
            let mut manifest = good.clone();
            change(&mut manifest);
            check_fields(&partitions, &manifest).is_err()
        };
        assert!(refused(&|m| m.schema = 2));
        assert!(refused(&|m| m.architecture = other));
        assert!(refused(&|m| m.root.root_hash = "0".repeat(64)));
        assert!(refused(&|m| m.root.root_hash = "é".repeat(32)));
        assert!(refused(&|m| m.root.algorithm = "sha1".into()));
        assert!(refused(&|m| m.root.filesystem = "ext4".into()));
        assert!(refused(&|m| m.root.data_block_size = 512));
    }
}
