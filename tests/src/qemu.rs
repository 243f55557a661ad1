//! QEMU without `eci-builder run` in between, for disks and command lines that `run` would refuse.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::firmware::Firmware;
use crate::image;
use crate::platform::Platform;
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
        Self::start_on("user,id=net", name, out, drives, more)
    }

    /// The same on network `net` of this `-netdev` definition.
    ///
    /// # Errors
    /// As [`Qemu::start`].
    pub fn start_on(netdev: &str, name: &str, out: &Path, drives: &[String], more: &[&str]) -> Result<Self> {
        let path = |file: &str| out.join(file).to_string_lossy().into_owned();
        let boot = ["-kernel".to_owned(), path("vmlinuz"), "-initrd".to_owned(), path("initrd.img")];
        Self::spawn(&boot, netdev, name, drives, more)
    }

    /// Starts a machine with firmware that looks for something to boot on its disks.
    ///
    /// # Errors
    /// As [`Qemu::start`].
    pub fn start_firmware(firmware: &Firmware, name: &str, drives: &[String], more: &[&str]) -> Result<Self> {
        Self::spawn(&firmware.arguments(), "user,id=net", name, drives, more)
    }

    /// Starts a machine that boots by these arguments, on network `net` of this `-netdev` definition.
    ///
    /// # Errors
    /// As [`Qemu::start`].
    pub fn start_by(
        boot: &[String],
        netdev: &str,
        name: &str,
        drives: &[String],
        more: &[&str],
    ) -> Result<Self> {
        Self::spawn(boot, netdev, name, drives, more)
    }

    fn spawn(boot: &[String], netdev: &str, name: &str, drives: &[String], more: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("eci-qemu-").tempdir()?;
        let platform = Platform::of_image()?;
        let mut command = Command::new(platform.qemu);
        command
            .args(platform.board)
            .args(["-accel", "tcg,thread=multi", "-m", "1G", "-smp", &image::cpus()])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .args(["-netdev", netdev, "-device", "virtio-net-pci,netdev=net,romfile="])
            .arg("-serial")
            .arg(format!("file:{}", folder.path().join("console").display()))
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", folder.path().join("qmp").display()))
            .args(boot);
        for (index, drive) in drives.iter().enumerate() {
            command.arg("-drive").arg(format!("if=none,id=d{index},{drive}"));
            let serial = if index == 1 { ",serial=eci-data" } else { "" };
            command.arg("-device").arg(format!("virtio-blk-pci,drive=d{index}{serial}"));
        }
        command.args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot start {}", platform.qemu))?;
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
        self.wait_until(text, |console| console.contains(text), deadline)
    }

    /// Waits until init says that the engine is ready or QEMU ends.
    ///
    /// # Errors
    /// With the console's end when neither happens in time.
    pub fn wait_for_engine(&mut self, deadline: Duration) -> Result<Ending> {
        self.wait_until("engine ready", says_ready, deadline)
    }

    /// Waits until `seen` says so of the console, or QEMU ends. `what` names it.
    ///
    /// # Errors
    /// With the console's end when neither happens in time.
    pub fn wait_until(
        &mut self,
        what: &str,
        seen: impl Fn(&str) -> bool,
        deadline: Duration,
    ) -> Result<Ending> {
        let started = Instant::now();
        while started.elapsed() < deadline {
            // Looked at before the console: a line that was written just before the end still counts.
            let ended = self.child.try_wait()?.is_some();
            if seen(&self.console()) {
                return Ok(Ending::Seen);
            }
            if ended {
                return Ok(Ending::Ended);
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!(
            "{}: neither `{what}` nor the end within {deadline:?}; console:\n{}",
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

/// Whether init has said `eci: boot N ms: …`, which it does once the engine is ready and every promise holds. A refusal
/// reads `eci: boot refused: …`.
fn says_ready(console: &str) -> bool {
    console
        .lines()
        .filter_map(|line| line.split_once("eci: boot "))
        .any(|(_, rest)| rest.split_once(" ms: ").is_some_and(|(number, _)| number.parse::<u64>().is_ok()))
}

impl Drop for Qemu {
    fn drop(&mut self) {
        keep_console(&self.name, &self.console());
        // Already ended is fine.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_not_taken_for_an_engine() {
        assert!(says_ready("[    5.1] eci: boot 5100 ms: kernel 900, mounts 3\r\n"));
        assert!(!says_ready("[    1.1] eci: boot refused: no disk appeared within 5000 ms: none\r\n"));
    }
}
