//! `delete`: crun's delete, then the container's folder and range.

use std::io;

use eci_contract::paths::CRUN;

use super::program::{self, state_folder};
use crate::arguments::Flags;
use crate::container::{self, Container};

/// Why a container could not be deleted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// crun could not be run.
    #[error("cannot execute `{CRUN}`")]
    Program {
        /// Why.
        source: io::Error,
    },
    /// Folder or range could not be given back.
    #[error(transparent)]
    Container(#[from] container::Error),
}

/// Deletes container `id`, and gives crun's exit code. Folder and range go only when crun has forgotten the
/// container: also when it never knew it, as after a start that failed half way.
///
/// # Errors
/// crun cannot be run, or the container's folder cannot be removed.
pub fn run(globals: &Flags, flags: &Flags, id: String) -> Result<u8, Error> {
    let state = state_folder(globals, &id);
    let container = Container::named(&id);
    let words = [vec!["delete".to_owned()], flags.to_arguments(), vec![id]].concat();
    let status = program::command(globals, &words).status().map_err(|source| Error::Program { source })?;
    if !state.exists() {
        container.dissolve()?;
    }
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
