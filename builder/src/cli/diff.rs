//! `eci-builder diff`: what changed from one artifact to another.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;

use super::exit::{Classify, Exit};
use super::inspect::look_at;
use super::print_data;
use crate::image::diff::{Change, Diff};
use crate::ui::Ui;

/// Version of what `--json` prints.
const JSON_VERSION: u32 = 1;

/// Arguments of `diff`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Output folder, disk image (raw, qcow2 or VHDX), distro for WSL, or `manifest.json`. Packages, licences, materials and kernel
    /// options are read from the files beside it.
    before: PathBuf,
    /// The one that it is held against.
    after: PathBuf,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand. Neither artifact is believed or refused: `verify` is for that.
///
/// # Errors
/// When an artifact cannot be read.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let look_at = |artifact: &PathBuf| look_at(artifact, &[], ui).or_exit(Exit::Failure);
    let diff = Diff::of(&look_at(&args.before)?, &look_at(&args.after)?);
    if args.json {
        let mut value = serde_json::to_value(&diff).context("cannot write the differences as JSON")?;
        value["version"] = json!(JSON_VERSION);
        return print_data(&value.to_string());
    }
    print_data(&text(&diff))
}

fn text(diff: &Diff) -> String {
    let mut lines = Vec::new();
    for (title, changes) in diff.sections() {
        if !changes.is_empty() {
            lines.push(format!("{title}:"));
            lines.extend(changes.iter().map(|(name, change)| format!("  {}", line(name, change))));
        }
    }
    if lines.is_empty() { "no difference".to_owned() } else { lines.join("\n") }
}

fn line(name: &str, Change { before, after }: &Change) -> String {
    match (before, after) {
        (Some(before), Some(after)) => format!("{name}: {before} -> {after}"),
        (Some(before), None) => format!("- {name}: {before}"),
        (None, Some(after)) => format!("+ {name}: {after}"),
        (None, None) => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_came_went_and_changed() {
        let change = |before: Option<&str>, after: Option<&str>| Change {
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        };
        let mut diff = Diff::default();
        assert_eq!(text(&diff), "no difference");
        diff.packages.insert("a".to_owned(), change(Some("1"), Some("2")));
        diff.packages.insert("b".to_owned(), change(Some("1"), None));
        diff.packages.insert("c".to_owned(), change(None, Some("3")));
        assert_eq!(text(&diff), "packages:\n  a: 1 -> 2\n  - b: 1\n  + c: 3");
    }
}
