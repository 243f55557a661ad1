//! What boots where: the same image under every firmware and as every kind of disk that it is built for.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use eci_tests::firmware::Firmware;
use eci_tests::qemu::{Ending, Qemu};
use eci_tests::suite::row;
use eci_tests::{image, suite};

/// Firmware takes a few seconds more than QEMU's direct boot, and has no end of its own.
const DEADLINE: Duration = Duration::from_secs(120);
/// What a boot loader could ask for, if anybody listened.
const HOSTILE: &str = "init=/bin/sh rdinit=/bin/sh rd.break lockdown=none apparmor=0 initrd=\\evil";

fn main() -> ExitCode {
    suite::run_alone(vec![
        row("the_raw_disk_boots_under_uefi", raw),
        row("what_a_boot_loader_appends_to_the_unified_kernel_image_changes_nothing", appended),
    ])
}

fn raw(_: &()) -> Result<()> {
    let disks = Disks::new()?;
    let firmware = Firmware::plain()?;
    let mut qemu = Qemu::start_firmware(&firmware, "formats-raw", &disks.drives()?, &[])?;
    gets_ready(&mut qemu)
}

/// Without Secure Boot the stub takes the boot loader's command line in place of its own, and, always, one more from
/// the machine's SMBIOS strings. The kernel takes neither.
fn appended(_: &()) -> Result<()> {
    let disks = Disks::new()?;
    let firmware = Firmware::plain()?;
    let image = image::out()?.join("eci.efi").to_string_lossy().into_owned();
    let strings = format!("type=11,value=io.systemd.stub.kernel-cmdline-extra={HOSTILE}");
    let more = ["-kernel", &image, "-append", HOSTILE, "-smbios", &strings];
    let mut qemu = Qemu::start_firmware(&firmware, "formats-appended", &disks.drives()?, &more)?;
    gets_ready(&mut qemu)
}

/// The image and an empty data disk.
struct Disks(tempfile::TempDir);

impl Disks {
    fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn drives(&self) -> Result<[String; 2]> {
        let data = self.0.path().join("data");
        fs::File::create(&data)?.set_len(4 << 30)?;
        let drive = |path: &Path, more: &str| format!("file={},format=raw{more}", path.display());
        Ok([drive(&image::raw(&image::out()?)?, ",readonly=on"), drive(&data, "")])
    }
}

/// The engine gets ready, and the kernel has its own command line and nothing else.
fn gets_ready(qemu: &mut Qemu) -> Result<()> {
    ensure!(qemu.wait_for_engine(DEADLINE)? == Ending::Seen, "no engine:\n{}", qemu.console());
    has_its_own_command_line(&qemu.console())
}

fn has_its_own_command_line(console: &str) -> Result<()> {
    let line = console.lines().find_map(|line| line.split_once("Kernel command line: "));
    let (_, line) = line.context("the kernel does not tell its command line")?;
    let config = fs::read_to_string(image::out()?.join("kernel.config"))?;
    let own = config.lines().find_map(|line| line.strip_prefix("CONFIG_CMDLINE=\""));
    let own = own.and_then(|line| line.strip_suffix('"')).context("the kernel has a command line")?;
    ensure!(line.trim() == own, "the command line is\n{line}\nand not\n{own}");
    Ok(())
}
