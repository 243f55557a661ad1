//! From the bytes of a signature partition, or of two files, to a manifest that may be believed.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eci_contract::disk::SignaturePartition;
use eci_contract::manifest::{MAX_BYTES, Manifest, SCHEMA};
use eci_contract::paths;
use eci_contract::version::is_at_least;
use ring::signature::{ED25519, UnparsedPublicKey};

use super::disk::Disk;
use super::slot::{self, ARCHITECTURE, SlotPartitions};

/// Upper bound of what is read from a signature partition, in bytes: a manifest in base64, twice over, and a page.
const MAX_PARTITION_BYTES: u64 = 2 * (MAX_BYTES as u64) + 4096;

/// A manifest whose signature was checked.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The parsed manifest.
    pub manifest: Manifest,
    /// The bytes that were signed.
    pub bytes: Vec<u8>,
    /// The signature of its root hash that the kernel checks, base64: nobody else believes it, or has looked at it. Empty where there
    /// is none.
    pub root_hash_signature: String,
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
    /// It does not hold what it should; a partition what [`SignaturePartition`] says.
    #[error("{subject}: {what} is malformed")]
    Malformed {
        /// Partition or file.
        subject: String,
        /// Which part.
        what: &'static str,
    },
    /// Changed bytes, another key, or another manifest.
    #[error("{subject}: manifest signature does not verify with the image key")]
    Signature {
        /// Partition or file.
        subject: String,
    },
    /// The manifest is signed, but is not for this program or this disk.
    #[error("{subject}: signed manifest: {what} is `{found}`, expected `{expected}`")]
    Mismatch {
        /// Partition or file.
        subject: String,
        /// Which field.
        what: &'static str,
        /// What was found.
        found: String,
        /// What it has to be.
        expected: String,
    },
    /// The other slot's image says that nothing so old is to be booted any more.
    #[error("version {version} is older than {minimum}, the oldest that the image before it allows")]
    TooOld {
        /// The version of the chosen slot.
        version: String,
        /// The least.
        minimum: String,
    },
}

/// Reads the slot's signature partition and checks it with the key in the initramfs.
///
/// # Errors
/// When anything about it is not as it has to be.
pub fn verify(partitions: &SlotPartitions) -> Result<Verified, Error> {
    let (subject, verified) = read_signed(partitions)?;
    check_fields(&subject, &verified.manifest)?;
    check_partitions(&subject, partitions, &verified.manifest)?;
    Ok(verified)
}

/// Checks that the version is not older than the other slot's image lets any be. That image is asked when it booted well and its
/// signature holds: nobody gets around it by an image that is only on the disk.
///
/// # Errors
/// [`Error::TooOld`].
pub fn check_age(disk: &Disk, chosen: &SlotPartitions, manifest: &Manifest) -> Result<(), Error> {
    let other = slot::partitions(disk, chosen.slot.other()).ok().filter(|other| other.count.successful);
    let other = other.and_then(|other| read_signed(&other).ok());
    require(&manifest.version, other.and_then(|(_, other)| other.manifest.minimum_version))
}

fn require(version: &str, minimum: Option<String>) -> Result<(), Error> {
    match minimum {
        Some(minimum) if !is_at_least(version, &minimum) => {
            Err(Error::TooOld { version: version.to_owned(), minimum })
        }
        _ => Ok(()),
    }
}

/// What errors call a slot's signature partition, and what it says.
fn read_signed(partitions: &SlotPartitions) -> Result<(String, Verified), Error> {
    let key = read_key()?;
    let subject = format!("signature partition {}", partitions.signature.name);
    let bytes = read(&Path::new("/dev").join(&partitions.signature.device), &subject, MAX_PARTITION_BYTES)?;
    let verified = check_partition(&subject, &bytes, &key)?;
    Ok((subject, verified))
}

/// Reads a manifest and its signature from two files and checks them with the key in the root file system.
///
/// # Errors
/// When anything about them is not as it has to be.
pub fn verify_files(manifest: &'static str, signature: &'static str) -> Result<Verified, Error> {
    let key = read_key()?;
    let limit = MAX_BYTES as u64 + 1;
    let subject = format!("`{manifest}`");
    let signed = read(Path::new(manifest), &subject, limit)?;
    let signature = read(Path::new(signature), &format!("`{signature}`"), limit)?;
    let verified = believe(&subject, signed, &signature, &key)?;
    check_fields(&subject, &verified.manifest)?;
    Ok(verified)
}

fn read_key() -> Result<Vec<u8>, Error> {
    let key = std::fs::read(paths::IMAGE_KEY);
    key.map_err(|source| Error::Read { what: "the image key".to_owned(), source })
}

fn read(path: &Path, what: &str, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|source| Error::Read { what: what.to_owned(), source })?;
    Ok(bytes)
}

/// Checks the signature in a signature partition's bytes, and only then parses the manifest.
fn check_partition(subject: &str, bytes: &[u8], key: &[u8]) -> Result<Verified, Error> {
    let malformed = |what| Error::Malformed { subject: subject.to_owned(), what };
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = bytes.get(..end).unwrap_or_default();
    let outer: SignaturePartition = serde_json::from_slice(text).map_err(|_| malformed("its JSON"))?;
    let signature = STANDARD.decode(&outer.eci_manifest_signature).map_err(|_| malformed("the signature"))?;
    let signed = STANDARD.decode(&outer.eci_manifest).map_err(|_| malformed("the manifest"))?;
    let verified = believe(subject, signed, &signature, key)?;
    expect_equal(subject, "rootHash beside it", &outer.root_hash, &verified.manifest.root.root_hash)?;
    Ok(Verified { root_hash_signature: outer.signature, ..verified })
}

