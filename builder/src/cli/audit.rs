//! `eci-builder audit`: what was refused in the VM, to whom, and what can be done instead.

use std::io::BufRead;

use anyhow::Context;
use eci_contract::audit::Denial;

use super::exit::{Classify, Exit};
use super::print_data;
use crate::instance::client;
use crate::instance::home::{DEFAULT_NAME, Home};
use crate::ui::{Ui, printable};

/// Characters of a container's id that `docker ps` shows.
const SHORT_ID: usize = 12;

/// Arguments of `audit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the instance.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Go on with new refusals until interrupted.
    #[arg(long, short)]
    follow: bool,
    /// Print the log's own lines of JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// When there is no such instance, or it does not run: the log is on its data disk.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let home = Home::of(&args.name).or_exit(Exit::Instance)?;
    if !home.is_running().or_exit(Exit::Instance)? {
        let stopped = anyhow::anyhow!("the instance `{}` is not running", home.name());
        return Err(stopped).or_exit_with_hint(
            Exit::Instance,
            "the log is on its data disk: start it with `eci-builder run`",
        );
    }
    let log = client::audit(&home, args.follow).or_exit(Exit::Boot)?;
    let mut count = 0_usize;
    for line in log.lines() {
        let line = line.context("the instance went away")?;
        count += 1;
        if args.json { print_data(&line)? } else { print_data(&described(&line))? }
    }
    if count == 0 {
        ui.note("nothing was refused yet");
    }
    Ok(())
}

/// A refusal for people; a line that this version does not understand is shown nearly as it is.
fn described(line: &str) -> String {
    let Ok(denial) = serde_json::from_str::<Denial>(line) else { return printable(line) };
    let Denial { time, action, container, image, rule, message, remedy, .. } = denial;
    let container: String = container.chars().take(SHORT_ID).collect();
    let image = image.map(|image| format!(" of {image}")).unwrap_or_default();
    let told = [format!("{time} {rule}: {action} {container}{image}"), message, format!("instead: {remedy}")];
    // A line that somebody brought along must not read like one of ours.
    told.map(|line| printable(&line).replace('\n', " ")).join("\n    ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_with_what_can_be_done() {
        let line = r#"{"version":1,"time":"2026-11-27T17:00:00Z","by":"eci-runc","action":"create",
            "container":"0123456789abcdef","image":"busybox\u001b[2J","rule":"no-host-namespace","message":"no","remedy":"leave it out"}"#;
        assert_eq!(
            described(line),
            "2026-11-27T17:00:00Z no-host-namespace: create 0123456789ab of busybox\u{fffd}[2J\n    no\n    instead: leave it out"
        );
        assert_eq!(described("{}"), "{}");
    }
}
