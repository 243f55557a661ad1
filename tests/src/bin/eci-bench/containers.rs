//! What the isolation costs: the same engine with `eci-runc`, with crun as it is, and with Debian's runc, in turns on one boot
//! of the test flavour.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use eci_tests::{image, vm::Vm};
use serde_json::{Value, json};

use crate::api::ask;
use crate::{Table, median, seconds};

/// Names in the test flavour's `daemon.json`: ours, and those it is held against.
const RUNTIMES: [&str; 3] = ["eci-runc", "bare-crun", "bare-runc"];
/// Starts that a median is taken of.
const STARTS: usize = 15;
/// Runs of the workload that a median is taken of.
const WORKLOADS: usize = 7;
/// Files in the small and in the large image.
const FILES: [usize; 2] = [10, 100_000];

/// Measures all of it.
///
/// # Errors
/// When a boot or a container fails.
pub fn compare(out: &Path, table: &mut Table) -> Result<()> {
    let vm = Vm::start("compare", &out.join("test"))?;
    let host = vm.docker_host();
    let engine = Engine { socket: host.strip_prefix("unix://").context("the engine has a Unix socket")? };
    vm.import_busybox()?;
    starts(&engine, table)?;
    vm.docker_with(&["import", "-", "workload"], &image::workload_tar()?)?.ok()?;
    workloads(&vm, table)?;
    many_files(&vm, &engine, table)
}

/// Rows of a figure of ours, and of that many times each of the others.
fn rows(table: &mut Table, what: &str, figures: &[Vec<Duration>]) {
    let medians: Vec<_> = figures.iter().map(|times| seconds(median(times.clone()))).collect();
    let ratios: Vec<_> = RUNTIMES[1..]
        .iter()
        .zip(&medians[1..])
        .map(|(name, theirs)| format!("{:.2} of {}", medians[0] / theirs, name.trim_start_matches("bare-")))
        .collect();
    table.row(what, &format!("{:.1} ms, {}", medians[0] * 1000.0, ratios.join(", ")));
}

fn starts(engine: &Engine<'_>, table: &mut Table) -> Result<()> {
    for (what, privileged) in [("", false), (", privileged", true)] {
        let mut figures = vec![Vec::new(); RUNTIMES.len()];
        for round in 0..=STARTS {
            for (runtime, times) in RUNTIMES.iter().zip(&mut figures) {
                let time = engine.run("busybox", runtime, privileged)?;
                // The first of each finds cold caches.
                if round > 0 {
                    times.push(time);
                }
            }
        }
        rows(table, &format!("create, start, end and removal of a container{what}"), &figures);
    }
    Ok(())
}

/// The workload prints a line `name nanoseconds` for each of its parts.
fn workloads(vm: &Vm, table: &mut Table) -> Result<()> {
    let mut parts: Vec<(String, Vec<Vec<Duration>>)> = Vec::new();
    for _ in 0..WORKLOADS {
        for (index, runtime) in RUNTIMES.iter().enumerate() {
            let printed = vm.docker(&["run", "--rm", "--runtime", runtime, "workload", "/workload"])?.ok()?;
            for line in printed.lines() {
                let (name, time) = line.split_once(' ').context("a line is a name and a time")?;
                let time = Duration::from_nanos(time.parse()?);
                let place = parts.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                    parts.push((name.to_owned(), vec![Vec::new(); RUNTIMES.len()]));
                    parts.len() - 1
                });
                parts[place].1[index].push(time);
            }
        }
    }
    ensure!(!parts.is_empty(), "the workload printed nothing");
    for (name, figures) in parts {
        rows(table, &format!("inside a container: {name}"), &figures);
    }
    Ok(())
}

fn many_files(vm: &Vm, engine: &Engine<'_>, table: &mut Table) -> Result<()> {
    let names = FILES.map(|files| format!("files-{files}"));
    for (files, name) in FILES.into_iter().zip(&names) {
        vm.docker_with(&["import", "-", name], &image::crowded_tar(files)?)?.ok()?;
    }
    let mut figures = vec![Vec::new(); FILES.len()];
    for round in 0..=STARTS {
        for (name, times) in names.iter().zip(&mut figures) {
            let time = engine.run(name, RUNTIMES[0], false)?;
            if round > 0 {
                times.push(time);
            }
        }
    }
    let [few, many] = [0, 1].map(|index| seconds(median(figures[index].clone())));
    let what = format!("start of an image with {} files, to one with {}", FILES[1], FILES[0]);
    table.row(&what, &format!("{:.2}", many / few));
    Ok(())
}

/// The engine of an instance.
struct Engine<'s> {
    socket: &'s str,
}

impl Engine<'_> {
    /// Time from asking for a container that does nothing until it is gone.
    fn run(&self, image: &str, runtime: &str, privileged: bool) -> Result<Duration> {
        let wanted = json!({
            "Image": image,
            "Cmd": ["/bin/true"],
            "HostConfig": {"Runtime": runtime, "Privileged": privileged},
        });
        let started = Instant::now();
        let created = ask(self.socket, "POST", "/containers/create", &wanted)?;
        let id = created["Id"].as_str().context("a container has an id")?;
        ask(self.socket, "POST", &format!("/containers/{id}/start"), &Value::Null)?;
        let ended = ask(self.socket, "POST", &format!("/containers/{id}/wait"), &Value::Null)?;
        ask(self.socket, "DELETE", &format!("/containers/{id}"), &Value::Null)?;
        let time = started.elapsed();
        ensure!(ended["StatusCode"] == 0, "the container did not succeed: {ended}");
        Ok(time)
    }
}
