//! Power cuts: QEMU is killed at random moments of first boots and of running boots. The next boot always gets the
//! engine ready, and what was finished before is whole.

use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use eci_tests::suite::row;
use eci_tests::{image, qemu::Qemu, suite, vm::Vm};

/// Kills of each kind: first boots, and running boots.
const FEW: u32 = 2;
/// With `scripts/test --all`.
const ALL: u32 = 10;
/// A first boot is over after about this long on two cores without KVM; kills fall anywhere in it.
const FIRST_BOOT_MS: u64 = 8_000;
/// Running boots are killed up to this long after the work has begun.
const WORK_MS: u64 = 5_000;

fn main() -> ExitCode {
    suite::run_alone(vec![
        row("power_cuts_in_a_first_boot", first_boots),
        row("power_cuts_at_work", running_boots),
    ])
}

fn kills() -> u32 {
    if suite::everything() { ALL } else { FEW }
}

/// A linear congruential generator (Knuth's constants), seeded by the clock; the seed is printed to repeat a failure.
struct Moments(u64);

impl Moments {
    fn seeded() -> Self {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.subsec_nanos());
        let seed =
            std::env::var("ECI_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| nanos.into());
        eprintln!("ECI_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_millis((self.0 >> 33) % limit)
    }
}

fn first_boots(_: &()) -> Result<()> {
    let mut moments = Moments::seeded();
    let out = image::out()?;
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data.raw");
    let drives = [
        format!("file={},format=raw,readonly=on", image::raw(&out)?.display()),
        format!("file={},format=raw", data.display()),
    ];
    fs::File::create(&data)?.set_len(8 << 30)?;
    for round in 0..kills() {
        if round % 2 == 0 {
            // Every other round starts on an empty disk; the rounds between start on what the last cut left.
            fs::File::create(&data)?.set_len(8 << 30)?;
        }
        let moment = moments.below(FIRST_BOOT_MS);
        let qemu = Qemu::start("power-first", &out, &drives, &[])?;
        thread::sleep(moment);
        drop(qemu);
        if round % 2 == 1 {
            let vm =
                Vm::start_on("power", &out, &data).with_context(|| format!("after a cut at {moment:?}"))?;
            vm.stop()?;
        }
    }
    Ok(())
}

fn running_boots(_: &()) -> Result<()> {
    let mut moments = Moments::seeded();
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data.raw");
    fs::File::create(&data)?.set_len(8 << 30)?;
    let data_flag = data.to_string_lossy().into_owned();
    let mut vm = Vm::start_on("power", &image::out()?, &data)?;
    vm.import_busybox()?;
    for round in 0..kills() {
        let volume = format!("v{round}:/v");
        let name = format!("c{round}");
        vm.docker(&[
            "run",
            "--name",
            &name,
            "-v",
            &volume,
            "busybox",
            "sh",
            "-c",
            "echo whole >/v/f; echo whole >/made; sync; echo done",
        ])?
        .ok()?;
        let commit = format!("image{round}");
        vm.docker(&["commit", &name, &commit])?.ok()?;
        let busy = vm
            .docker_command()
            .args(["run", "--rm", "busybox", "sh", "-c", "while :; do echo x >>/f; done"])
            .spawn();
        thread::sleep(moments.below(WORK_MS));
        vm.kill()?;
        drop(busy.and_then(|mut child| child.kill().and_then(|()| child.wait())));
        vm.boot(&["--data", &data_flag]).with_context(|| format!("boot after cut {round}"))?;
        finished_work_is_whole(&vm, round)?;
    }
    finished_containers_are_whole(&vm, kills() - 1)?;
    vm.every_check_holds()
}

/// Every volume and image that was finished by round `last` is there, with its bytes.
fn finished_work_is_whole(vm: &Vm, last: u32) -> Result<()> {
    let volumes: Vec<_> = (0..=last).map(|round| format!("v{round}:/v{round}")).collect();
    let mut arguments = vec!["run", "--rm"];
    for volume in &volumes {
        arguments.extend(["-v", volume.as_str()]);
    }
    let image = format!("image{last}");
    arguments.extend([image.as_str(), "sh", "-c", "cat /v*/f /made"]);
    let text = vm.docker(&arguments)?.ok()?;
    ensure!(
        text.lines().count() == volumes.len() + 1 && text.lines().all(|line| line == "whole"),
        "volumes and the image hold:\n{text}"
    );
    // The engine checks every layer against its digest when it packs it.
    let images: Vec<_> = (0..=last).map(|round| format!("image{round}")).collect();
    let mut arguments = vec!["save"];
    arguments.extend(images.iter().map(String::as_str));
    let saved = vm.docker(&arguments)?;
    ensure!(saved.code == 0, "images are damaged: {}", saved.stderr);
    Ok(())
}

/// Every container that was finished by round `last` has its log, its exit code and its file.
fn finished_containers_are_whole(vm: &Vm, last: u32) -> Result<()> {
    for round in 0..=last {
        let name = format!("c{round}");
        let logs = vm.docker(&["logs", &name])?.ok()?;
        ensure!(logs == "done", "the log of {name} holds `{logs}`");
        let state = vm.docker(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", &name])?.ok()?;
        ensure!(state == "exited 0", "{name} is `{state}`");
        let made = vm.docker(&["cp", &format!("{name}:/made"), "-"])?;
        ensure!(
            made.code == 0 && made.stdout().contains("whole\n"),
            "{name}'s file is gone: {}",
            made.stderr
        );
    }
    Ok(())
}
