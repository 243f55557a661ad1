//! UEFI firmware for machines: OVMF, from Debian's package `ovmf`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::clients;
use crate::qemu::Qemu;

/// Folder of the package.
const FOLDER: &str = "/usr/share/OVMF";

/// System Management Mode, without which nothing would keep a running system from the variables.
const SECURE: [&str; 4] = ["-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"];
/// Firmware, boot loader and a restart, without KVM.
const ENROL_DEADLINE: Duration = Duration::from_secs(180);

/// Firmware with variables of its own, which a machine may write.
pub struct Firmware {
    folder: tempfile::TempDir,
    code: PathBuf,
    more: &'static [&'static str],
}

impl Firmware {
    /// Firmware that boots whatever it finds.
    ///
    /// # Errors
    /// When package `ovmf` is not installed.
    pub fn plain() -> Result<Self> {
        Self::new("OVMF_CODE_4M.fd", &Path::new(FOLDER).join("OVMF_VARS_4M.fd"), &[])
    }

    /// Firmware that boots what its variables say may boot.
    ///
    /// # Errors
    /// When package `ovmf` is not installed.
    pub fn secure(variables: &Path) -> Result<Self> {
        Self::new("OVMF_CODE_4M.secboot.fd", variables, &SECURE)
    }

    /// Firmware in setup mode that was made to trust the keys in a folder of `eci-builder keygen`: systemd-boot, of the package
    /// that the stub is from, hands the firmware the three signed changes, and the firmware checks each.
    ///
    /// # Errors
    /// When the firmware does not take them.
    pub fn enrolled(keys: &Path) -> Result<Self> {
        let firmware = Self::secure(&Path::new(FOLDER).join("OVMF_VARS_4M.fd"))?;
        let disk = firmware.folder.path().join("disk");
        let (boot, enrol) = (disk.join("EFI/BOOT"), disk.join("loader/keys/auto"));
        fs::create_dir_all(&boot)?;
        fs::create_dir_all(&enrol)?;
        let package = firmware.folder.path().join("package");
        clients::unpack(&clients::locked_digest("packages.lock", "systemd-boot-efi")?, &package)?;
        let loader = package.join("usr/lib/systemd/boot/efi/systemd-bootx64.efi");
        fs::copy(loader, boot.join("BOOTX64.EFI"))?;
        fs::write(disk.join("loader/loader.conf"), "timeout 0\nsecure-boot-enroll force\n")?;
        for name in ["PK.auth", "KEK.auth", "db.auth"] {
            let from = keys.join(name);
            fs::copy(&from, enrol.join(name))
                .with_context(|| format!("cannot read {}; scripts/test builds an image", from.display()))?;
        }
        let drive = format!("file=fat:{},format=raw,readonly=on", disk.display());
        let mut qemu = Qemu::start_firmware(&firmware, "formats-enrol", &[drive], &[])?;
        qemu.wait_for_end(ENROL_DEADLINE)?;
        let console = qemu.console();
        ensure!(console.contains("Enrolling secure boot keys"), "nothing was enrolled:\n{console}");
        Ok(firmware)
    }

    fn new(code: &str, variables: &Path, more: &'static [&'static str]) -> Result<Self> {
        let firmware = Self { folder: tempfile::tempdir()?, code: Path::new(FOLDER).join(code), more };
        let copied = fs::copy(variables, firmware.variables());
        copied.with_context(|| format!("cannot read {}; install ovmf", variables.display()))?;
        Ok(firmware)
    }

    /// The file of its variables.
    #[must_use]
    pub fn variables(&self) -> PathBuf {
        self.folder.path().join("variables")
    }

    /// QEMU's arguments.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let flash = |unit: u32, more: &str, file: &Path| {
            format!("if=pflash,format=raw,unit={unit}{more},file={}", file.display())
        };
        let (code, variables) = (flash(0, ",readonly=on", &self.code), flash(1, "", &self.variables()));
        let own = ["-drive", &code, "-drive", &variables];
        own.into_iter().chain(self.more.iter().copied()).map(str::to_owned).collect()
    }
}
