//! The signed manifest: what an image consists of, by digest.
//!
//! `manifest.json` is signed as the exact bytes on disk: `manifest.json.sig` holds the raw 64-byte Ed25519
//! signature (RFC 8032), so `openssl pkeyutl -verify -rawin` checks it as well as we do. Keys are PKCS#8 and
//! SubjectPublicKeyInfo PEM files on the host and 32 raw bytes in the initramfs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The schema number that this code reads and writes.
pub const SCHEMA: u32 = 1;

/// Upper bound on a manifest's size in bytes. Ours are under 8 KiB; a reader refuses anything larger.
pub const MAX_BYTES: usize = 64 * 1024;

/// Everything that makes up one image, by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Image name: `eci`, or `eci-test` for the test flavour.
    pub name: String,
    /// Image version, from `eci.toml`.
    pub version: String,
    /// Processor architecture.
    pub architecture: Architecture,
    /// What the image is for.
    pub flavour: Flavour,
    /// The oldest version that may be booted once this image has booted well ([`crate::version`]); any, where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_version: Option<String>,
    /// The root file system and its dm-verity tree.
    pub root: VerityRoot,
    /// Kernel image.
    pub kernel: Artifact,
    /// Initial RAM file system.
    pub initrd: Artifact,
    /// Unified kernel image: both of them in one program for UEFI, as it is on the EFI system partition.
    pub uki: UnifiedKernelImage,
    /// Versions a user asks for: `docker`, `containerd`, `crun`, `linux`.
    pub versions: BTreeMap<String, String>,
}

/// A processor architecture, spelled as `uname -m` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// x86-64.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl Architecture {
    /// The name that `uname -m` prints.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }
}

/// What an image is for. A verifier that was not told to accept test images refuses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flavour {
    /// The appliance that users run.
    Shipped,
    /// The appliance plus tools for the suites; another name and another signing key.
    Test,
}

/// A file next to the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Artifact {
    /// File name, without folders.
    pub file: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// A unified kernel image next to the manifest, by the digest that firmware checks and measures. The Secure Boot signature
/// in it is no part of that, so that image and manifest are signed independently of each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct UnifiedKernelImage {
    /// File name, without folders.
    pub file: String,
    /// SHA-256 as Authenticode computes it, 64 lower-case hexadecimal digits.
    pub authenticode_sha256: String,
    /// What a TPM measures when it is started; missing in images from before that was foretold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
}

/// What a machine with a TPM measures of a unified kernel image besides its own digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Measured {
    /// PCR 9 of the SHA-256 bank when the kernel has measured its command line and what the stub gives it as initial RAM file
    /// system, 64 lower-case hexadecimal digits.
    pub pcr9: String,
    /// PCR 11 of that bank when the stub has measured the parts and the kernel starts, 64 lower-case hexadecimal digits.
    pub pcr11: String,
    /// SHA-256 of the kernel within as Authenticode computes it, for the stub has the firmware start that as a program of its own.
    pub kernel_authenticode_sha256: String,
}

/// A dm-verity protected file system (hash format version 1, as `veritysetup` writes it).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VerityRoot {
    /// File system type of the data: `erofs`.
    pub filesystem: String,
    /// Hash algorithm: `sha256`.
    pub algorithm: String,
    /// Root hash, hexadecimal. Its first 128 bits are the root partition's UUID, its last the verity partition's.
    pub root_hash: String,
    /// Salt, hexadecimal.
    pub salt: String,
    /// Size of a data block in bytes: 4096.
    pub data_block_size: u32,
    /// Size of a hash block in bytes: 4096.
    pub hash_block_size: u32,
    /// Number of data blocks that the tree covers.
    pub data_blocks: u64,
    /// First block of the tree in the verity partition, in hash blocks. Block 0 is the superblock.
    pub hash_start_block: u64,
}
