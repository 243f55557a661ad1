//! `eci-builder reset`: an instance as it is when it boots its version for the first time.

use super::exit::{Classify, Exit};
use super::stop;
use crate::instance::home::{DEFAULT_NAME, Home};
use crate::instance::reset::{self, Data};
use crate::ui::Ui;

/// Arguments of `reset`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the instance.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Keep images, containers and volumes; drop only an update that waits or is on trial.
    #[arg(long)]
    keep_data: bool,
    /// Stop it first if it runs.
    #[arg(long, short)]
    force: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// When there is no such instance, when it runs and may not be stopped, or when its data disk is not its own.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let home = Home::of(&args.name).or_exit(Exit::Instance)?;
    let record = home.record().or_exit(Exit::Instance)?;
    if !args.keep_data && record.data != home.data_disk() {
        let foreign = anyhow::anyhow!("the data disk `{}` is not the instance's own", record.data.display());
        return Err(foreign)
            .or_exit_with_hint(Exit::Instance, "give --keep-data, and wipe that disk with what made it");
    }
    let updating = home.lock_update().or_exit_with_hint(Exit::Instance, "wait for it to end")?;
    if args.force {
        stop::stop(&home, ui)?;
    }
    let held = home.lock().or_exit_with_hint(Exit::Instance, "stop it first, or give --force")?;
    let data = if args.keep_data { Data::Keep } else { Data::Wipe };
    reset::reset(&home, &held, &updating, data).or_exit(Exit::Failure)?;
    let what = if args.keep_data { "its data stays" } else { "its data is gone" };
    ui.note(&format!("reset `{}`: {what}; it boots the version that last got the engine ready", home.name()));
    Ok(())
}
