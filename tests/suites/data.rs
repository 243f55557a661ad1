//! The data disk: whatever is on it, a clear message or a working engine, never a lost volume.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use eci_tests::suite::row;
use eci_tests::{command, image, suite, vm::Vm};

fn main() -> ExitCode {
    suite::run_alone(vec![
        row("a_full_disk_says_so_and_loses_nothing", full),
        row("a_larger_disk_is_grown_into", larger),
        row("a_disk_cut_short_is_refused_and_whole_again_when_its_size_is_back", shorter),
        row("garbage_is_refused_by_name_and_left_alone", garbage),
        row("a_disk_whose_start_was_wiped_is_refused_and_left_alone", wiped),
        row("somebody_else_s_file_system_is_refused_and_left_alone", foreign),
        row("an_interrupted_first_format_is_done_again", interrupted),
    ])
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

fn full(_: &()) -> Result<()> {
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

fn larger(_: &()) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = disk(folder.path(), 1 << 30)?;
    let mut vm = Vm::start_on("data", &image::out()?, &data)?;
    vm.import_busybox()?;
    vm.sh(&["-v", "kept:/v"], "echo here >/v/f")?;
    vm.stop()?;
    fs::File::options().write(true).open(&data)?.set_len(3 << 30)?;
    vm.boot(&["--data", &data.to_string_lossy()])?;
    let kib: u64 =
        vm.sh(&["-v", "kept:/v"], "df -k /v | tail -n 1 | { read -r a size rest; echo $size; }")?.parse()?;
    ensure!(kib > 2 << 20, "the file system has {kib} KiB");
    ensure!(vm.sh(&["-v", "kept:/v"], "cat /v/f")? == "here", "the volume is lost");
    Ok(())
}

fn shorter(_: &()) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = disk(folder.path(), 1 << 30)?;
    let vm = Vm::start_on("data", &image::out()?, &data)?;
    vm.stop()?;
    drop(vm);
    let cut = folder.path().join("cut.raw");
    command::host("cp", &["--sparse=always", &data.to_string_lossy(), &cut.to_string_lossy()])?.ok()?;
    fs::File::options().write(true).open(&cut)?.set_len(512 << 20)?;
    refused_untouched(&cut, &["data disk"])?;
    drop(Vm::start_on("data", &image::out()?, &data)?);
    Ok(())
}

fn garbage(_: &()) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = disk(folder.path(), 512 << 20)?;
    let noise: Vec<u8> =
        (0..4u32 << 20).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::File::options().write(true).open(&data)?.write_all(&noise)?;
    refused_untouched(&data, &["data disk"])
}

fn wiped(_: &()) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = disk(folder.path(), 1 << 30)?;
    let vm = Vm::start_on("data", &image::out()?, &data)?;
    vm.stop()?;
    drop(vm);
    fs::File::options().write(true).open(&data)?.write_all(&vec![0; 1 << 20])?;
    refused_untouched(&data, &["data disk"])
}

fn foreign(_: &()) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = disk(folder.path(), 512 << 20)?;
    command::host("mkfs.ext4", &["-q", "-F", "-L", "holiday", &data.to_string_lossy()])?.ok()?;
    refused_untouched(&data, &["data disk"])
}

/// The marker that init writes before it formats (sector 1), on an otherwise half-written disk.
fn interrupted(_: &()) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = disk(folder.path(), 512 << 20)?;
    command::host("mkfs.ext4", &["-q", "-F", &data.to_string_lossy()])?.ok()?;
    let mut file = fs::File::options().write(true).open(&data)?;
    file.seek(SeekFrom::Start(512))?;
    let mut sector = b"eci-data 1 making".to_vec();
    sector.resize(512, 0);
    file.write_all(&sector)?;
    file.seek(SeekFrom::Start(1024))?;
    file.write_all(&[0; 1024])?;
    drop(file);
    let vm = Vm::start_on("data", &image::out()?, &data)?;
    vm.import_busybox()
}