/// Signature first, and only then is the manifest parsed.
fn believe(subject: &str, signed: Vec<u8>, signature: &[u8], key: &[u8]) -> Result<Verified, Error> {
    let malformed = |what| Error::Malformed { subject: subject.to_owned(), what };
    if signed.len() > MAX_BYTES {
        return Err(malformed("the manifest"));
    }
    UnparsedPublicKey::new(&ED25519, key)
        .verify(&signed, signature)
        .map_err(|_| Error::Signature { subject: subject.to_owned() })?;
    let manifest: Manifest = serde_json::from_slice(&signed).map_err(|_| malformed("the signed manifest"))?;
    Ok(Verified { manifest, bytes: signed, root_hash_signature: String::new() })
}

/// Checks that a believed manifest is for this program.
fn check_fields(subject: &str, manifest: &Manifest) -> Result<(), Error> {
    let root = &manifest.root;
    expect_equal(subject, "schema", &manifest.schema.to_string(), &SCHEMA.to_string())?;
    expect_equal(subject, "architecture", manifest.architecture.as_str(), ARCHITECTURE.as_str())?;
    expect_equal(subject, "root hash length", &root.root_hash.len().to_string(), "64")?;
    expect_equal(subject, "file system", &root.filesystem, "erofs")?;
    expect_equal(subject, "hash algorithm", &root.algorithm, "sha256")?;
    expect_equal(subject, "data block size", &root.data_block_size.to_string(), "4096")?;
    expect_equal(subject, "hash block size", &root.hash_block_size.to_string(), "4096")
}

/// Checks that the partitions are those that a believed manifest speaks of.
fn check_partitions(subject: &str, partitions: &SlotPartitions, manifest: &Manifest) -> Result<(), Error> {
    let hash = &manifest.root.root_hash;
    let half = |range: std::ops::Range<usize>| hash.get(range).map(uuid_text).unwrap_or_default();
    expect_equal(subject, "root partition UUID", &partitions.root.uuid, &half(0..32))?;
    expect_equal(subject, "verity partition UUID", &partitions.verity.uuid, &half(32..64))
}

fn expect_equal(subject: &str, what: &'static str, found: &str, expected: &str) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    let (found, expected) = (found.to_owned(), expected.to_owned());
    Err(Error::Mismatch { subject: subject.to_owned(), what, found, expected })
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
            certificate_fingerprint: String::new(),
            signature: "for the kernel".into(),
            eci_manifest: STANDARD.encode(manifest),
            eci_manifest_signature: STANDARD.encode(signature),
        };
        [serde_json::to_vec(&outer).unwrap(), vec![0; 512]].concat()
    }

    fn check(bytes: &[u8]) -> Result<Verified, Error> {
        check_partition("signature partition eci-signature-a", bytes, pair(1).public_key().as_ref())
    }

    #[test]
    fn a_good_signature_gives_the_manifest() {
        let manifest = manifest();
        let signature = pair(1).sign(manifest.as_bytes());
        let verified = check(&partition(manifest.as_bytes(), signature.as_ref(), HASH)).unwrap();
        assert_eq!(verified.manifest.root.data_blocks, 9);
        assert_eq!(verified.bytes, manifest.as_bytes());
        assert_eq!(verified.root_hash_signature, "for the kernel");
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
    fn a_version_below_the_minimum_is_refused() {
        assert!(require("1.9", None).is_ok() && require("1.9", Some("1.9".into())).is_ok());
        let error = require("1.9", Some("1.10".into())).unwrap_err();
        let text = "version 1.9 is older than 1.10, the oldest that the image before it allows";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn fields_that_are_not_for_us_are_refused() {
        let slot = |uuid: &str| super::super::disk::Partition {
            device: String::new(),
            sectors: (0, 0),
            name: "p".into(),
            kind: String::new(),
            uuid: uuid.into(),
            boot: eci_contract::disk::BootCount::from_attributes(0),
        };
        let partitions = SlotPartitions {
            slot: eci_contract::disk::Slot::A,
            count: eci_contract::disk::BootCount::PROVEN,
            root: slot("00112233-4455-6677-8899-aabbccddeeff"),
            verity: slot("01234567-89ab-cdef-0123-456789abcdef"),
            signature: slot(""),
        };
        let good: Manifest = serde_json::from_str(&manifest()).unwrap();
        let check = |manifest: &Manifest| {
            check_fields("p", manifest).and_then(|()| check_partitions("p", &partitions, manifest))
        };
        assert!(check(&good).is_ok());
        let other =
            if ARCHITECTURE == Architecture::X86_64 { Architecture::Aarch64 } else { Architecture::X86_64 };
        let refused = |change: &dyn Fn(&mut Manifest)| {
            let mut manifest = good.clone();
            change(&mut manifest);
            check(&manifest).is_err()
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
