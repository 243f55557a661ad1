//! `eci-builder stop`: an orderly shutdown, then the power button, then the plug.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Signal, kill_process};

use super::exit::{Classify, Exit};
use crate::instance::home::{DEFAULT_NAME, Home};
use crate::ui::Ui;

/// The supervisor ends the VM within 60 s whatever the guest does; this is longer than its deadlines together.
const DEADLINE: Duration = Duration::from_secs(75);
const POLL: Duration = Duration::from_millis(50);

/// Arguments of `stop`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the instance.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
}

/// Runs the subcommand.
///
/// # Errors
/// When there is no such instance, or it does not end.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let home = Home::of(&args.name).or_exit(Exit::Instance)?;
    if !stop(&home, ui)? {
        ui.note(&format!("the instance `{}` is not running", home.name()));
    }
    Ok(())
}

/// Tells the supervisor to stop and waits until it has. Gives whether there was one.
///
/// # Errors
/// When it cannot be told, or does not end, or when something else than a supervisor holds the instance.
pub fn stop(home: &Home, ui: &Ui) -> anyhow::Result<bool> {
    let supervisor = home.supervisor().or_exit_with_hint(Exit::Instance, "wait for it to end")?;
    let Some(pid) = supervisor else { return Ok(false) };
    let stage = ui.stage("stop");
    kill_process(pid, Signal::TERM).context("cannot signal the supervisor")?;
    let started = Instant::now();
    while home.supervisor().is_ok_and(|now| now == Some(pid)) {
        if started.elapsed() > DEADLINE {
            return Err(anyhow::anyhow!("the instance `{}` does not end", home.name()))
                .or_exit(Exit::Instance);
        }
        thread::sleep(POLL);
    }
    stage.done(home.name());
    Ok(true)
}
