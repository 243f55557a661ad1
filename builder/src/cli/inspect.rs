//! `eci-builder inspect`: partitions, packages, kernel options, hashes and signer of an artifact.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use super::exit::{Classify, Exit};
use super::print_data;
use crate::image::assemble::KEY_FILE;
use crate::image::inspect::{self, Inspection, PartitionInfo, UkiInfo};
use crate::image::signature::PublicKey;
use crate::ui::{Ui, human_size};

/// Version of what `--json` prints.
const JSON_VERSION: u32 = 1;

/// Arguments of `inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Output folder, disk image (raw, qcow2 or VHDX), or `manifest.json`.
    artifact: PathBuf,
    /// Public keys (PEM) to try on the signature, besides `image.pub` beside the artifact.
    #[arg(long, value_name = "PUB")]
    key: Vec<PathBuf>,
    /// Print everything as JSON, every kernel option included.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// When the artifact or a key cannot be read.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let mut keys = Vec::new();
    for path in &args.key {
        keys.push(PublicKey::read(path).or_exit(Exit::Config)?);
    }
    let inspection = look_at(&args.artifact, &keys, ui).or_exit(Exit::Failure)?;
    if args.json {
        let mut value = serde_json::to_value(&inspection).context("cannot write the inspection as JSON")?;
        value["version"] = json!(JSON_VERSION);
        return print_data(&value.to_string());
    }
    print_data(&text(&inspection))
}

/// Inspects an artifact; its signature is tried with `keys` and with the key that lies beside it.
///
/// # Errors
/// When it cannot be read.
pub fn look_at(artifact: &Path, keys: &[PublicKey], ui: &Ui) -> Result<Inspection, inspect::Error> {
    let keys: Vec<_> = keys.iter().cloned().chain(key_beside(artifact)).collect();
    inspect::inspect(artifact, &keys, ui)
}

/// The key that lies beside the artifact. It names the signer and proves nothing: whoever changes an artifact can
/// change that file too.
fn key_beside(artifact: &Path) -> Option<PublicKey> {
    let folder = if artifact.is_dir() { artifact } else { artifact.parent()? };
    PublicKey::read(&folder.join(KEY_FILE)).ok()
}

fn text(inspection: &Inspection) -> String {
    let manifest = &inspection.manifest;
    let signer =
        inspection.signer.as_deref().unwrap_or("none of the keys that were tried; give it with --key");
    let mut lines = vec![
        format!("image       {} {} {}", manifest.name, manifest.version, manifest.architecture.as_str()),
        format!("signed by   {signer}"),
        format!("root hash   {}", manifest.root.root_hash),
        format!("salt        {}", manifest.root.salt),
        format!("root        {}", human_size(manifest.root.data_blocks.saturating_mul(4096))),
    ];
    section(
        &mut lines,
        "versions",
        manifest.versions.iter().map(|(name, version)| format!("{name} {version}")),
    );
    section(&mut lines, "partitions", inspection.partitions.iter().map(partition));
    section(&mut lines, "unified kernel image", inspection.uki.iter().flat_map(uki));
    section(
        &mut lines,
        "packages",
        inspection.packages.iter().map(|(name, version)| format!("{name} {version}")),
    );
    section(&mut lines, "sha256", inspection.sha256.iter().map(|(name, digest)| format!("{digest}  {name}")));
    if !inspection.kernel_options.is_empty() {
        lines.push(format!("kernel options set: {} (--json lists them)", inspection.kernel_options.len()));
    }
    lines.join("\n")
}

fn section(lines: &mut Vec<String>, title: &str, entries: impl Iterator<Item = String>) {
    let mut entries = entries.map(|entry| format!("  {entry}")).peekable();
    if entries.peek().is_some() {
        lines.push(format!("{title}:"));
        lines.extend(entries);
    }
}

fn uki(uki: &UkiInfo) -> [String; 5] {
    [
        format!("size         {}", human_size(uki.bytes)),
        format!("kernel       {} {}", uki.release, human_size(uki.kernel_bytes)),
        format!("initrd       {}", human_size(uki.initrd_bytes)),
        format!("command line {}", uki.command_line),
        format!("signed by    {}", uki.signed_by),
    ]
}

fn partition(partition: &PartitionInfo) -> String {
    let boot = partition.boot_count.map_or_else(String::new, |count| {
        format!(
            "  priority {}, tries left {}, {}",
            count.priority,
            count.tries_left,
            if count.successful { "booted well" } else { "never booted well" }
        )
    });
    format!("{:<16} {:>10}  {}{boot}", partition.name, human_size(partition.bytes), partition.uuid)
}
