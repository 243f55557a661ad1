//! `delete`: crun's delete, then the container's folder and range.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use eci_contract::paths::CRUN;

use super::program::{self, state_folder};
use crate::arguments::Flags;
use crate::container::{self, Container};
use crate::leftovers::Birth;

/// How often crun is run when it is killed: a shim asks once, and stays for ever when its container was not deleted.
const ATTEMPTS: u32 = 3;

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
    let status = unless_killed(|| program::command(globals, &words).status())
        .map_err(|source| Error::Program { source })?;
    if !state.exists() {
        // The folder is the last to know of a cgroup that crun made and was killed before it wrote down.
        if let Some(birth) = Birth::read(&container) {
            birth.clear_cgroup();
        }
        container.dissolve()?;
    }
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// How a program ends that is run again when it was killed.
fn unless_killed(mut run: impl FnMut() -> io::Result<ExitStatus>) -> io::Result<ExitStatus> {
    let mut status = run()?;
    for _ in 1..ATTEMPTS {
        if status.signal().is_none() {
            break;
        }
        status = run()?;
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crun_that_was_killed_is_run_again_and_one_that_failed_is_not() {
        const KILLED: i32 = 9;
        const FAILED: i32 = 1 << 8;
        for (ends, runs, last) in [
            (&[0][..], 1, 0),
            (&[FAILED, 0], 1, FAILED),
            (&[KILLED, 0], 2, 0),
            (&[KILLED, KILLED, FAILED, 0], 3, FAILED),
            (&[KILLED, KILLED, KILLED, 0], 3, KILLED),
        ] {
            let mut left = ends.iter();
            let status = unless_killed(|| Ok(ExitStatus::from_raw(*left.next().unwrap()))).unwrap();
            assert_eq!((ends.len() - left.len(), status.into_raw()), (runs, last));
        }
    }
}
