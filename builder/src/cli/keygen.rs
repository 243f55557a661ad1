//! `eci-builder keygen`: a key pair to sign images with.

use std::path::PathBuf;

use super::exit::{Classify, Exit};
use super::print_data;
use crate::image::signature::{self, PRIVATE_NAME, PUBLIC_NAME};
use crate::ui::Ui;

/// Arguments of `keygen`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder for `image.key` and `image.pub`; made if missing.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Runs the subcommand.
///
/// # Errors
/// When a key is there already or cannot be written.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let key = match signature::generate(&args.folder) {
        Err(error @ signature::Error::Exists { .. }) => Err(error)
            .or_exit_with_hint(Exit::Config, "choose another folder, or move the old key away first"),
        generated => generated.or_exit(Exit::Failure),
    }?;
    let (private, public) = (args.folder.join(PRIVATE_NAME), args.folder.join(PUBLIC_NAME));
    ui.note(&format!("`{}` signs images: keep it secret and keep a copy", private.display()));
    ui.note(&format!(
        "`{}` checks them: name the private key in eci.toml, `[signing] key = …`",
        public.display()
    ));
    print_data(&key.public().id())
}
