//! `eci-builder stop`: an orderly shutdown, then the power button, then the plug.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

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
    if !home.is_running().or_exit(Exit::Instance)? {
        ui.note(&format!("the instance `{}` is not running", home.name()));
        return Ok(());
    }
    stop(&home, ui)
}

/// Tells the supervisor to stop and waits until it has.
///
/// # Errors
/// When it cannot be told, or does not end.
pub fn stop(home: &Home, ui: &Ui) -> anyhow::Result<()> {
    let stage = ui.stage("stop");
    let record = home.record().or_exit(Exit::Instance)?;
    let pid =
        i32::try_from(record.pid).ok().and_then(Pid::from_raw).context("the record names no process")?;
    kill_process(pid, Signal::TERM).context("cannot signal the supervisor")?;
    let started = Instant::now();
    while home.is_running().or_exit(Exit::Instance)? {
        if started.elapsed() > DEADLINE {
            return Err(anyhow::anyhow!("the instance `{}` does not end", home.name()))
                .or_exit(Exit::Instance);
        }
        thread::sleep(POLL);
    }
    stage.done(home.name());
    Ok(())
}
