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
            io::Write::write_all(&mut io::stdout(), &completions(shell))?;
            Ok(())
        }
        What::Man { folder } => fs::create_dir_all(&folder)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), &folder))
            .with_context(|| format!("cannot write man pages to `{}`", folder.display())),
    }
}

fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "eci-builder", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_completes_every_subcommand() {
        for shell in Shell::value_variants() {
            let script = String::from_utf8(completions(*shell)).expect("scripts are text");
            for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
        }
    }

    #[test]
    fn every_subcommand_has_a_man_page() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let pages = folder.path().join("man");
        let args = Args { what: What::Man { folder: pages.clone() } };
        run(args, &Ui::silent()).expect("written");
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(pages.join(format!("eci-builder-{}.1", command.get_name())).exists());
        }
    }
}
