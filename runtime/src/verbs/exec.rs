//! `exec`: crun enters the container; what could give crun orders is taken out.

use std::path::{Path, PathBuf};

use eci_contract::paths::RUN_DIR;

use super::program;
use crate::arguments::Flags;
use crate::bundle;
use crate::plan::annotations::strip_environment;

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its description cannot be read or written.
    #[error("cannot use the description of the process")]
    Description(#[from] bundle::Error),
    /// crun cannot be started.
    #[error(transparent)]
    Program(#[from] program::Error),
}

/// Becomes crun. Only ever returns an error.
#[must_use]
pub fn run(globals: &Flags, mut flags: Flags, rest: Vec<String>) -> Error {
    if let Some(path) = flags.value("process").map(PathBuf::from) {
        match clean(&path) {
            Ok(None) => {}
            Ok(Some(cleaned)) => flags.replace("process", &cleaned),
            Err(error) => return error.into(),
        }
    }
    let words = [vec!["exec".to_owned()], flags.to_arguments(), rest].concat();
    program::pass(globals, &words, program::inherited(&flags)).into()
}

/// Writes a copy without orders to crun, when the original has some.
fn clean(path: &Path) -> Result<Option<String>, bundle::Error> {
    let mut process = bundle::read_object(path)?;
    if !strip_environment(&mut process) {
        return Ok(None);
    }
    let cleaned = format!("{RUN_DIR}/process-{}.json", std::process::id());
    bundle::write_object(Path::new(&cleaned), &process)?;
    Ok(Some(cleaned))
}
