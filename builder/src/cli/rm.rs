//! `eci-builder rm`: removes an instance, its data and its Docker context.

use super::exit::{Classify, Exit};
use super::stop;
use crate::instance::context;
use crate::instance::home::{DEFAULT_NAME, Home};
use crate::ui::Ui;

/// Arguments of `rm`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the instance.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Stop it first if it runs.
    #[arg(long, short)]
    force: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// When there is no such instance, when it runs and may not be stopped, or when something cannot be removed.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let home = Home::of(&args.name).or_exit(Exit::Instance)?;
    let record = home.record().or_exit(Exit::Instance)?;
    let updating = home.lock_update().or_exit_with_hint(Exit::Instance, "wait for it to end")?;
    if args.force {
        stop::stop(&home, ui)?;
    }
    let held = home.lock().or_exit_with_hint(Exit::Instance, "stop it first, or give --force")?;
    context::remove(&home, ui).or_exit(Exit::Instance)?;
    home.remove(held, updating).or_exit(Exit::Instance)?;
    ui.note(&format!(
        "removed `{}` and the Docker context `{}`",
        home.root().display(),
        context::name(&home)
    ));
    if record.data != home.data_disk() {
        ui.note(&format!("kept the data disk `{}`, which is not the instance's own", record.data.display()));
    }
    Ok(())
}
