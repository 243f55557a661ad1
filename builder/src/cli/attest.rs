//! `eci-builder attest`: whether a machine with a TPM booted this image, and nothing else.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use eci_contract::attest::{Evidence, NO_TPM};
use ring::rand::{SecureRandom, SystemRandom};
use tempfile::NamedTempFile;

use super::exit::{Classify, Exit};
use super::verify::{read_key, tell};
use crate::attest::{self, Expected, Known};
use crate::image::digest::{Sha256, to_hex};
use crate::image::verify::{self, Report};
use crate::instance::client;
use crate::instance::home::{DEFAULT_NAME, Home};
use crate::ui::Ui;

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
    /// Take a machine whose containers are not isolated as well.
    #[arg(long)]
    isolation_off: bool,
    /// Evidence of the same machine that was saved when it was trusted: TPM and firmware have to be the same.
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// Look at evidence that was saved elsewhere, in answer to this nonce; no instance is asked.
    #[arg(long, value_name = "FILE", requires_all = ["nonce", "folder"], conflicts_with = "save")]
    evidence: Option<PathBuf>,
    /// The question: 16 to 64 bytes in hexadecimal. A new one if none is given.
    #[arg(long, value_name = "HEX")]
    nonce: Option<String>,
    /// Write the evidence to a file, for somebody else to look at or as a reference: with --key if it holds, without whatever it says.
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
    let save = || args.save.as_deref().map_or(Ok(()), |file| save(&evidence, &nonce, file, ui));
    let Some(key) = key else { return save() };
    let mut report = Report::default();
    let expected = verify::Expected { key, certificate: None, flavour: args.flavour.into() };
    let hint = "name the folder of the image's manifest.json and manifest.json.sig";
    let manifest =
        verify::manifest_in(&folder, &expected, &mut report).or_exit_with_hint(Exit::Config, hint)?;
    if let Some(manifest) = manifest {
        let expected = Expected {
            manifest: &manifest,
            nonce: &nonce,
            settings,
            isolation_off: args.isolation_off,
            reference: reference.as_ref(),
        };
        attest::judge(&evidence, &expected, &mut report).or_exit(Exit::Untrusted)?;
    }
    tell(&report, args.json, ui)?;
    if report.holds() {
        if reference.is_none() {
            ui.note(
                "nobody vouches for this TPM, and any program can pretend to be one: --reference, with evidence of a trusted day, \
                 knows machine and firmware again",
            );
        }
        // Not before: a good reference is not to be replaced by something else.
        return save();
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
    let evidence = match client::evidence(&home, to_hex(nonce)) {
        Err(error) if error.to_string().contains(NO_TPM) => {
            Err(error).or_exit_with_hint(Exit::Instance, "stop it, and start it with `eci-builder run --tpm`")
        }
        evidence => evidence.or_exit(Exit::Instance),
    }?;
    Ok((evidence, folder.map_or(started_from, Path::to_owned)))
}

fn new_nonce() -> anyhow::Result<Vec<u8>> {
    let mut nonce = vec![0; NONCE_BYTES];
    SystemRandom::new().fill(&mut nonce).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
    Ok(nonce)
}

fn read_evidence(file: &Path) -> anyhow::Result<Evidence> {
    let shown = file.display();
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|file| file.take(MAX_EVIDENCE_BYTES + 1).read_to_end(&mut bytes));
    let size = read.with_context(|| format!("cannot read `{shown}`")).or_exit(Exit::Config)?;
    if u64::try_from(size).is_ok_and(|size| size > MAX_EVIDENCE_BYTES) {
        let large = anyhow::anyhow!("`{shown}` is larger than evidence is, {MAX_EVIDENCE_BYTES} bytes");
        return Err(large).or_exit(Exit::Config);
    }
    let read = serde_json::from_slice(&bytes).with_context(|| format!("`{shown}` is no evidence"));
    read.or_exit_with_hint(Exit::Config, "`eci-builder attest --save FILE` writes some")
}

/// Writes evidence in place of an older file, when it is whole.
fn save(evidence: &Evidence, nonce: &[u8], file: &Path, ui: &Ui) -> anyhow::Result<()> {
    let shown = file.display();
    if file.symlink_metadata().is_ok_and(|found| !found.is_file()) {
        return Err(anyhow::anyhow!("`{shown}` is there, and is no file")).or_exit(Exit::Config);
    }
    let mut text = serde_json::to_vec_pretty(evidence).context("cannot write evidence as text")?;
    text.push(b'\n');
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let saved = NamedTempFile::new_in(folder).and_then(|mut beside| {
        beside.write_all(&text)?;
        Ok(beside.persist(file)?)
    });
    saved.with_context(|| format!("cannot write `{shown}`")).or_exit(Exit::Config)?;
    ui.note(&format!("evidence for nonce {} is in `{shown}`", to_hex(nonce)));
    Ok(())
}
