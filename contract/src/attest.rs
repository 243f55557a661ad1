//! What a machine with a TPM measures of itself, and the evidence that it gives of that (`eci-builder attest`).
//!
//! The firmware measures what it starts, the stub in `eci.efi` the parts of that into PCR 11 (UAPI.7, Linux TPM PCR Registry). PID 1
//! goes on with the phases of the boot, in systemd's words, and says in PCR 15 what runs. Every measurement of ours is a word
//! or line of text, and the SHA-256 digest of its bytes is what the register of that bank is extended by.

use serde::{Deserialize, Serialize};

/// Version of [`Evidence`].
pub const VERSION: u32 = 1;
/// Most bytes of a nonce (`TPM2B_DATA` with room for a SHA-512 digest).
pub const MAX_NONCE_BYTES: usize = 64;

/// Phases of a boot that got its engine ready, in order: what systemd's `systemd-pcrphase` calls them.
pub const PHASES: [&str; 4] = [ENTER_INITRD, LEAVE_INITRD, SYSINIT, READY];
/// PID 1 of the initramfs has started.
pub const ENTER_INITRD: &str = "enter-initrd";
/// The root is verified and mounted.
pub const LEAVE_INITRD: &str = "leave-initrd";
/// Everything is decided that the engine starts with, and nothing of it has started.
pub const SYSINIT: &str = "sysinit";
/// The engine answers, and every promise was read back. Nothing but PID 1 has the TPM when that can be measured.
pub const READY: &str = "ready";

/// The measurement, after that of the settings, of a machine whose containers are not isolated.
pub const ISOLATION_OFF: &str = "isolation:off";

/// What a machine without a TPM answers.
pub const NO_TPM: &str = "the machine has no TPM 2.0";

/// The measurement of the root file system, by its dm-verity root hash in hexadecimal.
#[must_use]
pub fn root(root_hash: &str) -> String {
    format!("root:{root_hash}")
}

/// The measurement of the administrator's settings, by the SHA-256 of the file in hexadecimal.
#[must_use]
pub fn settings(sha256: &str) -> String {
    format!("settings:{sha256}")
}

/// One measurement of PID 1's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Measurement {
    /// The register.
    pub pcr: u32,
    /// What was measured.
    pub text: String,
}

/// What a machine gives to whoever asks what it booted. Only the quote is to be believed, and that as far as its key is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Evidence {
    /// [`VERSION`].
    pub version: u32,
    /// The question, hexadecimal.
    pub nonce: String,
    /// Public half of the attestation key (`TPMT_PUBLIC`), base64.
    pub key: String,
    /// What it signed (`TPMS_ATTEST`), base64.
    pub attested: String,
    /// The signature (`TPMT_SIGNATURE`), base64.
    pub signature: String,
    /// PCRs 0 to 15 of the SHA-256 bank, hexadecimal.
    pub pcrs: Vec<String>,
    /// The firmware's event log as the kernel gives it, base64; empty where the firmware measures nothing.
    pub firmware_log: String,
    /// What PID 1 measured, in order.
    pub measured: Vec<Measurement>,
}
