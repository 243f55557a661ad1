//! `eci-builder tied`: becomes another program that dies with its parent. Hidden; `run` starts QEMU through it.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// Arguments of `tied`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Process id of the parent.
    parent: i32,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<std::ffi::OsString>,
}

/// Runs the subcommand; returns only when the program could not be started.
///
/// # Errors
/// When the parent is gone or the program cannot be started.
pub fn run(args: &Args) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot tie the process to its parent")?;
    // A parent that ended before the call above will never send the signal.
    if getppid() != Pid::from_raw(args.parent) {
        bail!("the parent process {} is gone", args.parent);
    }
    let (program, arguments) = args.command.split_first().context("no program to become")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run `{}`", program.to_string_lossy()))
}
