//! From power-on to an engine that answers, and what runs then: ours, and the peer's.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use eci_tests::vm::Vm;
use serde_json::Value;

use crate::{Table, median, seconds};

/// Boots and container starts that a median is taken of.
const ROUNDS: usize = 5;
/// The peer took 55 to 63 seconds where it was first measured.
const PEER_DEADLINE: Duration = Duration::from_secs(300);

/// Measures our boots, and the peer's when there is one: `ECI_PEER`, the folder that `scripts/bench-peer` makes.
///
/// # Errors
/// When a boot or a container fails.
pub fn measure(out: &Path, table: &mut Table) -> Result<()> {
    let ours = boot(out, table)?;
    let peer = env::var("ECI_PEER").unwrap_or_default();
    if !peer.is_empty() {
        let theirs = boot_peer(Path::new(&peer))?;
        table.row("power-on to engine ready, Debian with systemd", &format!("{:.1} s", seconds(theirs)));
        table.row("… that many times ours", &format!("{:.1}", seconds(theirs) / seconds(ours)));
    }
    Ok(())
}

/// Boots [`ROUNDS`] times; gives the median time from starting QEMU to the engine's answer.
fn boot(out: &Path, table: &mut Table) -> Result<Duration> {
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

/// Time until the peer's engine answers, from starting QEMU.
fn boot_peer(peer: &Path) -> Result<Duration> {
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
