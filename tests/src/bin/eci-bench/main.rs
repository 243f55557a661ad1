//! The benchmark behind `scripts/bench`: measures, and prints a Markdown table.
//!
//! Times are medians of [`ROUNDS`]; the ratio to a peer is taken in one run on one machine.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use eci_tests::{command, image, vm::Vm};
use serde_json::Value;

/// Boots and container starts that a median is taken of.
const ROUNDS: usize = 5;
/// The peer took 55 to 63 seconds where it was first measured.
const PEER_DEADLINE: Duration = Duration::from_secs(300);

fn main() -> Result<()> {
    let out = image::out()?;
    let mut table = Table::default();
    sizes(&out, &mut table)?;
    let engine_ms = boots(&out, &mut table)?;
    hashing(&out, &mut table)?;
    if let Ok(ms) = env::var("ECI_BUILD_WARM_MS") {
        table.row("build, warm caches", &format!("{:.1} s", ms.parse::<f64>()? / 1000.0));
    }
    let peer = env::var("ECI_PEER").unwrap_or_default();
    if !peer.is_empty() {
        let peer_ms = peer_boot(Path::new(&peer))?;
        table.row("power-on to engine ready, Debian with systemd", &format!("{:.1} s", seconds(peer_ms)));
        table.row("… that many times ours", &format!("{:.1}", seconds(peer_ms) / seconds(engine_ms)));
    }
    std::io::Write::write_all(&mut std::io::stdout(), table.0.as_bytes())?;
    Ok(())
}

#[derive(Default)]
struct Table(String);

impl Table {
    fn row(&mut self, what: &str, figure: &str) {
        if self.0.is_empty() {
            self.0.push_str("| what | figure |\n| --- | --- |\n");
        }
        self.0.push_str(&format!("| {what} | {figure} |\n"));
        eprintln!("{what}: {figure}");
    }
}

fn sizes(out: &Path, table: &mut Table) -> Result<()> {
    let manifest = image::manifest(out)?;
    let root = manifest.root.data_blocks * u64::from(manifest.root.data_block_size);
    for (what, bytes) in
        [("root file system", root), ("kernel", manifest.kernel.size), ("initrd", manifest.initrd.size)]
    {
        table.row(what, &format!("{:.1} MB", bytes as f64 / 1e6));
    }
    Ok(())
}

/// Boots [`ROUNDS`] times; gives the median time from starting QEMU to the engine's answer.
fn boots(out: &Path, table: &mut Table) -> Result<Duration> {
    let mut wall = Vec::new();
    let (mut kernel, mut init, mut engine) = (Vec::new(), Vec::new(), Vec::new());
    let mut vm = Vm::prepare("bench", out)?;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        vm.boot(&[])?;
        wall.push(started.elapsed());
        let ms = |key: &str| milliseconds(&vm.answer()["boot_ms"][key]);
        kernel.push(ms("kernel")?);
        init.push(ms("init")?);
        engine.push(ms("engine")?);
        vm.stop()?;
    }
    let (kernel, init, engine) = (median(kernel), median(init), median(engine));
    table.row("kernel to PID 1", &format!("{:.2} s", seconds(kernel)));
    table.row("PID 1 to engine ready", &format!("{:.2} s", seconds(engine.saturating_sub(kernel))));
    table.row(
        "of that, verification and switch of root",
        &format!("{:.2} s", seconds(init.saturating_sub(kernel))),
    );
    let ready = median(wall);
    table.row("power-on to engine ready, as the host sees it", &format!("{:.2} s", seconds(ready)));
    vm.boot(&[])?;
    vm.import_busybox()?;
    thread::sleep(Duration::from_secs(10));
    let used = vm.status()?["memory_used_kib"].as_u64().context("memory_used_kib")?;
    table.row("memory at idle", &format!("{} MB", used / 1000));
    let mut runs = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        vm.sh(&[], "true")?;
        runs.push(started.elapsed());
    }
    table.row("`docker run --rm busybox true`", &format!("{:.2} s", seconds(median(runs))));
    Ok(ready)
}

/// Hashes 1 GiB with both; both write the tree to a file.
fn hashing(out: &Path, table: &mut Table) -> Result<()> {
    let ours = env::var("ECI_VERITY_FORMAT").context("ECI_VERITY_FORMAT is not set; run scripts/bench")?;
    let folder = tempfile::tempdir()?;
    let (data, tree) = (folder.path().join("data"), folder.path().join("tree"));
    let image = fs::read(image::raw(out)?)?;
    let bytes: Vec<u8> = image.iter().copied().cycle().take(1 << 30).collect();
    fs::write(&data, bytes)?;
    let report = folder.path().join("report.json");
    let path = env::var("PATH").unwrap_or_default();
    let mut hyperfine = Command::new("hyperfine");
    hyperfine
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .args(["--warmup", "1", "--runs", "5", "--export-json"])
        .arg(&report)
        .arg("--prepare")
        .arg(format!("rm -f {}", tree.display()))
        .arg(format!("{ours} {} {}", data.display(), tree.display()))
        .arg(format!("veritysetup format {} {}", data.display(), tree.display()));
    command::run(&mut hyperfine, &[])?.ok()?;
    let report: Value = serde_json::from_slice(&fs::read(&report)?)?;
    let median =
        |index: usize| report["results"][index]["median"].as_f64().context("hyperfine reports medians");
    let (ours, theirs) = (median(0)?, median(1)?);
    table.row("verity tree over 1 GiB", &format!("{ours:.2} s"));
    table
        .row("the same by `veritysetup format`", &format!("{theirs:.2} s ({:.1} times ours)", theirs / ours));
    Ok(())
}

fn peer_boot(peer: &Path) -> Result<Duration> {
    let folder = tempfile::tempdir()?;
    let console = folder.path().join("console");
    let disk: PathBuf = peer.join("root.ext4");
    let started = Instant::now();
    let mut child = Command::new("qemu-system-x86_64")
        .args([
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-m",
            "2G",
            "-smp",
            "2",
            "-nodefaults",
        ])
        .args([
            "-display",
            "none",
            "-no-reboot",
            "-netdev",
            "user,id=net",
            "-device",
            "virtio-net-pci,netdev=net",
            "-snapshot",
        ])
        .arg("-drive")
        .arg(format!("file={},format=raw,if=virtio", disk.display()))
        .arg("-kernel")
        .arg(peer.join("vmlinuz"))
        .arg("-initrd")
        .arg(peer.join("initrd.img"))
        .args(["-append", "root=/dev/vda rw console=ttyS0 quiet", "-serial"])
        .arg(format!("file:{}", console.display()))
        .stdin(Stdio::null())
        .spawn()?;
    let ready = loop {
        if fs::read(&console).is_ok_and(|text| String::from_utf8_lossy(&text).contains("PEER READY")) {
            break Some(started.elapsed());
        }
        if started.elapsed() > PEER_DEADLINE || child.try_wait()?.is_some() {
            break None;
        }
        thread::sleep(Duration::from_millis(50));
    };
    drop(child.kill());
    child.wait()?;
    match ready {
        Some(elapsed) => Ok(elapsed),
        None => bail!("the peer never got ready:\n{}", fs::read_to_string(&console).unwrap_or_default()),
    }
}

fn milliseconds(value: &Value) -> Result<Duration> {
    let ms = value.as_u64().context("a milestone in milliseconds")?;
    ensure!(ms > 0, "a milestone is missing");
    Ok(Duration::from_millis(ms))
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
