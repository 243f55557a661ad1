//! Platform configuration registers: nobody sets one, everybody can extend it, and its value tells all that was.
//!
//! Which register is for what: UAPI Group, "Linux TPM PCR Registry"
//! (<https://uapi-group.org/specifications/specs/linux_tpm_pcr_registry/>).

use std::fmt;

use ring::digest::{SHA256, digest};

/// Programs in the firmware that did not come with it: of option ROMs, and drivers that its settings name.
pub const DRIVERS: u32 = 2;
/// Programs that the firmware started.
pub const PROGRAMS: u32 = 4;
/// Command line and initramfs as they arrived at the kernel, which measures them before it uses them.
pub const KERNEL_INPUT: u32 = 9;
/// The parts of the unified kernel image, as its stub measures them, and then the phases of the boot.
pub const KERNEL_IMAGE: u32 = 11;
/// What else the stub gave to the kernel: another command line, credentials.
pub const KERNEL_ADDED: u32 = 12;
/// Extensions of the initramfs that lay beside the unified kernel image.
pub const EXTENSIONS: u32 = 13;
/// What runs: the root file system and the administrator's settings.
pub const SYSTEM: u32 = 15;
/// Registers that a quote is about: 0 to 15, which only a restart of the machine resets.
pub const QUOTED: u32 = 16;

/// Bytes of a SHA-256 digest.
pub const DIGEST_BYTES: usize = 32;

/// The value of a register in the bank of SHA-256.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Pcr(pub [u8; DIGEST_BYTES]);

impl Pcr {
    /// The value after this digest was added to it.
    #[must_use]
    pub fn extend(self, with: &[u8; DIGEST_BYTES]) -> Self {
        Self(sha256(&[self.0, *with].concat()))
    }

    /// The value after this data was measured into it.
    #[must_use]
    pub fn measure(self, data: &[u8]) -> Self {
        self.extend(&sha256(data))
    }
}

impl fmt::Display for Pcr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Pcr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// SHA-256 of these bytes.
#[must_use]
pub fn sha256(data: &[u8]) -> [u8; DIGEST_BYTES] {
    digest(&SHA256, data).as_ref().try_into().expect("invariant: SHA-256 gives 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_depends_on_what_was_measured_and_on_the_order() {
        // printf enter-initrd | openssl dgst -sha256 -binary >e; head -c32 /dev/zero | cat - e | openssl dgst -sha256
        let entered = Pcr::default().measure(b"enter-initrd");
        assert_eq!(entered.to_string(), "d15b0e8e244e65c40f024e95773f2347ce4ef3ffe6b597c9a14b50bbab6df319");
        assert_ne!(entered.measure(b"a").measure(b"b"), entered.measure(b"b").measure(b"a"));
    }
}
