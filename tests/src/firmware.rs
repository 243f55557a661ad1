//! UEFI firmware for machines: OVMF, from Debian's package `ovmf`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Folder of the package.
const FOLDER: &str = "/usr/share/OVMF";

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
