//! The data disk: whatever is on it, a clear message or a working engine, never a lost volume.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use eci_tests::disk::copy_sparse;
use eci_tests::qemu::{Ending, Qemu};
use eci_tests::suite::row;
use eci_tests::{command, image, suite, vm::Vm};

/// A first boot on two busy cores without KVM takes a third of this.
const DEADLINE: Duration = Duration::from_secs(180);
/// How long a VM that refused its engine is watched for one that comes up anyway.
const WATCHED: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rows = vec![
        row("a_full_disk_says_so_and_loses_nothing", full),
        row("what_the_engine_has_no_names_for_is_gone_with_the_next_boot", deep),
        row("a_larger_disk_is_grown_into", larger),
        row("a_disk_cut_short_is_refused_and_whole_again_when_its_size_is_back", shorter),
        row("garbage_is_refused_by_name_and_left_alone", garbage),
        row("a_disk_whose_start_was_wiped_is_refused_and_left_alone", wiped),
        row("somebody_else_s_file_system_is_refused_and_left_alone", foreign),
        row("an_interrupted_first_format_is_done_again", interrupted),
        row("without_a_disk_the_engine_is_refused_by_name_and_the_vm_stays_up", none),
        row("an_image_that_may_be_written_to_needs_no_other_disk", own_partition),
    ];
    suite::run(Used { folder }, rows, |_| String::new())
}

/// A data disk of 1 GiB that was used: it has a volume `kept` whose file `f` says `here`. Made once, for rows that begin
/// with one.
struct Used {
    folder: tempfile::TempDir,
}

impl Used {
    fn original(&self) -> Result<PathBuf> {
        let data = self.folder.path().join("data.raw");
        if !data.exists() {
            let made = disk(self.folder.path(), 1 << 30)?;
            let vm = Vm::start_on("data", &image::out()?, &made)?;
            vm.import_busybox()?;
            vm.sh(&["-v", "kept:/v"], "echo here >/v/f")?;
            vm.stop()?;
        }
        Ok(data)
    }

    fn copy(&self, folder: &Path) -> Result<PathBuf> {
        let copy = folder.join("copy.raw");
        copy_sparse(&self.original()?, &copy)?;
        Ok(copy)
    }
}

fn disk(folder: &Path, size: u64) -> Result<PathBuf> {
    let path = folder.join("data.raw");
    fs::File::create(&path)?.set_len(size)?;
    Ok(path)
}

/// The boot is refused with these words, and the disk's bytes are as they were.
fn refused_untouched(data: &Path, words: &[&str]) -> Result<()> {
    let before = command::host("sha256sum", &[&data.to_string_lossy()])?.ok()?;
    refused(data, words)?;
    let after = command::host("sha256sum", &[&data.to_string_lossy()])?.ok()?;
    ensure!(before == after, "the disk was changed");
    Ok(())
}

fn refused(data: &Path, words: &[&str]) -> Result<()> {
    let vm = Vm::prepare("data", &image::out()?)?;
    let outcome = vm.run(&["--data", &data.to_string_lossy()])?;
    ensure!(outcome.code == 6, "exit code {}, not 6: {}{}", outcome.code, outcome.stderr, vm.last_words());
    outcome.refused(words).map(drop)
}

fn full(_: &Used) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = disk(folder.path(), 256 << 20)?;
    let vm = Vm::start_on("data", &image::out()?, &data)?;
    vm.import_busybox()?;
    vm.sh(&["-v", "kept:/v"], "echo here >/v/f && sync")?;
    let fill =
        vm.docker(&["run", "--rm", "-v", "full:/v", "busybox", "dd", "if=/dev/zero", "of=/v/f", "bs=1M"])?;
    fill.refused(&["No space left on device"])?;
    ensure!(
        vm.sh(&["-v", "kept:/v:ro"], "cat /v/f").unwrap_or_else(|_| "here".into()) == "here",
        "the volume changed"
    );
    vm.stop()?;
    vm.run(&["--data", &data.to_string_lossy()])?.ok()?;
    vm.docker(&["volume", "rm", "full"])?.ok()?;
    ensure!(vm.sh(&["-v", "kept:/v"], "cat /v/f")? == "here", "the volume is lost");
    Ok(())
}

