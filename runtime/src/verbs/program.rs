//! Handing over to crun.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use eci_contract::paths::CRUN;
use eci_sys::descriptors::close_on_exec_from;

use crate::apply::{self, uptime};
use crate::arguments::{Create, Flags};
use crate::plan::annotations::VARIABLE_PREFIX;
use crate::processes;

/// crun could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot execute `{CRUN}`")]
pub struct Error {
    source: io::Error,
}

/// Becomes crun with these words after the global flags, under the clock of the container that one of them names.
#[must_use]
pub fn pass(globals: &Flags, words: &[String], inherited: u32) -> Error {
    let first = inherited.saturating_add(3);
    match close_on_exec_from(first) {
        Ok(()) => Error { source: command(globals, words).exec() },
        Err(source) => Error { source },
    }
}

/// Becomes crun that makes a container of this bundle.
#[must_use]
pub(super) fn create(globals: &Flags, create: Create, bundle: &Path) -> Error {
    let mut words = vec![create.verb, format!("--bundle={}", bundle.display())];
    words.extend(create.flags.to_arguments());
    words.push(create.id);
    pass(globals, &words, inherited(&create.flags))
}

/// crun with these words, without the environment that it takes orders from, under the clock of the container that one
/// of them names.
pub(super) fn command(globals: &Flags, words: &[String]) -> Command {
    if let Some(pid) = words.iter().find_map(|word| processes::main_of(&state_folder(globals, word))) {
        // It has ended, then, which crun will say.
        best_effort(uptime::join(pid));
    }
    let mut command = Command::new(CRUN);
    command.args(globals.to_arguments()).args(words);
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_order(name)) {
        command.env_remove(name);
    }
    command
}

/// How many descriptors above standard error the container is meant to get.
#[must_use]
pub(super) fn inherited(flags: &Flags) -> u32 {
    let asked = flags.value("preserve-fds").and_then(|number| number.parse().ok()).unwrap_or(0_u32);
    let listening = std::env::var("LISTEN_FDS").ok().and_then(|number| number.parse().ok()).unwrap_or(0_u32);
    asked.saturating_add(listening)
}

/// crun's folder for a container, there as long as crun knows it.
#[must_use]
pub(super) fn state_folder(globals: &Flags, id: &str) -> PathBuf {
    PathBuf::from(globals.value("root").unwrap_or("/run/crun")).join(id)
}

fn best_effort(_outcome: Result<(), apply::Error>) {}

/// crun's own variables, and the socket that a service manager has given somebody: crun mounts the folder that it is in
/// into the container, past every rule about mounts.
fn is_order(name: &OsString) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(VARIABLE_PREFIX) || name == "NOTIFY_SOCKET")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_crun_mounts_by_or_obeys_is_an_order() {
        assert!(is_order(&"RUN_OCI_ANYTHING".into()));
        assert!(is_order(&"NOTIFY_SOCKET".into()));
        assert!(!is_order(&"LISTEN_FDS".into()));
    }
}
