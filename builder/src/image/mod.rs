//! From a root file system, a kernel and an initrd to the artifacts of a release.

pub mod apple;
pub mod assemble;
pub mod diff;
pub mod digest;
pub mod disk;
pub mod esp;
pub mod formats;
pub mod inspect;
pub mod iso;
pub mod manifest;
pub mod oci;
pub mod provenance;
pub mod region;
pub mod sbom;
pub mod secure_boot;
pub mod sign;
pub mod signature;
pub mod signature_partition;
pub mod sums;
pub mod token;
pub mod uki;
pub mod verify;
pub mod verity;
pub mod vulnerabilities;
pub mod wsl;

use uuid::Uuid;

/// A UUID (version 8) that depends on `purpose` and `content` alone.
#[must_use]
pub fn content_uuid(purpose: &str, content: &[u8]) -> Uuid {
    let digest = digest::Sha256::of(&[purpose.as_bytes(), content]);
    let first: [u8; 16] = digest.0[..16].try_into().expect("a digest has more than 16 bytes");
    uuid::Builder::from_custom_bytes(first).into_uuid()
}
