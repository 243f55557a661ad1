//! The command line: a file a subcommand, one table for help, man pages and completions.
//!
//! `anyhow` lives here only; the library below returns its own errors, and a subcommand puts an exit code and a hint
//! on them ([`exit`]).
//!
//! A new subcommand is a file with `Args` and `run(args, ui)`, its `pub mod`, its variant and its arm, all in the order
//! of `--help`; `lib.rs` gets the module that does the work.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use eci_contract::manifest::Architecture;
use serde_json::{Value, json};

use crate::image::assemble::Placed;
use crate::ui::{Ui, human_size, printable};

pub mod attest;
pub mod audit;
pub mod build;
pub mod dashboard;
pub mod diff;
pub mod doctor;
pub mod exit;
pub mod generate;
pub mod inspect;
pub mod keygen;
pub mod lock;
pub mod logs;
pub mod pull;
pub mod push;
pub mod reset;
pub mod rm;
pub mod run;
pub mod sandbox;
pub mod settings;
pub mod sign;
pub mod status;
pub mod stop;
pub mod tied;
pub mod update;
pub mod verify;

use exit::{Classified, Exit};

/// Builds, signs, verifies and runs the ECI appliance: Docker's engine in a VM whose containers cannot change it.
#[derive(Debug, Parser)]
#[command(name = "eci-builder", version, propagate_version = true, after_help = exit::HELP)]
pub struct Cli {
    /// Show every program that is run.
    #[arg(long, short, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the image that `eci.toml` describes.
    Build(build::Args),
    /// Boot what was built, and lead `docker` to its engine.
    Run(run::Args),
    /// Show what the VM says of itself, promise by promise.
    Status(status::Args),
    /// Show the VM's log.
    Logs(logs::Args),
    /// Show what was refused in the VM, to whom, and what can be done instead.
    Audit(audit::Args),
    /// Serve a page on this host's loopback that shows an instance: state, trust, containers, refusals and boot.
    Dashboard(dashboard::Args),
    /// Check by its TPM what an instance booted.
    Attest(attest::Args),
    /// Shut an instance down.
    Stop(stop::Args),
    /// Make a signed image the next version of an instance.
    Update(update::Args),
    /// Make an instance as it was when it was new: without its data, and without an update that waits or is on trial.
    Reset(reset::Args),
    /// Remove an instance, its data and its Docker context.
    Rm(rm::Args),
    /// Put signatures into an image that was built with --unsigned, from keys or made elsewhere.
    Sign(sign::Args),
    /// Recompute and check everything of an artifact, root hash and signature included.
    Verify(verify::Args),
    /// Show partitions, packages, kernel options, hashes and signer of an artifact.
    Inspect(inspect::Args),
    /// Show what changed from one artifact to another: packages, sizes, partitions, kernel options.
    Diff(diff::Args),
    /// Put signed images into a registry, as one OCI artifact.
    Push(push::Args),
    /// Take an image out of a registry, if a key's owner signed it.
    Pull(pull::Args),
    /// Check an administrator's settings before an image is built with them.
    Settings(settings::Args),
    /// Make a key pair to sign images with.
    Keygen(keygen::Args),
    /// Resolve package versions and write the lock files; the only command that changes one.
    Lock(lock::Args),
    /// Run a command inside the locked toolchain, where nothing else of this host is.
    Sandbox(sandbox::Args),
    /// Say what this host lacks, and how to mend it.
    Doctor(doctor::Args),
    /// Write shell completions or man pages.
    Generate(generate::Args),
    /// Become a program that dies with its parent.
    #[command(hide = true)]
    Tied(tied::Args),
}

/// An architecture, as the command line spells it.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Arch {
    /// x86-64.
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl From<Arch> for Architecture {
    fn from(arch: Arch) -> Self {
        match arch {
            Arch::X86_64 => Self::X86_64,
            Arch::Aarch64 => Self::Aarch64,
        }
    }
}

