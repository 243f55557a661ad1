//! `eci-builder`: parse, run the subcommand, return an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    eci_builder::cli::main()
}
