//! The benchmark behind `scripts/bench`: measures, and prints a Markdown table.
//!
//! Times are medians; a ratio to a peer is taken in one run on one machine.

mod api;
mod boots;
mod containers;
mod platforms;

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use eci_tests::{command, image};
use serde_json::Value;

/// A part of the benchmark: measures an artifact folder.
type Part = fn(&Path, &mut Table) -> Result<()>;

/// All parts, by the names that the command line takes.
const PARTS: [(&str, Part); 7] = [
    ("sizes", sizes),
    ("boot", boots::measure),
    ("platforms", platforms::boots),
    ("formats", platforms::formats),
    ("updates", platforms::updates),
    ("hashing", hashing),
    ("containers", containers::compare),
];

fn main() -> Result<()> {
    let asked: Vec<String> = env::args().skip(1).collect();
    let names = PARTS.map(|(name, _)| name);
    if let Some(unknown) = asked.iter().find(|part| !names.contains(&part.as_str())) {
        bail!("there is no part `{unknown}`; there are {}", names.join(", "));
    }
    let out = image::out()?;
    let mut table = Table::default();
    for (name, measure) in PARTS {
        if asked.is_empty() || asked.iter().any(|part| part == name) {
            measure(&out, &mut table).with_context(|| format!("part {name}"))?;
        }
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
    if let Ok(ms) = env::var("ECI_BUILD_WARM_MS") {
        table.row("build, warm caches", &format!("{:.1} s", ms.parse::<f64>()? / 1000.0));
    }
    Ok(())
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

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
