//! `eci-builder logs`: the VM's log, or its console when it does not run.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};

use anyhow::Context;

use super::exit::{Classify, Exit};
use crate::instance::client;
use crate::instance::home::{DEFAULT_NAME, Home};
use crate::ui::{Ui, printable};

/// Bytes of a line that are printed together; a longer one is printed in parts.
const MAX_LINE: u64 = 64 * 1024;

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
    let lines: Box<dyn Read> = if running && !args.console {
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
    print(lines, &mut io::stdout().lock())
}

fn print(lines: impl Read, out: &mut impl Write) -> anyhow::Result<()> {
    let mut lines = BufReader::new(lines);
    let mut line = Vec::new();
    while lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).context("the instance went away")? > 0 {
        out.write_all(printable(&String::from_utf8_lossy(&line)).as_bytes())?;
        out.flush()?;
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_does_not_command_the_terminal() {
        let mut out = Vec::new();
        print(&b"one\x1b[2J\xff\ttwo\nthree"[..], &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "one\u{fffd}[2J\u{fffd}\ttwo\nthree");
    }
}
