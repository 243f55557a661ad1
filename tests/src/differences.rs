//! What differs between two builds that should have given the same bytes, in diffoscope's words: it looks into what files are made of.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command;

/// Files that are told of, smallest first: a disk differs because of what is in it.
const TOLD: usize = 3;
/// Most lines of diffoscope's that are shown of a file.
const LINES: usize = 60;

/// Fails with what differs, unless both folders have the same files of these names.
///
/// # Errors
/// With diffoscope's report of the smallest files that differ.
pub fn same_files<'n>(one: &Path, other: &Path, names: impl IntoIterator<Item = &'n str>) -> Result<()> {
    let mut differ = Vec::new();
    for name in names {
        let (one, other) = (one.join(name), other.join(name));
        let same = command::run(Command::new("cmp").arg("--quiet").arg(&one).arg(&other), &[])?.code == 0;
        if !same {
            differ.push((fs::metadata(&other).map_or(0, |metadata| metadata.len()), one, other, name));
        }
    }
    differ.sort();
    let names: Vec<_> = differ.iter().map(|(.., name)| *name).collect();
    let told: Result<Vec<_>> =
        differ.iter().take(TOLD).map(|(_, one, other, _)| report(one, other)).collect();
    ensure!(differ.is_empty(), "not the same bytes: {}\n{}", names.join(", "), told?.join("\n"));
    Ok(())
}

fn report(one: &Path, other: &Path) -> Result<String> {
    let mut diffoscope = Command::new("diffoscope");
    diffoscope.args([
        "--no-progress",
        "--no-default-limits",
        "--max-page-diff-block-lines",
        "50",
        "--text",
        "-",
    ]);
    let said = command::run(diffoscope.arg(one).arg(other), &[])
        .context("diffoscope is missing; scripts/test installs it")?;
    let text = said.stdout();
    let lines: Vec<_> = text.lines().take(LINES).collect();
    let more = if text.lines().count() > LINES { "\n…" } else { "" };
    Ok(format!("{}{more}{}", lines.join("\n"), said.stderr))
}
