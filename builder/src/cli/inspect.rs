//! `eci-builder inspect`: partitions, packages, licences, kernel options, hashes, signer and provenance of an artifact.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use eci_contract::status::SettingsSource;
use serde_json::json;

use super::exit::{Classify, Exit};
use super::print_data;
use crate::image::assemble::KEY_FILE;
use crate::image::inspect::{self, Inspection, PartitionInfo, ProvenanceInfo, SettingsInfo, UkiInfo};
use crate::image::sbom;
use crate::image::signature::PublicKey;
use crate::image::vulnerabilities::{self, Vulnerability};
use crate::ui::{Ui, human_size};

/// Version of what `--json` prints.
const JSON_VERSION: u32 = 1;
/// Where the tracker's data is to be had.
const TRACKER_HINT: &str =
    "save https://security-tracker.debian.org/tracker/data/json and name the file with --vulnerabilities";
/// What is said where no key fits.
const UNKNOWN_KEY: &str = "none of the keys that were tried; give it with --key";

/// Arguments of `inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Output folder, disk image (raw, qcow2 or VHDX), distro for WSL, folder `apple`, or `manifest.json`.
    artifact: PathBuf,
    /// Public keys (PEM) to try on the signature, besides `image.pub` beside the artifact.
    #[arg(long, value_name = "PUB")]
    key: Vec<PathBuf>,
    /// Data of Debian's security tracker (JSON): list what of it concerns the versions of the image's source packages.
    #[arg(long, value_name = "FILE")]
    vulnerabilities: Option<PathBuf>,
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
    let vulnerabilities =
        args.vulnerabilities.as_deref().map(|data| known(&inspection, data, args)).transpose()?;
    if args.json {
        let mut value = serde_json::to_value(&inspection).context("cannot write the inspection as JSON")?;
        value["version"] = json!(JSON_VERSION);
        if let Some(vulnerabilities) = vulnerabilities {
            value["vulnerabilities"] =
                serde_json::to_value(vulnerabilities).context("cannot write vulnerabilities as JSON")?;
        }
        return print_data(&value.to_string());
    }
    let mut lines = text(&inspection);
    if let Some(vulnerabilities) = vulnerabilities {
        lines.push(format!(
            "known vulnerabilities: {} in {} source packages",
            vulnerabilities.len(),
            inspection.sources.len()
        ));
        lines.extend(vulnerabilities.iter().map(vulnerability));
    }
    print_data(&lines.join("\n"))
}

/// Vulnerabilities of what the bill of materials beside the artifact names.
fn known(inspection: &Inspection, data: &Path, args: &Args) -> anyhow::Result<Vec<Vulnerability>> {
    let release = inspection.release.as_deref().filter(|_| !inspection.sources.is_empty());
    let release = release
        .with_context(|| format!("no bill of materials beside `{}` names sources", args.artifact.display()))
        .or_exit_with_hint(Exit::Config, format!("name an output folder, with {} in it", sbom::spdx::FILE))?;
    vulnerabilities::read(data, release, &inspection.sources).or_exit_with_hint(Exit::Config, TRACKER_HINT)
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

fn text(inspection: &Inspection) -> Vec<String> {
    let manifest = &inspection.manifest;
    let signer = inspection.signer.as_deref().unwrap_or(UNKNOWN_KEY);
    let mut lines = vec![
        format!("image       {} {} {}", manifest.name, manifest.version, manifest.architecture.as_str()),
        format!("signed by   {signer}"),
        format!("root hash   {}", manifest.root.root_hash),
        format!("salt        {}", manifest.root.salt),
        format!("root        {}", human_size(manifest.root.data_blocks.saturating_mul(4096))),
    ];
    if let Some(SettingsInfo { source, sha256, takes_disks }) = &inspection.settings {
        let source = match source {
            SettingsSource::Default => "default: isolation, locked",
            SettingsSource::Image => "of an administrator",
            SettingsSource::Disk => "of a config disk",
        };
        let disks = if *takes_disks { "; takes config disks" } else { "" };
        lines.push(format!("settings    {source}, sha256 {sha256}{disks}"));
    }
    section(
        &mut lines,
        "versions",
        manifest.versions.iter().map(|(name, version)| format!("{name} {version}")),
    );
    section(&mut lines, "partitions", inspection.partitions.iter().map(partition));
    section(&mut lines, "unified kernel image", inspection.uki.iter().flat_map(uki));
    section(&mut lines, "provenance", inspection.provenance.iter().flat_map(provenance));
    section(
        &mut lines,
        "packages",
        inspection.packages.iter().map(|(name, version)| format!("{name} {version}")),
    );
    section(&mut lines, "licences", licences(inspection).into_iter());
    section(&mut lines, "sha256", inspection.sha256.iter().map(|(name, digest)| format!("{digest}  {name}")));
    if !inspection.kernel_options.is_empty() {
        lines.push(format!("kernel options set: {} (--json lists them)", inspection.kernel_options.len()));
    }
    lines
}

fn vulnerability(found: &Vulnerability) -> String {
    let Vulnerability { source, version, name, status, .. } = found;
    let fixed = found.fixed_version.iter().map(|fixed| format!("fixed in {fixed}"));
    let urgency = found.urgency.clone().into_iter();
    let no_advisory = found.no_advisory.iter().map(|reason| format!("no advisory: {reason}"));
    let rest: String = fixed.chain(urgency).chain(no_advisory).map(|part| format!(", {part}")).collect();
    let line = format!("  {source} {version}  {name}  {}{rest}", status.as_str());
    // The file is the user's, and its text goes to a terminal.
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
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

fn provenance(provenance: &ProvenanceInfo) -> [String; 4] {
    let or = |value: &Option<String>, none: &str| value.as_deref().unwrap_or(none).to_owned();
    [
        format!("signed by    {}", or(&provenance.signer, UNKNOWN_KEY)),
        format!("built by     {}", provenance.builder),
        format!("commit       {}", or(&provenance.commit, "none: the checkout was not as it was committed")),
        format!("materials    {} (--json lists them)", provenance.materials.len()),
    ]
}

/// How many packages and programs are under a licence, the most frequent first.
fn licences(inspection: &Inspection) -> Vec<String> {
    let mut counts = BTreeMap::<_, usize>::new();
    for licence in inspection.licences.values() {
        *counts.entry(licence).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| Reverse(*count));
    counts.into_iter().map(|(licence, count)| format!("{count:>4}  {licence}")).collect()
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
