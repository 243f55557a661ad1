//! `eci-builder update`: a signed image becomes the next version of an instance.

use std::path::PathBuf;

use serde_json::json;

use super::exit::{Classify, Exit};
use super::print_data;
use crate::instance::home::{self, DEFAULT_NAME, Home};
use crate::instance::update::judge::Verdict;
use crate::instance::update::stage::{self, Present};
use crate::instance::update::{Error, apply};
use crate::ui::Ui;

/// Version of what `--json` prints.
const JSON_VERSION: u32 = 1;

/// Arguments of `update`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Output folder of a build with the new version.
    #[arg(value_name = "DIR", default_value = "out")]
    folder: PathBuf,
    /// Name of the instance.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

/// How an update ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The instance runs this image.
    Present,
    /// The next start boots it.
    Installed,
    /// The instance runs; it is put into its slot when it starts again.
    Staged,
}

/// Runs the subcommand.
///
/// # Errors
/// When there is no such instance, or the image is not to be trusted, or may not follow what the instance runs.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let home = Home::of(&args.name).or_exit(Exit::Instance)?;
    let record =
        home.record().or_exit_with_hint(Exit::Instance, "start it once with `eci-builder run DIR`")?;
    let updating = home.lock_update().or_exit_with_hint(Exit::Instance, "wait for it to end")?;
    let present = Present::of(&home, &record.artifacts).map_err(classified)?;
    let verdict = stage::stage(&home, &updating, &present, &args.folder, ui).map_err(classified)?;
    let outcome = match (verdict, home.lock()) {
        (Verdict::IsThere, _) => Outcome::Present,
        (Verdict::BringIn, Ok(held)) => {
            apply::apply(&home, &held, &updating, &record.artifacts, ui).map_err(classified)?;
            Outcome::Installed
        }
        (Verdict::BringIn, Err(home::Error::Running { .. })) => Outcome::Staged,
        (Verdict::BringIn, Err(error)) => return Err(error).or_exit(Exit::Instance),
    };
    let (word, note) = match outcome {
        Outcome::Present => ("present", "this version is there already"),
        Outcome::Installed => {
            ("installed", "the next `eci-builder run` boots it, and goes back if it does not get ready")
        }
        Outcome::Staged => ("staged", "the instance runs; it gets the new version when it is started again"),
    };
    ui.note(&format!("`{}`: {note}", home.name()));
    if args.json {
        print_data(&json!({ "version": JSON_VERSION, "name": home.name(), "outcome": word }).to_string())?;
    }
    Ok(())
}

pub(super) fn classified(error: Error) -> anyhow::Error {
    let (exit, hint) = match &error {
        Error::Untrusted { .. } | Error::NoAnchor { .. } => (
            Exit::Untrusted,
            "an instance takes updates that are signed by the key of what it runs; `eci-builder verify` tells more",
        ),
        Error::Refused(_) => (Exit::Untrusted, "give another image, or make another instance with --name"),
        Error::Artifacts(_) => (Exit::Instance, "name the output folder of a build, with its raw disk image"),
        _ => (Exit::Failure, "the instance boots what it booted before"),
    };
    Err::<(), _>(error).or_exit_with_hint(exit, hint).expect_err("an error was given")
}