/// A container that the engine cannot remove by itself, for folders that are too deep.
fn deep(used: &Used) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = used.copy(folder.path())?;
    let vm = Vm::start_on("data", &image::out()?, &data)?;
    let leave = ["run", "--name", "deep", "--privileged", "busybox", "/probe", "leave-deep:/"];
    ensure!(vm.docker(&leave)?.ok()? == "leave-deep:/: allowed", "there is nothing deep");
    let removed = vm.docker(&["rm", "deep"])?;
    removed.refused(&["file name too long"])?;
    vm.stop()?;
    vm.run(&["--data", &data.to_string_lossy()])?.ok()?;
    vm.docker(&["rm", "deep"])?.ok()?;
    ensure!(vm.docker(&["ps", "-aq"])?.ok()?.is_empty(), "it is still there");
    ensure!(vm.sh(&["-v", "kept:/v"], "cat /v/f")? == "here", "the volume is lost");
    vm.stop()
}

fn larger(used: &Used) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = used.copy(folder.path())?;
    fs::File::options().write(true).open(&data)?.set_len(3 << 30)?;
    let vm = Vm::start_on("data", &image::out()?, &data)?;
    let kib: u64 = vm
        .sh(&["-v", "kept:/v"], "df -k /v | { read -r head; read -r device size rest; echo $size; }")?
        .parse()?;
    ensure!(kib > 2 << 20, "the file system has {kib} KiB");
    ensure!(vm.sh(&["-v", "kept:/v"], "cat /v/f")? == "here", "the volume is lost");
    Ok(())
}

fn shorter(used: &Used) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cut = used.copy(folder.path())?;
    fs::File::options().write(true).open(&cut)?.set_len(512 << 20)?;
    refused_untouched(&cut, &["data disk", "536870912 bytes", "was shrunk", "give it its size back"])?;
    let vm = Vm::start_on("data", &image::out()?, &used.original()?)?;
    ensure!(vm.sh(&["-v", "kept:/v"], "cat /v/f")? == "here", "the volume is lost");
    vm.stop()
}

fn garbage(_: &Used) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = disk(folder.path(), 512 << 20)?;
    let noise: Vec<u8> =
        (0..4u32 << 20).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::File::options().write(true).open(&data)?.write_all(&noise)?;
    refused_untouched(&data, &["data disk", "data of an unknown kind", "was left alone"])
}

fn wiped(used: &Used) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = used.copy(folder.path())?;
    fs::File::options().write(true).open(&data)?.write_all(&vec![0; 1 << 20])?;
    refused_untouched(&data, &["data disk", "whose beginning was wiped", "was left alone"])
}

fn foreign(_: &Used) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = disk(folder.path(), 512 << 20)?;
    command::host("mkfs.ext4", &["-q", "-F", "-L", "holiday", &data.to_string_lossy()])?.ok()?;
    refused_untouched(&data, &["data disk", "an ext4 file system that is not ours", "was left alone"])
}

/// The marker that init writes into the first sector before it formats, on an otherwise half-written disk. The marker's
/// bytes are repeated here on purpose: disks in use bear them, so they may not change.
fn interrupted(_: &Used) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = disk(folder.path(), 512 << 20)?;
    command::host("mkfs.ext4", &["-q", "-F", &data.to_string_lossy()])?.ok()?;
    let mut marker = b"eci-data 1 making\n".to_vec();
    marker.resize(64, 0);
    marker.extend(0x8256_4557_u32.to_le_bytes());
    marker.resize(512, 0);
    let mut file = fs::File::options().write(true).open(&data)?;
    file.write_all(&marker)?;
    // The superblock was not written yet.
    file.seek(SeekFrom::Start(1024))?;
    file.write_all(&[0; 1024])?;
    drop(file);
    Vm::start_on("data", &image::out()?, &data).map(drop)
}

fn none(_: &Used) -> Result<()> {
    let out = image::out()?;
    let image = format!("file={},format=raw,readonly=on", image::raw(&out)?.display());
    let mut qemu = Qemu::start("data-none", &out, &[image], &[])?;
    let refused = "eci: engine refused: no data disk: attach a virtio disk with serial `eci-data`";
    ensure!(qemu.wait_for(refused, DEADLINE)? == Ending::Seen, "the VM ended:\n{}", qemu.console());
    ensure!(
        qemu.wait_for_engine(WATCHED).is_err(),
        "the engine got ready or the VM ended:\n{}",
        qemu.console()
    );
    Ok(())
}

fn own_partition(_: &Used) -> Result<()> {
    let out = image::out()?;
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("image.raw");
    copy_sparse(&image::raw(&out)?, &image)?;
    let drive = format!("file={},format=raw", image.display());
    let mut qemu = Qemu::start("data-own", &out, &[drive], &[])?;
    ensure!(qemu.wait_for_engine(DEADLINE)? == Ending::Seen, "the VM ended:\n{}", qemu.console());
    Ok(())
}
