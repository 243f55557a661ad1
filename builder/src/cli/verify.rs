//! `eci-builder verify`: recompute and check everything of an artifact against a public key.

use std::path::{Path, PathBuf};

use eci_contract::manifest::Flavour;
use serde_json::json;

use super::exit::{Classify, Exit};
use super::print_data;
use crate::image::secure_boot::Certificate;
use crate::image::signature::PublicKey;
use crate::image::verify::{self, Check, Expected, Report, Verdict};
use crate::ui::Ui;

/// Version of what `--json` prints.
const JSON_VERSION: u32 = 1;

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Output folder, disk image (raw, qcow2 or VHDX), distro for WSL, folder `apple`, or `manifest.json`.
    artifact: PathBuf,
    /// Public key (PEM) that must have signed it.
    #[arg(long, value_name = "PUB")]
    key: PathBuf,
    /// Certificate (PEM) that the unified kernel image must be signed for, `db.crt` of `eci-builder keygen`.
    #[arg(long, value_name = "CRT")]
    certificate: Option<PathBuf>,
    /// What the image must be for; a test image is refused unless this says test.
    #[arg(long, value_enum, default_value = "shipped")]
    flavour: Wanted,
    /// Print the checks as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Wanted {
    /// The appliance that users run.
    Shipped,
    /// The appliance plus tools for the suites.
    Test,
}

impl From<Wanted> for Flavour {
    fn from(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Shipped => Self::Shipped,
            Wanted::Test => Self::Test,
        }
    }
}

/// Runs the subcommand.
///
/// # Errors
/// When a check fails, when nothing could be checked, or when key or artifact cannot be read.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let (key, certificate) = (read_key(&args.key)?, read_certificate(args.certificate.as_deref())?);
    let flavour = args.flavour.into();
    let report =
        verify::verify(&args.artifact, &Expected { key, certificate, flavour }, ui).or_exit(Exit::Failure)?;
    tell(&report, args.json, ui)?;
    if report.holds() {
        return Ok(());
    }
    let failed = report.checks.iter().filter(|check| check.verdict == Verdict::Fails).count();
    let total = report.checks.len();
    let shown = args.artifact.display();
    let failed = anyhow::anyhow!("`{shown}` does not hold: {failed} of {total} checks failed");
    if report.is_unsigned() {
        return Err(failed.context(format!("`{shown}` is not signed yet")))
            .or_exit_with_hint(Exit::Untrusted, super::sign::HINT);
    }
    Err(failed).or_exit(Exit::Untrusted)
}

/// The key that has to have signed an image.
pub(super) fn read_key(path: &Path) -> anyhow::Result<PublicKey> {
    PublicKey::read(path).or_exit_with_hint(
        Exit::Config,
        "give the public half, `image.pub` of `eci-builder keygen`, with --key",
    )
}

/// The certificate that a unified kernel image has to be signed for.
pub(super) fn read_certificate(path: Option<&Path>) -> anyhow::Result<Option<Certificate>> {
    path.map(Certificate::read).transpose().or_exit_with_hint(
        Exit::Config,
        "give the certificate, `secure-boot/db.crt` of `eci-builder keygen`, with --certificate",
    )
}

/// Prints the checks: a line each, or as JSON.
pub(super) fn tell(report: &Report, as_json: bool, ui: &Ui) -> anyhow::Result<()> {
    if as_json {
        let (holds, checks) = (report.holds(), &report.checks);
        return print_data(&json!({ "version": JSON_VERSION, "holds": holds, "checks": checks }).to_string());
    }
    let lines: Vec<_> = report.checks.iter().map(|check| line(check, ui)).collect();
    print_data(&lines.join("\n"))
}

fn line(check: &Check, ui: &Ui) -> String {
    let verdict = match check.verdict {
        Verdict::Holds => ui.paint("32", "ok     "),
        Verdict::Fails => ui.paint("31", "FAILED "),
        Verdict::Skipped => ui.paint("33", "skipped"),
    };
    format!("{verdict} {}: {}: {}", check.subject, check.check, check.detail)
}
