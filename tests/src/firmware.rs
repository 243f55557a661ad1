//! UEFI firmware for machines, from Debian's packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::platform::Platform;
use crate::qemu::Qemu;
use crate::{clients, image};

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
    /// When its package is not installed.
    pub fn plain() -> Result<Self> {
        let platform = Platform::of_image()?;
        Self::new(platform, platform.plain_firmware(), &platform.empty_variables(), &[])
    }

    /// Firmware that boots what its variables say may boot.
    ///
    /// # Errors
    /// When its package is not installed.
    pub fn secure(variables: &Path) -> Result<Self> {
        let platform = Platform::of_image()?;
        Self::new(platform, platform.secure_firmware(), variables, platform.guard)
    }

    /// Firmware in setup mode that was made to trust the keys in a folder of `eci-builder keygen`: systemd-boot, of the package
    /// that the stub is from, hands the firmware the three signed changes, and the firmware checks each.
    ///
    /// # Errors
    /// When the firmware does not take them.
    pub fn enrolled(keys: &Path) -> Result<Self> {
        let platform = Platform::of_image()?;
        let firmware = Self::secure(&platform.empty_variables())?;
        let disk = firmware.folder.path().join("disk");
        let (boot, enrol) = (disk.join("EFI/BOOT"), disk.join("loader/keys/auto"));
        fs::create_dir_all(&boot)?;
        fs::create_dir_all(&enrol)?;
        let package = firmware.folder.path().join("package");
        let target = image::manifest(&image::out()?)?.architecture;
        clients::unpack(&clients::locked_digest("packages.lock", "systemd-boot-efi", target)?, &package)?;
        let loader = package.join("usr/lib/systemd/boot/efi").join(platform.loader);
        fs::copy(loader, boot.join(platform.boot_file))?;
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

    fn new(
        platform: &Platform,
        code: PathBuf,
        variables: &Path,
        more: &'static [&'static str],
    ) -> Result<Self> {
        let firmware = Self { folder: tempfile::tempdir()?, code, more };
        let package = platform.firmware.1;
        fs::copy(variables, firmware.variables())
            .with_context(|| format!("cannot read {}; install {package}", variables.display()))?;
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
