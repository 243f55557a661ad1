//! `enhancedContainerIsolation`, as Docker Desktop has it.
//!
//! Invariant: what no program of this version enforces is refused, not read over: isolation that is switched off, and lists of who
//! may have the engine's socket. Empty lists are what is in force.

use super::json::At;
use super::{Problem, Problems};

/// Isolation of containers. It is always on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// Nobody below the administrator may switch it off. Nobody can in this version, in either case.
    pub locked: bool,
}

impl Default for Isolation {
    /// What a file without the key says.
    fn default() -> Self {
        Self { locked: true }
    }
}

/// Reads the key's value.
pub(super) fn read(at: &At<'_>, problems: &mut Problems) -> Isolation {
    let mut isolation = Isolation::default();
    let Some(entries) = problems.keep(at.table()) else { return isolation };
    for needed in ["value", "locked"] {
        if !entries.iter().any(|(key, _)| *key == needed) {
            problems.add(at.lacks(needed, "Docker's schema has it", "add it: true or false"));
        }
    }
    for (key, at) in entries {
        match key {
            "value" => drop(problems.keep(judge_value(&at))),
            "locked" => isolation.locked = problems.keep(at.switch()).unwrap_or(true),
            "dockerSocketMount" => judge_socket_mount(&at, problems),
            _ => problems.add(at.problem(
                "it is no key of enhanced container isolation",
                "leave it out; those are value, locked and dockerSocketMount",
            )),
        }
    }
    isolation
}

fn judge_value(at: &At<'_>) -> Result<(), Problem> {
    match at.switch()? {
        true => Ok(()),
        false => Err(at.problem("this version does not run without isolation yet", "set it to true")),
    }
}

fn judge_socket_mount(at: &At<'_>, problems: &mut Problems) {
    for (key, at) in problems.keep(at.table()).unwrap_or_default() {
        match key {
            "imageList" => judge_list(&at, problems, "images", |key, at| match key {
                "allowDerivedImages" => at.switch().map(drop),
                _ => Err(unknown(at, "images and allowDerivedImages")),
            }),
            "commandList" => judge_list(&at, problems, "commands", |key, at| match key {
                "type" => match at.text()? {
                    "deny" | "allow" => Ok(()),
                    _ => Err(at.problem("it is no type of a command list", "write deny or allow")),
                },
                _ => Err(unknown(at, "type and commands")),
            }),
            _ => problems.add(unknown(&at, "imageList and commandList")),
        }
    }
}

/// A table with a list that has to be empty, and other keys that `other` judges.
fn judge_list(
    at: &At<'_>,
    problems: &mut Problems,
    list: &str,
    other: fn(&str, &At<'_>) -> Result<(), Problem>,
) {
    for (key, at) in problems.keep(at.table()).unwrap_or_default() {
        let outcome = if key == list { judge_empty(&at) } else { other(key, &at) };
        problems.keep(outcome);
    }
}

fn judge_empty(at: &At<'_>) -> Result<(), Problem> {
    if at.list()?.is_empty() {
        return Ok(());
    }
    Err(at.problem(
        "this version gives the engine's socket to no container, and does not enforce the list yet",
        "leave the list empty",
    ))
}

fn unknown(at: &At<'_>, known: &str) -> Problem {
    at.problem("it is no key of Docker's schema", format!("leave it out; those are {known}"))
}
