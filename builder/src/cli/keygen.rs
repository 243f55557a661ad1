//! `eci-builder keygen`: keys to sign images with.

use std::path::PathBuf;

use super::exit::{Classify, Exit};
use super::print_data;
use crate::image::secure_boot::{self, FOLDER};
use crate::image::signature::{self, PRIVATE_NAME, PUBLIC_NAME};
use crate::tool;
use crate::ui::Ui;

/// Arguments of `keygen`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder for `image.key`, `image.pub` and `secure-boot/`; made if missing.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Runs the subcommand.
///
/// # Errors
/// When a key is there already or cannot be written.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let hint = "choose another folder, or move the old key away first";
    tool::require("openssl").or_exit_with_hint(Exit::Host, "install openssl")?;
    let key = match signature::generate(&args.folder) {
        Err(error @ signature::Error::Exists { .. }) => Err(error).or_exit_with_hint(Exit::Config, hint),
        generated => generated.or_exit(Exit::Failure),
    }?;
    match secure_boot::generate(&args.folder, ui) {
        Err(error @ secure_boot::Error::Exists { .. }) => Err(error).or_exit_with_hint(Exit::Config, hint),
        generated => generated.or_exit(Exit::Failure),
    }?;
    let path = |name: &str| args.folder.join(name).display().to_string();
    ui.note(&format!("`{}` signs images: keep it secret and keep a copy", path(PRIVATE_NAME)));
    ui.note(&format!(
        "`{}` checks them: name the private key in eci.toml, `[signing] key = …`",
        path(PUBLIC_NAME)
    ));
    ui.note(&format!(
        "`{0}/db.key` signs for Secure Boot: name it in eci.toml with `{0}/db.crt`, `[secure_boot] key = …, certificate = …`",
        path(FOLDER)
    ));
    ui.note(&format!(
        "`{0}/db.auth`, `{0}/KEK.auth` and `{0}/PK.auth` enrol it, in this order, in firmware that is in setup mode",
        path(FOLDER)
    ));
    print_data(&key.public().id())
}
