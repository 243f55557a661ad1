//! `eci-builder logs`: the VM's log, or its console when it does not run.

use std::fs::File;
use std::io::{self, Read};

use anyhow::Context;

use super::exit::{Classify, Exit};
use crate::instance::client;
use crate::instance::home::{DEFAULT_NAME, Home};
use crate::ui::Ui;

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the instance.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Go on with new lines until interrupted.
    #[arg(long, short)]
    follow: bool,
    /// Show the console since power-on instead of the kept log.
    #[arg(long, conflicts_with = "follow")]
    console: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// When there is no such instance, or it does not answer.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let home = Home::of(&args.name).or_exit(Exit::Instance)?;
    let running = home.is_running().or_exit(Exit::Instance)?;
    let mut lines: Box<dyn Read> = if running && !args.console {
        Box::new(
            client::logs(&home, args.follow)
                .or_exit_with_hint(Exit::Boot, "try `eci-builder logs --console`")?,
        )
    } else {
        if !args.console {
            ui.note("the instance is stopped; this is the console of its last run");
        }
        Box::new(File::open(home.console_log()).context("cannot read the console's log")?)
    };
    io::copy(&mut lines, &mut io::stdout().lock())?;
    Ok(())
}
