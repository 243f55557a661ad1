//! What differs between machines of one architecture and the other: QEMU's boards, UEFI firmware, names of boot loaders.

use std::path::PathBuf;

use anyhow::Result;
use eci_contract::manifest::Architecture;

use crate::image;

/// Machines of an architecture.
#[derive(Debug)]
pub struct Platform {
    /// QEMU.
    pub qemu: &'static str,
    /// `-machine` and `-cpu` under TCG.
    pub board: [&'static str; 4],
    /// Folder of the firmware, and Debian's package that has it.
    pub firmware: (&'static str, &'static str),
    /// Firmware that boots whatever it finds.
    plain: &'static [&'static str],
    /// Firmware that can be made to boot signed programs alone. Names changed from Debian 12 to 13; the first that is there.
    secure: &'static [&'static str],
    /// Its empty variables.
    variables: &'static str,
    /// What keeps a running system from the variables of Secure Boot.
    pub guard: &'static [&'static str],
    /// The boot program that firmware finds by itself.
    pub boot_file: &'static str,
    /// systemd-boot.
    pub loader: &'static str,
    /// `-device` of what a CD drive is behind where such machines have one, and of a drive with drive `image`.
    pub cd_drive: [&'static str; 2],
}

/// A CD drive behind SCSI, as on every board.
pub const SCSI_CD_DRIVE: [&str; 2] = ["virtio-scsi-pci", "scsi-cd,drive=image"];

const X86_64: Platform = Platform {
    qemu: "qemu-system-x86_64",
    board: ["-machine", "q35", "-cpu", "max"],
    firmware: ("/usr/share/OVMF", "ovmf"),
    plain: &["OVMF_CODE_4M.fd"],
    secure: &["OVMF_CODE_4M.secboot.fd"],
    variables: "OVMF_VARS_4M.fd",
    // System Management Mode.
    guard: &["-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"],
    boot_file: "BOOTX64.EFI",
    loader: "systemd-bootx64.efi",
    // As the board has one itself, which `run` leaves out.
    cd_drive: ["ich9-ahci,id=ahci", "ide-cd,drive=image,bus=ahci.0"],
};

const AARCH64: Platform = Platform {
    qemu: "qemu-system-aarch64",
    board: ["-machine", "virt,gic-version=3", "-cpu", "max,pauth-impdef=on"],
    firmware: ("/usr/share/AAVMF", "qemu-efi-aarch64"),
    plain: &["AAVMF_CODE.no-secboot.fd", "AAVMF_CODE.fd"],
    secure: &["AAVMF_CODE.secboot.fd", "AAVMF_CODE.fd"],
    variables: "AAVMF_VARS.fd",
    // QEMU's board has no such mode: its Secure Boot is for tests.
    guard: &[],
    boot_file: "BOOTAA64.EFI",
    loader: "systemd-bootaa64.efi",
    cd_drive: SCSI_CD_DRIVE,
};

impl Platform {
    /// That of the image under test.
    ///
    /// # Errors
    /// When there is no image.
    pub fn of_image() -> Result<&'static Self> {
        Ok(match image::manifest(&image::out()?)?.architecture {
            Architecture::X86_64 => &X86_64,
            Architecture::Aarch64 => &AARCH64,
        })
    }

    /// Firmware that boots whatever it finds.
    #[must_use]
    pub fn plain_firmware(&self) -> PathBuf {
        self.first_of(self.plain)
    }

    /// Firmware that boots what its variables say may boot.
    #[must_use]
    pub fn secure_firmware(&self) -> PathBuf {
        self.first_of(self.secure)
    }

    /// Variables of firmware that nobody gave keys.
    #[must_use]
    pub fn empty_variables(&self) -> PathBuf {
        self.first_of(&[self.variables])
    }

    /// The first file that is there, the last otherwise, for the error to name.
    fn first_of(&self, names: &[&str]) -> PathBuf {
        let mut paths = names.iter().map(|name| PathBuf::from(self.firmware.0).join(name));
        let last = paths.next_back().unwrap_or_default();
        paths.find(|path| path.exists()).unwrap_or(last)
    }
}
