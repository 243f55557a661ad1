//! What one image costs in its forms: to boot on each kind of machine, to build, to verify, to follow another version.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use eci_tests::firmware::Firmware;
use eci_tests::vm::{Disks, Vm};
use eci_tests::wsl::Wsl;
use eci_tests::{command, image};

use crate::{Table, median, seconds};

/// Boots, builds and checks that a median is taken of.
const ROUNDS: usize = 3;
/// Forms that a build makes, as the command line has them.
const FORMATS: [&str; 4] = ["raw", "qcow2", "vhdx", "wsl"];

/// Changes what a machine is, before its first boot.
type Prepare<'a> = &'a dyn Fn(&mut Vm) -> Result<()>;

/// From starting QEMU to the engine's answer, on each kind of machine that suite `formats` boots.
///
/// # Errors
/// When a boot fails.
pub fn boots(out: &Path, table: &mut Table) -> Result<()> {
    let enrolled = Firmware::enrolled(&image::development_keys()?.join("secure-boot"))?;
    // Each machine has its own: firmware that knows another disk starts its shell before it looks for a new one.
    let (plain, plain_scsi) = (Firmware::plain()?, Firmware::plain()?);
    let secure = Firmware::secure(&enrolled.variables())?;
    let vhdx = image::raw(out)?.with_extension("vhdx");
    let scsi = Disks::Scsi { file: &vhdx, format: "vhdx" };
    let machines: [(&str, &[&str], Prepare<'_>); 5] = [
        ("QEMU's own loader", &[], &|_| Ok(())),
        ("UEFI", &[], &|vm| vm.boot_by(&plain, Disks::AsRun, &[])),
        ("UEFI that enforces Secure Boot", &[], &|vm| vm.boot_by(&secure, Disks::AsRun, &[])),
        ("UEFI with a TPM", &["--tpm"], &|_| Ok(())),
        ("UEFI, VHDX disk behind SCSI", &[], &|vm| vm.boot_by(&plain_scsi, scsi, &[])),
    ];
    for (what, flags, prepare) in machines {
        let mut vm = Vm::prepare("bench", out)?;
        prepare(&mut vm)?;
        let times: Result<Vec<_>> = (0..ROUNDS)
            .map(|_| {
                let time = timed(|| vm.boot(flags))?;
                vm.stop()?;
                Ok(time)
            })
            .collect();
        table.row(&format!("power-on to engine ready, {what}"), &format!("{:.1} s", seconds(median(times?))));
    }
    let archive = image::raw(out)?.with_extension("wsl");
    let time = timed(|| {
        let mut machine = Wsl::start(&archive)?;
        machine.says(0, "wsl: the distro is running").map(drop)
    })?;
    table.row(
        "import and start of a distro, in a machine that does as WSL 2 does",
        &format!("{:.1} s", seconds(time)),
    );
    Ok(())
}

/// From warm caches to each form, and from a disk to a verdict.
///
/// # Errors
/// When a build or a check fails.
pub fn formats(out: &Path, table: &mut Table) -> Result<()> {
    let folder = tempfile::tempdir()?;
    for format in FORMATS {
        let mut build = Command::new(image::builder()?);
        build.current_dir(image::repository()?).args(["build", "--offline", "--format", format]);
        build.arg("--programs").arg(image::programs()?).arg("--out").arg(folder.path().join(format));
        let times: Result<Vec<_>> = (0..ROUNDS).map(|_| timed(|| said(&mut build))).collect();
        table.row(&format!("build, warm caches, {format}"), &format!("{:.1} s", seconds(median(times?))));
    }
    let raw = image::raw(out)?;
    // A disk is mostly holes.
    let bytes = std::fs::metadata(&raw)?.blocks() * 512;
    let mut verify = Command::new(image::builder()?);
    verify.arg("verify").arg(&raw).arg("--key").arg(out.join("image.pub"));
    let times: Result<Vec<_>> = (0..ROUNDS).map(|_| timed(|| said(&mut verify))).collect();
    let figure = format!("{:.2} s", seconds(median(times?)));
    table.row(&format!("`verify` of a disk with {:.0} MB in it", bytes as f64 / 1e6), &figure);
    Ok(())
}

/// An instance that was updated before takes another version.
///
/// # Errors
/// When it does not.
pub fn updates(out: &Path, table: &mut Table) -> Result<()> {
    let mut vm = Vm::prepare("bench", out)?;
    vm.boot(&[])?;
    vm.stop()?;
    let mut figure = String::new();
    for (version, which) in [("0.1.1", "first"), ("0.1.2", "later")] {
        let (_project, next) = image::of_version(version, |_| Ok(()))?;
        let manifest = image::manifest(&next)?;
        let root = manifest.root.data_blocks * u64::from(manifest.root.data_block_size);
        // A tree of SHA-256 has a block of hashes for each 128 blocks below it.
        let bytes = root + root / 127 + manifest.kernel.size + manifest.initrd.size;
        let next = next.to_str().context("paths of the suites are text")?.to_owned();
        let time = timed(|| vm.builder(&["update", &next, "--name", "bench"])?.ok().map(drop))?;
        figure = format!("{:.1} s, {:.0} MB", seconds(time), bytes as f64 / 1e6);
        table.row(&format!("{which} update of an instance"), &figure);
        let booted = vm.builder(&["run", "--name", "bench", "--detach", "--accel", "tcg"])?;
        booted.ok().with_context(|| format!("version {version} does not boot"))?;
        vm.stop()?;
    }
    ensure!(!figure.is_empty(), "nothing was measured");
    Ok(())
}

fn said(command: &mut Command) -> Result<()> {
    command::run(command, &[])?.ok().map(drop)
}

fn timed(act: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let started = Instant::now();
    act()?;
    Ok(started.elapsed())
}
