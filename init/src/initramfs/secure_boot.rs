//! Whether the firmware enforces Secure Boot, so that the kernel has its keys to check the root hash with.
//!
//! The kernel says so, not the firmware's variables: to mount those, the kernel would need a file system by which a service that was
//! taken over could write them.

use std::io;
use std::path::Path;

/// Present where UEFI firmware booted the kernel.
const FIRMWARE: &str = "/sys/firmware/efi";

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
#[error("cannot read whether the firmware enforces Secure Boot: `{path}`")]
pub struct Error {
    path: &'static str,
    source: io::Error,
}

/// Asks the kernel. Where it does not know it counts as enforced, so that a root hash goes unchecked only where nobody wants the check.
///
/// # Errors
/// [`Error`].
pub fn is_enforced() -> Result<bool, Error> {
    if !Path::new(FIRMWARE).exists() {
        return Ok(false);
    }
    kernel::is_enforced()
}

#[cfg(target_arch = "x86_64")]
mod kernel {
    use std::fs;
    use std::io;

    use super::Error;

    /// The kernel's copy of `struct boot_params` (`Documentation/arch/x86/zero-page.rst`).
    const PATH: &str = "/sys/kernel/boot_params/data";
    /// Where `secure_boot` is in it.
    const AT: usize = 0x1ec;
    /// `efi_secureboot_mode_unset`: no EFI stub ran. `efi_secureboot_mode_disabled` (`include/linux/efi.h`).
    const NOT_ENFORCED: [u8; 2] = [0, 2];

    pub(super) fn is_enforced() -> Result<bool, Error> {
        let failed = |source| Error { path: PATH, source };
        let parameters = fs::read(PATH).map_err(failed)?;
        let mode = parameters.get(AT).ok_or_else(|| failed(io::ErrorKind::UnexpectedEof.into()))?;
        Ok(!NOT_ENFORCED.contains(mode))
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod kernel {
    use super::Error;
    use crate::kernel_log::KernelLog;

    const PATH: &str = "/dev/kmsg";
    /// How the line begins that the kernel writes when it takes the firmware's keys (`security/integrity/efi_secureboot.c`).
    const LINE: &str = "integrity: secureboot mode ";
    /// How it goes on where nothing is enforced: by the firmware's word, or because the firmware has no variables for a running
    /// system, and so no keys for the kernel.
    const NOT_ENFORCED: [&str; 2] = ["disabled", "unknown, no efi"];

    pub(super) fn is_enforced() -> Result<bool, Error> {
        let mut log = KernelLog::open().map_err(|source| Error { path: PATH, source })?;
        Ok(log.of_the_kernel().any(|text| says_enforced(&text)))
    }

    fn says_enforced(text: &str) -> bool {
        text.strip_prefix(LINE).is_some_and(|mode| !NOT_ENFORCED.contains(&mode))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_the_kernel_does_not_know_counts_as_enforced() {
            for (mode, enforced) in
                [("enabled", true), ("unknown", true), ("disabled", false), ("unknown, no efi", false)]
            {
                assert_eq!(says_enforced(&format!("{LINE}{mode}")), enforced, "{mode}");
            }
            assert!(!says_enforced("a service: integrity: secureboot mode enabled"));
        }
    }
}