/// Parses the command line, runs the subcommand, reports its error.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let ui = Ui::on_stderr(cli.verbose);
    let result = match cli.command {
        Command::Build(args) => build::run(&args, &ui),
        Command::Run(args) => run::run(&args, &ui),
        Command::Status(args) => status::run(&args, &ui),
        Command::Logs(args) => logs::run(&args, &ui),
        Command::Audit(args) => audit::run(&args, &ui),
        Command::Dashboard(args) => dashboard::run(&args, &ui),
        Command::Attest(args) => attest::run(&args, &ui),
        Command::Stop(args) => stop::run(&args, &ui),
        Command::Update(args) => update::run(&args, &ui),
        Command::Reset(args) => reset::run(&args, &ui),
        Command::Rm(args) => rm::run(&args, &ui),
        Command::Sign(args) => sign::run(&args, &ui),
        Command::Verify(args) => verify::run(&args, &ui),
        Command::Inspect(args) => inspect::run(&args, &ui),
        Command::Diff(args) => diff::run(&args, &ui),
        Command::Push(args) => push::run(&args, &ui),
        Command::Pull(args) => pull::run(&args, &ui),
        Command::Settings(args) => settings::run(&args, &ui),
        Command::Keygen(args) => keygen::run(&args, &ui),
        Command::Lock(args) => lock::run(args, &ui),
        Command::Sandbox(args) => sandbox::run(&args, &ui),
        Command::Doctor(args) => doctor::run(&args, &ui),
        Command::Tied(args) => tied::run(&args),
        Command::Generate(args) => generate::run(args, &ui),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that closed our stdout had enough; that is not an error.
        Err(error) if has_kind(&error, io::ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
        Err(error) => report(&ui, &error),
    }
}

/// Prints the error as the whole program does, and gives its exit code.
fn report(ui: &Ui, error: &anyhow::Error) -> ExitCode {
    // Some of it may be the VM's own words.
    let mut lines = format!("{} {}", ui.paint("31", "error:"), printable(&error.to_string()));
    for cause in error.chain().skip(1) {
        lines.push_str(&format!("\n  caused by: {}", printable(&cause.to_string())));
    }
    let (code, hint) = judge(error);
    if let Some(hint) = hint {
        lines.push_str(&format!("\n{} {hint}", ui.paint("36", "hint:")));
    }
    // Nothing is left to tell anyone on when stderr is gone.
    drop(writeln!(io::stderr(), "{lines}"));
    ExitCode::from(code as u8)
}

/// The exit code and the hint of an error. A full disk can stop any operation, so it is found here, whoever met it.
fn judge(error: &anyhow::Error) -> (Exit, Option<&str>) {
    if has_kind(error, io::ErrorKind::StorageFull) {
        return (Exit::Host, Some("free some space; `eci-builder doctor` says how much a build needs"));
    }
    let classified = error.chain().find_map(|cause| cause.downcast_ref::<Classified>());
    (classified.map_or(Exit::Failure, Classified::code), classified.and_then(Classified::hint))
}

fn has_kind(error: &anyhow::Error, kind: io::ErrorKind) -> bool {
    // The chain goes from a classified error to the cause of what it holds; what it holds is looked at on its own.
    let classified = error.downcast_ref::<Classified>().map(Classified::error);
    classified
        .into_iter()
        .chain([error])
        .flat_map(anyhow::Error::chain)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == kind)
}

/// Writes one line of data to stdout.
///
/// # Errors
/// What writing to stdout gave; a broken pipe ends the program quietly.
pub fn print_data(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

/// Artifacts as `--json` has them.
fn artifact_values(placed: &[Placed]) -> Vec<Value> {
    let value = |of: &Placed| json!({ "path": of.path, "bytes": of.bytes, "bytesOnDisk": of.bytes_on_disk });
    placed.iter().map(value).collect()
}

/// Artifacts as lines of text.
fn artifact_lines(placed: &[Placed]) -> String {
    let line = |of: &Placed| format!("{:<40} {:>10}", of.path.display(), human_size(of.bytes_on_disk));
    placed.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn a_full_disk_is_the_host_s_fault_whoever_met_it() {
        use exit::Classify;
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = Err::<(), _>(full).or_exit(Exit::Config).expect_err("it is an error");
        assert_eq!(judge(&error).0, Exit::Host);
        let other = Err::<(), _>(io::Error::from(io::ErrorKind::NotFound)).or_exit(Exit::Config);
        assert_eq!(judge(&other.expect_err("it is an error")), (Exit::Config, None));
    }

    #[test]
    fn the_command_table_is_sound() {
        Cli::command().debug_assert();
    }
}
