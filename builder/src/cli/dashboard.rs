//! `eci-builder dashboard`: a page that shows an instance, for who runs it.

use super::exit::{Classify, Exit};
use super::print_data;
use crate::dashboard::Server;
use crate::dashboard::data::Source;
use crate::instance::home::{DEFAULT_NAME, Home};
use crate::ui::Ui;

/// Arguments of `dashboard`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the instance.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Port of 127.0.0.1 to serve on; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// Runs the subcommand: prints the address, and serves until interrupted. The instance may stop and start meanwhile.
///
/// # Errors
/// When there is no such instance, or the port cannot be had.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let home = Home::of(&args.name).or_exit(Exit::Instance)?;
    home.record().or_exit_with_hint(Exit::Instance, "start it with `eci-builder run`")?;
    let taken = "choose another one with --port, or none for one that is free";
    let server = Server::bind(args.port).or_exit_with_hint(Exit::Host, taken)?;
    print_data(&server.url())?;
    ui.note("whoever has this address sees the instance; Ctrl-C ends it");
    let source = Source::of(home);
    server.serve(move || source.json())
}
