//! `eci-builder generate`: completions and man pages, from the definitions that parse the command line.

use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use crate::ui::Ui;

/// Arguments of `generate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Write completions for a shell to stdout.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write a man page for every subcommand into a folder.
    Man {
        /// The folder; made if missing.
        folder: PathBuf,
    },
}

/// Runs the subcommand.
///
/// # Errors
/// When a page cannot be written.
pub fn run(args: Args, _ui: &Ui) -> anyhow::Result<()> {
    match args.what {
        What::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "eci-builder", &mut script);
            io::Write::write_all(&mut io::stdout(), &script)?;
            Ok(())
        }
        What::Man { folder } => fs::create_dir_all(&folder)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), &folder))
            .with_context(|| format!("cannot write man pages to `{}`", folder.display())),
    }
}
