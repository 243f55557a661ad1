//! `eci-builder attest`: whether a machine with a TPM booted this image, and nothing else.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use eci_contract::attest::Evidence;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;
use tempfile::NamedTempFile;

use super::exit::{Classify, Exit};
use super::print_data;
use super::verify::{read_key, table};
use crate::attest::{self, Expected, Known};
use crate::image::digest::{Sha256, to_hex};
use crate::image::verify::{self, Report};
use crate::instance::client;
use crate::instance::home::{DEFAULT_NAME, Home};
use crate::ui::Ui;

/// Version of what `--json` prints.
const JSON_VERSION: u32 = 1;
/// Bytes of a nonce that is made here.
const NONCE_BYTES: usize = 32;
/// Largest file of evidence, in bytes: the VM answers with no more.
const MAX_EVIDENCE_BYTES: u64 = 1 << 20;

/// Arguments of `attest`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder with `manifest.json` and `manifest.json.sig` of the image that should run; the one that the instance was started from, if
    /// none is given.
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Public key that must have signed the image.
    #[arg(long, value_name = "PUB", required_unless_present = "save")]
    key: Option<PathBuf>,
    /// Name of the instance that is asked.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Settings that should be in force.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Evidence of the same machine that was saved when it was trusted: TPM and firmware have to be the same.
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// Look at evidence that was saved elsewhere, in answer to this nonce; no instance is asked.
    #[arg(long, value_name = "FILE", requires_all = ["nonce", "folder"], conflicts_with = "save")]
    evidence: Option<PathBuf>,
    /// The question: 1 to 64 bytes in hexadecimal. A new one if none is given.
    #[arg(long, value_name = "HEX")]
    nonce: Option<String>,
    /// Write the evidence to a file, for somebody else to look at or as a reference. Without --key nothing is checked.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// What the image must be for; a test image is refused unless this says test.
    #[arg(long, value_enum, default_value = "shipped")]
    flavour: super::verify::Wanted,
    /// Print the checks as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// When there is no evidence to be had, or it is not of this image.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    // What can be wrong here is found before a machine is asked.
    let key = args.key.as_deref().map(read_key).transpose()?;
    let settings = args.settings.as_deref().map(Sha256::of_file).transpose();
    let settings = settings.context("cannot read the settings").or_exit(Exit::Config)?;
    let reference = args.reference.as_deref().map(read_evidence).transpose()?;
    let reference = reference.as_ref().map(Known::of).transpose().or_exit(Exit::Config)?;
    let nonce = args.nonce.as_deref().map_or_else(new_nonce, |text| Ok(attest::nonce(text)?));
    let nonce = nonce.or_exit_with_hint(Exit::Config, "`openssl rand -hex 32` makes one")?;
    let (evidence, folder) = match (&args.evidence, &args.folder) {
        (Some(file), Some(folder)) => (read_evidence(file)?, folder.clone()),
        (_, folder) => ask(&args.name, &nonce, folder.as_deref())?,
    };
    if let Some(file) = &args.save {
        save(&evidence, file)?;
        ui.note(&format!("evidence for nonce {} is in `{}`", to_hex(&nonce), file.display()));
    }
    let Some(key) = key else { return Ok(()) };
    let mut report = Report::default();
    let expected = verify::Expected { key, certificate: None, flavour: args.flavour.into() };
    let hint = "name the folder of the image's manifest.json and manifest.json.sig";
    let manifest =
        verify::manifest_in(&folder, &expected, &mut report).or_exit_with_hint(Exit::Config, hint)?;
    if let Some(manifest) = manifest {
        let expected =
            Expected { manifest: &manifest, nonce: &nonce, settings, reference: reference.as_ref() };
        attest::judge(&evidence, &expected, &mut report).or_exit(Exit::Untrusted)?;
    }
    if args.json {
        let (holds, checks) = (report.holds(), &report.checks);
        print_data(&json!({ "version": JSON_VERSION, "holds": holds, "checks": checks }).to_string())?;
    } else {
        print_data(&table(&report, ui))?;
    }
    if report.holds() {
        return Ok(());
    }
    let failed = report.failures();
    Err(anyhow::anyhow!("this boot is not one of that image: {}", failed.join("; "))).or_exit(Exit::Untrusted)
}

/// Evidence of a running instance, and the folder that it was started from.
fn ask(name: &str, nonce: &[u8], folder: Option<&Path>) -> anyhow::Result<(Evidence, PathBuf)> {
    let home = Home::of(name).or_exit(Exit::Instance)?;
    let start = "start it with `eci-builder run --tpm`";
    if !home.is_running().or_exit_with_hint(Exit::Instance, start)? {
        let stopped = anyhow::anyhow!("the instance `{}` is stopped", home.name());
        return Err(stopped).or_exit_with_hint(Exit::Instance, start);
    }
    let started_from = home.record().or_exit(Exit::Instance)?.artifacts;
    let evidence = client::evidence(&home, to_hex(nonce)).or_exit_with_hint(Exit::Instance, start)?;
    Ok((evidence, folder.map_or(started_from, Path::to_owned)))
}

fn new_nonce() -> anyhow::Result<Vec<u8>> {
    let mut nonce = vec![0; NONCE_BYTES];
    SystemRandom::new().fill(&mut nonce).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
    Ok(nonce)
}

fn read_evidence(file: &Path) -> anyhow::Result<Evidence> {
    let shown = file.display();
    let size =
        fs::metadata(file).with_context(|| format!("cannot read `{shown}`")).or_exit(Exit::Config)?.len();
    if size > MAX_EVIDENCE_BYTES {
        let large =
            anyhow::anyhow!("`{shown}` is {size} bytes long, and evidence at most {MAX_EVIDENCE_BYTES}");
        return Err(large).or_exit(Exit::Config);
    }
    let bytes = fs::read(file).with_context(|| format!("cannot read `{shown}`")).or_exit(Exit::Config)?;
    let read = serde_json::from_slice(&bytes).with_context(|| format!("`{shown}` is no evidence"));
    read.or_exit_with_hint(Exit::Config, "`eci-builder attest --save FILE` writes some")
}

fn save(evidence: &Evidence, file: &Path) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(evidence).context("cannot write evidence as text")?;
    text.push(b'\n');
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // In place of an older file when it is whole.
    let saved = NamedTempFile::new_in(folder).and_then(|mut beside| {
        beside.write_all(&text)?;
        Ok(beside.persist(file)?)
    });
    saved.map(drop).with_context(|| format!("cannot write `{}`", file.display())).or_exit(Exit::Config)
}
