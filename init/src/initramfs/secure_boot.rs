//! Whether the firmware enforces Secure Boot, so that the kernel has its keys to check the root hash with.
//!
//! The kernel says so, not the firmware's variables: to mount those, the kernel would need a file system by which a service that was
//! taken over could write them.

use std::io;
use std::path::Path;

use crate::kernel_log::KernelLog;

/// Present where UEFI firmware booted the kernel.
const FIRMWARE: &str = "/sys/firmware/efi";
/// The kernel's copy of `struct boot_params` (`Documentation/arch/x86/zero-page.rst`), on x86-64 alone.
const BOOT_PARAMS: &str = "/sys/kernel/boot_params/data";
/// Where `secure_boot` is in it, and the value of which firmware boots whatever it finds (`enum efi_secureboot_mode`).
const SECURE_BOOT_AT: usize = 0x1ec;
const DISABLED: u8 = 2;
/// Where the kernel tells it in words.
const LOG: &str = "/dev/kmsg";
/// How the lines begin: of Debian's kernel when it takes the EFI stub's word (`drivers/firmware/efi/secureboot.c`), and of every kernel when
/// it takes the firmware's keys (`security/integrity/efi_secureboot.c`).
const LINES: [&str; 2] = ["secureboot: Secure boot ", "integrity: secureboot mode "];
/// How they go on where nothing is enforced; in the last case the firmware has no variables for a running system, and so no keys for the
/// kernel.
const NOT_ENFORCED: [&str; 2] = ["disabled", "unknown, no efi"];

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
#[error("cannot read whether the firmware enforces Secure Boot: `{path}`")]
pub struct Error {
    path: &'static str,
    source: io::Error,
}

/// Asks the kernel. `None` where it has not said: before anything else has written to the log that is as good as enforced, so that a
/// root hash goes unchecked only where nobody wants the check.
///
/// # Errors
/// [`Error`].
pub fn is_enforced() -> Result<Option<bool>, Error> {
    if !Path::new(FIRMWARE).exists() {
        return Ok(Some(false));
    }
    match std::fs::read(BOOT_PARAMS) {
        Ok(parameters) => Ok(Some(by_parameters(&parameters))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut log = KernelLog::open().map_err(|source| Error { path: LOG, source })?;
            Ok(by_log(log.of_the_kernel()))
        }
        Err(source) => Err(Error { path: BOOT_PARAMS, source }),
    }
}

/// What is not said to be off is on.
fn by_parameters(parameters: &[u8]) -> bool {
    parameters.get(SECURE_BOOT_AT) != Some(&DISABLED)
}

fn by_log(texts: impl Iterator<Item = String>) -> Option<bool> {
    let modes = texts.filter_map(|text| {
        let mode = LINES.iter().find_map(|line| text.strip_prefix(line))?;
        Some(!NOT_ENFORCED.contains(&mode))
    });
    modes.reduce(|one, other| one || other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_that_say_so_switch_the_check_off() {
        for (mode, enforced) in [(0, true), (1, true), (2, false), (3, true), (9, true)] {
            let mut parameters = vec![0; 4096];
            parameters[0x1ec] = mode;
            assert_eq!(by_parameters(&parameters), enforced, "{mode}");
        }
        assert!(by_parameters(&[]));
    }

    #[test]
    fn only_a_log_that_says_so_switches_the_check_off() {
        let says = |lines: &[&str]| by_log(lines.iter().map(|line| (*line).to_owned()));
        for (mode, enforced) in
            [("enabled", true), ("unknown", true), ("disabled", false), ("unknown, no efi", false)]
        {
            let line = format!("integrity: secureboot mode {mode}");
            assert_eq!(says(&["Linux", &line, "more"]), Some(enforced), "{mode}");
        }
        assert_eq!(says(&["secureboot: Secure boot disabled"]), Some(false));
        assert_eq!(says(&["secureboot: Secure boot could not be determined (mode 1)"]), Some(true));
        let both = ["secureboot: Secure boot enabled", "integrity: secureboot mode unknown, no efi"];
        assert_eq!(says(&both), Some(true));
        assert_eq!(says(&["a service: secureboot: Secure boot enabled"]), None);
        assert_eq!(says(&[]), None);
    }
}
