//! QEMU without `eci-builder run` in between, for disks and command lines that `run` would refuse.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::vm::{keep_console, tail};

/// A machine under TCG whose console goes to a file.
pub struct Qemu {
    name: String,
    child: Child,
    folder: tempfile::TempDir,
}

/// How a boot went.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// The text that was waited for appeared.
    Seen,
    /// QEMU ended by itself.
    Ended,
}

impl Qemu {
    /// Starts a machine with the kernel and initrd of `out`, these `-drive` definitions, and more arguments.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn start(name: &str, out: &Path, drives: &[String], more: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("eci-qemu-").tempdir()?;
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "1G", "-smp", "2"])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .args(["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"])
            .arg("-serial")
            .arg(format!("file:{}", folder.path().join("console").display()))
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", folder.path().join("qmp").display()))
            .arg("-kernel")
            .arg(out.join("vmlinuz"))
            .arg("-initrd")
            .arg(out.join("initrd.img"));
        for (index, drive) in drives.iter().enumerate() {
            command.arg("-drive").arg(format!("if=none,id=d{index},{drive}"));
            let serial = if index == 1 { ",serial=eci-data" } else { "" };
            command.arg("-device").arg(format!("virtio-blk-pci,drive=d{index}{serial}"));
        }
        command.args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("cannot start qemu-system-x86_64")?;
        Ok(Self { name: name.to_owned(), child, folder })
    }

    /// Everything on the console so far.
    #[must_use]
    pub fn console(&self) -> String {
        fs::read(self.folder.path().join("console"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The QMP socket.
    #[must_use]
    pub fn monitor(&self) -> PathBuf {
        self.folder.path().join("qmp")
    }

    /// Waits until `text` is on the console or QEMU ends.
    ///
    /// # Errors
    /// With the console's end when neither happens in time.
    pub fn wait_for(&mut self, text: &str, deadline: Duration) -> Result<Ending> {
        let started = Instant::now();
        while started.elapsed() < deadline {
            if self.console().contains(text) {
                return Ok(Ending::Seen);
            }
            if self.child.try_wait()?.is_some() {
                return Ok(if self.console().contains(text) { Ending::Seen } else { Ending::Ended });
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!(
            "{}: neither `{text}` nor the end within {deadline:?}; console:\n{}",
            self.name,
            tail(&self.console())
        )
    }

    /// Waits until QEMU ends by itself.
    ///
    /// # Errors
    /// With the console's end when it does not in time.
    pub fn wait_for_end(&mut self, deadline: Duration) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < deadline {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!("{}: still running after {deadline:?}; console:\n{}", self.name, tail(&self.console()))
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        keep_console(&self.name, &self.console());
        // Already ended is fine.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
