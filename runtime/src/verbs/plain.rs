//! `create` and `run` while isolation is off: the bundle is crun's as the engine wrote it.

use std::env;
use std::io;

use eci_contract::choice::Switch;

use super::program;
use crate::arguments::{Create, Flags};
use crate::switch;

/// Why a container was not created.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's folder, which paths are seen from, is not there.
    #[error("cannot find the current folder")]
    Folder(#[source] io::Error),
    /// Once isolation is on again nobody would know that the container ran without.
    #[error("cannot write down that container `{id}` is not isolated")]
    Unremembered {
        /// Its id.
        id: String,
        /// What the system said.
        source: io::Error,
    },
    /// crun cannot be started.
    #[error(transparent)]
    Program(#[from] program::Error),
}

/// Becomes crun. Only ever returns an error.
#[must_use]
pub fn run(globals: Flags, mut create: Create) -> Error {
    let folder = match env::current_dir() {
        Ok(folder) => folder,
        Err(source) => return Error::Folder(source),
    };
    if let Err(source) = switch::ground().remember(&create.id, Switch::Off) {
        return Error::Unremembered { id: create.id, source };
    }
    create.flags = create.flags.seen_from(&folder);
    let bundle = folder.join(&create.bundle);
    program::create(&globals.seen_from(&folder), create, &bundle).into()
}
