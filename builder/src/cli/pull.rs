//! `eci-builder pull`: an image out of a registry, put in place when everything in it is verified.

use std::path::PathBuf;

use eci_contract::manifest::{Architecture, Flavour};

use super::exit::{Classify, Exit};
use super::push::{SKOPEO_HINT, tls};
use super::verify::{read_certificate, read_key};
use super::{Arch, artifact_lines, artifact_values, print_data};
use crate::cache::Cache;
use crate::image::oci::layout::Layout;
use crate::image::oci::registry;
use crate::image::oci::unpack::{self, Error};
use crate::image::verify::Expected;
use crate::plan;
use crate::staging::WorkFolder;
use crate::ui::Ui;

/// Version of what `--json` prints.
const JSON_VERSION: u32 = 1;

/// Arguments of `pull`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where from: `REGISTRY/NAME:TAG` or `REGISTRY/NAME@sha256:…`.
    reference: String,
    /// Folder for the artifacts.
    #[arg(long, default_value = "out")]
    out: PathBuf,
    /// Public key (PEM) that must have signed the image.
    #[arg(long, value_name = "PUB")]
    key: PathBuf,
    /// Certificate (PEM) that the unified kernel image must be signed for, `db.crt` of `eci-builder keygen`.
    #[arg(long, value_name = "CRT")]
    certificate: Option<PathBuf>,
    /// Architecture of the image; this host's otherwise.
    #[arg(long, value_enum)]
    arch: Option<Arch>,
    /// The registry may speak HTTP, or have a certificate that nobody vouches for.
    #[arg(long)]
    insecure: bool,
    /// Print the artifacts as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// When the registry has no such image, or it is not as the key's owner signed it; what stood in the folder stands there then.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let (key, certificate) = (read_key(&args.key)?, read_certificate(args.certificate.as_deref())?);
    let expected = Expected { key, certificate, flavour: Flavour::Shipped };
    let architecture = args.arch.map_or_else(plan::host, Architecture::from);
    let cache = Cache::open().or_exit(Exit::Host)?;
    let work = WorkFolder::inside(&cache.folder("work").or_exit(Exit::Host)?, "pull").or_exit(Exit::Host)?;
    let stage = ui.stage("pull");
    registry::pull(&args.reference, architecture, work.path(), tls(args.insecure), ui)
        .or_exit_with_hint(Exit::Host, SKOPEO_HINT)?;
    stage.done(&args.reference);
    let layout = Layout::at(work.path());
    let placed = unpack::unpack(&layout, architecture, &expected, &args.out, ui).map_err(not_unpacked)?;
    if expected.certificate.is_none() {
        ui.note("nobody said whose signature for Secure Boot is expected: --certificate does");
    }
    if args.json {
        let artifacts = artifact_values(&placed);
        let said = serde_json::json!({ "version": JSON_VERSION, "artifacts": artifacts });
        return print_data(&said.to_string());
    }
    print_data(&artifact_lines(&placed))?;
    ui.note(&format!("boot it:  eci-builder run {} --detach", args.out.display()));
    Ok(())
}

fn not_unpacked(error: Error) -> anyhow::Error {
    let (exit, hint) = match &error {
        Error::Untrusted { .. } => {
            (Exit::Untrusted, "give the key of who made the image; nothing was put in place")
        }
        Error::OtherArchitecture { .. } => (Exit::Config, "give --arch; nothing was put in place"),
        Error::Write { .. } | Error::Verify(_) | Error::Staging(_) | Error::Place(_) => {
            (Exit::Failure, "`eci-builder doctor` checks what this host lacks")
        }
        _ => (Exit::Untrusted, "`eci-builder push` makes what can be pulled; nothing was put in place"),
    };
    Err::<(), _>(error).or_exit_with_hint(exit, hint).expect_err("an error was given")
}
