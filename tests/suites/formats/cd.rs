//! The CD: one file, in drives of both kinds and as a disk.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use eci_contract::disk::{BootCount, Slot};
use eci_slots::Table;
use eci_tests::disk::{Partition, copy_sparse, flip};
use eci_tests::firmware::Firmware;
use eci_tests::image;
use eci_tests::platform::SCSI_CD_DRIVE;
use eci_tests::qemu::{Ending, Qemu};
use eci_tests::vm::{Disks, Vm};

use super::{DEADLINE, Machines, gets_ready, root_is_signed, works};

/// Number of slot A's root partition.
const ROOT: u32 = 2;

/// Where a container would find the drive, and nothing is said of it.
const LOOK: &str = "for path in /dev/sr0 /dev/cdrom /dev/sg0 /dev/bsg /sys/block/sr0 /sys/class/block/sr0 /sys/dev/block/11:0 /proc/scsi/scsi; \
    do test -e $path && echo $path; done; \
    mknod /drive b 11 0 2>/dev/null && cat /drive; (echo 1 >/proc/sys/dev/cdrom/debug) 2>/dev/null && echo written; true";

fn file() -> Result<PathBuf> {
    Ok(image::raw(&image::out()?)?.with_extension("iso"))
}

/// In the drive that such a machine has, driven as `run` does.
pub fn secure_boot(machines: &Machines) -> Result<()> {
    let (file, out) = (file()?, image::out()?);
    let before = digest(&file)?;
    let (firmware, mut vm) = (machines.enrolled()?, Vm::prepare("formats-cd", &out)?);
    vm.boot_by(&firmware, Disks::Cd { file: &file }, &[])?;
    vm.boot(&[])?;
    root_is_signed(&vm, "checked with a key of the firmware")?;
    ensure!(vm.status()?["image"]["medium"] == "cd", "another disk was booted:\n{}", vm.last_words());
    let said = vm.builder(&["status", "--name", "formats-cd"])?.ok()?;
    ensure!(said.contains("slot       a, on a CD: boots are not counted"), "{said}");
    ensure!(!vm.console().contains("I/O error"), "the drive is asked for too much:\n{}", vm.last_words());
    vm.import_busybox()?;
    let seen = vm.sh(&["--privileged"], LOOK)?;
    ensure!(seen.is_empty(), "a privileged container sees the drive: {seen}");
    let seen = vm.sh(&[], &format!("{LOOK}; ls -A /proc/sys/dev/cdrom"))?;
    ensure!(seen.is_empty(), "a container sees the drive: {seen}");
    let given = vm.docker(&["run", "--rm", "--device", "/dev/sr0", "busybox", "true"])?;
    given.refused(&["enhanced container isolation"])?;
    works(&vm)?;
    ensure!(digest(&file)? == before, "the CD was written to");
    Ok(())
}

/// Behind the other kind of controller; the kernel panics at the first block that it reads of the root.
pub fn changed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("cd.iso");
    copy_sparse(&file()?, &copy)?;
    flip(&copy, Partition::of(&copy, ROOT)?.start + 1024 + 17)?;
    let drive = format!("if=none,id=image,format=raw,readonly=on,media=cdrom,file={}", copy.display());
    let mut more = vec!["-drive", &drive];
    more.extend(SCSI_CD_DRIVE.into_iter().flat_map(|device| ["-device", device]));
    let firmware = Firmware::plain()?;
    let mut qemu = Qemu::start_firmware(&firmware, "formats-cd-changed", &[], &more)?;
    ensure!(qemu.wait_for_engine(DEADLINE)? == Ending::Ended, "the engine got ready");
    let console = qemu.console();
    for word in ["data block 0 is corrupted", "Kernel panic - not syncing: dm-verity device corrupted"] {
        ensure!(console.contains(word), "no `{word}` on the console:\n{console}");
    }
    Ok(())
}

/// Written to a disk or a stick, which is larger than the file.
pub fn as_a_disk() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (copy, data) = (folder.path().join("disk.raw"), folder.path().join("data"));
    copy_sparse(&file()?, &copy)?;
    let disk = fs::File::options().read(true).write(true).open(&copy)?;
    disk.set_len(disk.metadata()?.len() + (1 << 30))?;
    fs::File::create(&data)?.set_len(4 << 30)?;
    let drives = [&copy, &data].map(|path: &PathBuf| format!("file={},format=raw", path.display()));
    let firmware = Firmware::plain()?;
    let mut qemu = Qemu::start_firmware(&firmware, "formats-cd-disk", &drives, &[])?;
    let begun = qemu.wait_for("eci: making a file system", DEADLINE)?;
    ensure!(begun == Ending::Seen, "no data disk:\n{}", qemu.console());
    let count = || Ok::<_, anyhow::Error>(Table::read(&disk, 512)?.count(Slot::A)?);
    ensure!(count()? == BootCount::PROVEN.after_a_boot(), "the boot is not counted: {:?}", count()?);
    gets_ready(&mut qemu)?;
    ensure!(count()? == BootCount::PROVEN, "an engine gives no try back: {:?}", count()?);
    Ok(())
}

fn digest(path: &Path) -> Result<String> {
    let said = eci_tests::command::host("sha256sum", &[&path.to_string_lossy()])?.ok()?;
    Ok(said.split_whitespace().next().unwrap_or_default().to_owned())
}
