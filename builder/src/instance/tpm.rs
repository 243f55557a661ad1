//! A machine that measures its boot: UEFI firmware in place of QEMU's direct boot, and swtpm as its TPM 2.0.
//!
//! The firmware's variables and the chip's state are the instance's: a TPM is the same one for as long as the instance is there.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;

use eci_contract::manifest::Architecture;

use super::home::Home;
use super::machine::Measured;
use crate::tool;

/// The program that is the TPM, and Debian's package that has it.
pub const PROGRAM: &str = "swtpm";

/// Why there is no such machine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The firmware is not installed.
    #[error("there is no UEFI firmware for {architecture} machines: none of {places}")]
    NoFirmware {
        /// Of which machines.
        architecture: &'static str,
        /// Where it was looked for.
        places: String,
        /// Debian's package that has it.
        package: &'static str,
    },
    /// swtpm is not installed.
    #[error(transparent)]
    NoTpm(#[from] tool::Error),
    /// A file of the instance cannot be made.
    #[error("cannot {operation} `{}`", .path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoFirmware { package, .. } => Some(format!("apt-get install {package}")),
            Self::NoTpm(_) => Some(format!("apt-get install {PROGRAM}")),
            Self::File { .. } => None,
        }
    }
}

/// Firmware as Debian and Ubuntu install it: places of its code, of empty variables for it, and the package.
struct Firmware {
    code: &'static [&'static str],
    variables: &'static str,
    package: &'static str,
}

fn firmware(architecture: Architecture) -> Firmware {
    match architecture {
        Architecture::X86_64 => Firmware {
            code: &["/usr/share/OVMF/OVMF_CODE_4M.fd"],
            variables: "/usr/share/OVMF/OVMF_VARS_4M.fd",
            package: "ovmf",
        },
        Architecture::Aarch64 => Firmware {
            code: &["/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "/usr/share/AAVMF/AAVMF_CODE.fd"],
            variables: "/usr/share/AAVMF/AAVMF_VARS.fd",
            package: "qemu-efi-aarch64",
        },
    }
}

/// What QEMU has to know of it; makes nothing.
///
/// # Errors
/// [`Error`] when firmware or swtpm are not installed.
pub fn plan(home: &Home, architecture: Architecture) -> Result<Measured, Error> {
    tool::require(PROGRAM)?;
    let Firmware { code, package, .. } = firmware(architecture);
    let found = code.iter().map(PathBuf::from).find(|path| path.is_file());
    let missing =
        || Error::NoFirmware { architecture: architecture.as_str(), places: code.join(", "), package };
    Ok(Measured {
        firmware: found.ok_or_else(missing)?,
        variables: home.firmware_variables(),
        tpm_socket: home.tpm_socket(),
    })
}

/// Makes the firmware's variables and the folder of the TPM's state where the instance has none.
///
/// # Errors
/// [`Error::File`].
pub fn prepare(home: &Home, architecture: Architecture) -> Result<(), Error> {
    let failed = |operation, path: PathBuf| move |source| Error::File { operation, path, source };
    let state = home.tpm_state();
    fs::create_dir_all(&state).map_err(failed("make", state))?;
    let variables = home.firmware_variables();
    if variables.exists() {
        return Ok(());
    }
    // Cut off, it would not be firmware's variables.
    let beside = variables.with_extension("new");
    let empty = PathBuf::from(firmware(architecture).variables);
    fs::copy(&empty, &beside).map_err(failed("copy", empty))?;
    fs::rename(&beside, &variables).map_err(failed("make", variables))
}

/// The arguments of swtpm, which is started in the instance's folder: a comma in that folder's path would end an option.
#[must_use]
pub fn arguments(home: &Home) -> Vec<OsString> {
    let state = home.tpm_state();
    let state = format!("dir={},mode=0600", state.file_name().unwrap_or_default().to_string_lossy());
    // Its standard input is the socket that it listens on. It ends with QEMU's connection.
    let words = ["socket", "--tpm2", "--terminate", "--tpmstate", &state, "--ctrl", "type=unixio,fd=0"];
    words.map(OsString::from).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swtpm_is_told_names_within_the_instance_s_folder() {
        let home = Home::under(std::path::Path::new("/s,mode=0666"), "x").expect("legal");
        let shown = arguments(&home).join(" ".as_ref()).into_string().expect("text");
        assert_eq!(shown, "socket --tpm2 --terminate --tpmstate dir=tpm,mode=0600 --ctrl type=unixio,fd=0");
    }

    #[test]
    fn variables_are_made_once_and_kept() {
        let state = tempfile::tempdir().expect("temporary folder");
        let home = Home::under(state.path(), "x").expect("legal");
        home.create().expect("made");
        fs::write(home.firmware_variables(), "changed by the firmware").expect("written");
        prepare(&home, Architecture::X86_64).expect("prepared");
        assert_eq!(fs::read(home.firmware_variables()).expect("read"), b"changed by the firmware");
        assert!(home.tpm_state().is_dir());
    }
}
