//! `eci-builder push`: signed images into a registry, as one OCI artifact.

use std::path::PathBuf;

use serde_json::json;

use super::exit::{Classify, Exit};
use super::print_data;
use crate::cache::Cache;
use crate::image::oci::pack::{self, Error};
use crate::image::oci::registry::{self, Tls};
use crate::staging::WorkFolder;
use crate::ui::Ui;

/// Version of what `--json` prints.
const JSON_VERSION: u32 = 1;
/// What to do when the registry does not take or give something.
pub(super) const SKOPEO_HINT: &str = "install skopeo; `docker login` or `skopeo login` gives credentials, --insecure takes registries without certificate";

/// Arguments of `push`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to: `REGISTRY/NAME:TAG`.
    reference: String,
    /// Output folders of signed images of one version, one for each architecture.
    #[arg(value_name = "DIR", default_value = "out")]
    folders: Vec<PathBuf>,
    /// The registry may speak HTTP, or have a certificate that nobody vouches for.
    #[arg(long)]
    insecure: bool,
    /// Print reference and digest as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// When a folder is not a signed image as it was built, or the registry does not take it.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let cache = Cache::open().or_exit(Exit::Host)?;
    let work = WorkFolder::inside(&cache.folder("work").or_exit(Exit::Host)?, "push").or_exit(Exit::Host)?;
    let digest = pack::pack(&args.folders, work.path(), ui).map_err(not_packed)?;
    let stage = ui.stage("push");
    registry::push(work.path(), &args.reference, tls(args.insecure), ui)
        .or_exit_with_hint(Exit::Host, SKOPEO_HINT)?;
    stage.done(&digest);
    if args.json {
        let said = json!({ "version": JSON_VERSION, "reference": args.reference, "digest": digest });
        return print_data(&said.to_string());
    }
    print_data(&format!("{} {digest}", args.reference))
}

pub(super) fn tls(insecure: bool) -> Tls {
    if insecure { Tls::Unverified } else { Tls::Verified }
}

fn not_packed(error: Error) -> anyhow::Error {
    let (exit, hint) = match &error {
        Error::Unsigned { .. } => (Exit::Untrusted, super::sign::HINT),
        Error::Changed { .. } => (Exit::Untrusted, "build it again; nothing was pushed"),
        Error::Twice { .. } | Error::OtherImage { .. } => {
            (Exit::Config, "a reference has one image, for each architecture once: push others elsewhere")
        }
        Error::NoForm { .. } => (Exit::Config, "`eci-builder build --format raw` makes it"),
        Error::Read { .. } | Error::Manifest { .. } => {
            (Exit::Config, "`eci-builder build` makes such a folder")
        }
        Error::Layout(_) => (Exit::Failure, "`eci-builder doctor` checks what this host lacks"),
    };
    Err::<(), _>(error).or_exit_with_hint(exit, hint).expect_err("an error was given")
}
