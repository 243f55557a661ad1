//! The administrator's settings, `admin-settings.json`: read, judged, and what is in force by them.
//!
//! Docker Desktop's schema, and ours under the one key `eci`. Builder and PID 1 read with this reader, so that what was
//! checked is what is in force. [`json`] is the text, [`isolation`] Docker's key for isolation, [`engine`], [`machine`], [`ports`],
//! [`registry`], [`shares`] and [`socket`] ours, [`docker`] what is kept apart.
//!
//! Invariant: [`Settings`] has nothing that no program of this version enforces. A key of ours, or of isolation, that is not known, or
//! there twice, is an error: a policy that is read over is none.

pub mod docker;
pub mod engine;
pub mod isolation;
pub mod json;
pub mod machine;
pub mod ports;
pub mod registry;
pub mod shares;
pub mod socket;

use std::fmt;

use docker::{Feature, feature_of};
use eci_contract::ports::Reach;
use engine::Engine;
use isolation::Isolation;
use json::At;
use machine::Limits;
use shares::Shares;

use crate::json::Json;
use crate::rules::registry::Registries;

/// Most bytes of a file. A script for proxies among Docker's keys is the longest that anybody has, and what comes of the file has
/// to fit into a pipe, 64 KiB, with the engine's own settings.
pub const MAX_BYTES: usize = 32 * 1024;
/// The version of Docker's schema.
pub const FILE_VERSION: u64 = 2;
/// The settings of an image that was built without a file: isolation, which cannot be switched off.
pub const DEFAULT: &str = r#"{
  "configurationFileVersion": 2,
  "enhancedContainerIsolation": { "value": true, "locked": true }
}
"#;

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Isolation of containers.
    pub isolation: Isolation,
    /// The engine's settings.
    pub engine: Engine,
    /// Folders of the host that machines may have.
    pub shares: Shares,
    /// Registries that the engine may reach; every one without.
    pub registries: Option<Registries>,
    /// How far ports of containers may be published.
    pub ports: Reach,
    /// What a machine may be that starts an engine.
    pub limits: Limits,
    /// Keys of Docker's other features that the file has: not in force.
    pub kept_apart: Vec<&'static Feature>,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is too long.
    #[error("it has {bytes} bytes, and {MAX_BYTES} are the most")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It begins with a mark that editors on Windows put there.
    #[error("it begins with a byte order mark; save it as UTF-8 without one")]
    ByteOrderMark,
    /// It is not JSON.
    #[error("it is not JSON")]
    Json(#[source] serde_json::Error),
    /// Something in it is wrong.
    #[error("{}", one_line(.0))]
    Refused(Vec<Problem>),
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: keys with dots, indices in brackets.
    pub path: String,
    /// What is there.
    pub found: String,
    /// Why it cannot be.
    pub reason: String,
    /// What can be done.
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, found, reason, fix } = self;
        write!(formatter, "`{path}` is {found}: {reason}; {fix}")
    }
}

/// What was found to be wrong so far: all of it is told at once.
#[derive(Debug, Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// The value, or `None` and a problem more.
    fn keep<T>(&mut self, outcome: Result<T, Problem>) -> Option<T> {
        outcome.map_err(|problem| self.add(problem)).ok()
    }
}

/// Reads a file's bytes.
///
/// # Errors
/// When anything in it is not understood, or not enforced by this version.
pub fn read(bytes: &[u8]) -> Result<Settings, Error> {
    if bytes.len() > MAX_BYTES {
        return Err(Error::TooLong { bytes: bytes.len() });
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(Error::ByteOrderMark);
    }
    let json: Json = serde_json::from_slice(bytes).map_err(Error::Json)?;
    let mut problems = Problems::default();
    let top = At::top(&json);
    top.duplicates(&mut problems.0);
    let settings = read_top(&top, &mut problems);
    if problems.0.is_empty() { Ok(settings) } else { Err(Error::Refused(problems.0)) }
}

fn read_top(top: &At<'_>, problems: &mut Problems) -> Settings {
    const VERSION: &str = "configurationFileVersion";
    let mut settings = Settings::default();
    let Some(entries) = problems.keep(top.table()) else { return settings };
    if !entries.iter().any(|(key, _)| *key == VERSION) {
        problems.add(top.lacks(VERSION, "it says how the file is to be read", "add it with the value 2"));
    }
    for (key, at) in entries {
        match (key, feature_of(key)) {
            (VERSION, _) => {
                if at.number(FILE_VERSION, FILE_VERSION).is_err() {
                    problems
                        .add(at.problem("this version of eci reads version 2 alone", "write the number 2"));
                }
            }
            ("enhancedContainerIsolation", _) => {
                // Lists of ours may have come first.
                let lists = settings.isolation.socket.lists;
                settings.isolation = isolation::read(&at, problems);
                settings.isolation.socket.lists = lists;
            }
            ("eci", _) => read_ours(&at, &mut settings, problems),
            (_, Some(feature)) => settings.kept_apart.push(feature),
            (_, None) => problems.add(at.problem(
                "it is neither a key of Docker Desktop's that this version knows nor one of ours",
                "leave it out, or mend its spelling; keys of ours are inside of `eci`",
            )),
        }
    }
    settings
}

/// Our keys, all under one.
fn read_ours(at: &At<'_>, settings: &mut Settings, problems: &mut Problems) {
    for (key, at) in problems.keep(at.table()).unwrap_or_default() {
        match key {
            "dockerSocketMount" => settings.isolation.socket.lists = socket::read(&at, problems),
            "engine" => settings.engine = engine::read(&at, problems),
            "ports" => settings.ports = ports::read(&at, problems),
            "registryAccess" => settings.registries = Some(registry::read(&at, problems)),
            "resources" => machine::read_resources(&at, &mut settings.limits, problems),
            "shares" => settings.shares = shares::read(&at, problems),
            "updates" => machine::read_updates(&at, &mut settings.limits, problems),
            _ => problems.add(at.problem(
                "it is not a key of this version",
                "leave it out; the keys are `dockerSocketMount`, `engine`, `ports`, `registryAccess`, `resources`, `shares` and `updates`",
            )),
        }
    }
    if let Some(registries) = &settings.registries {
        registry::judge_engine(registries, &settings.engine, problems);
    }
}

fn one_line(problems: &[Problem]) -> String {
    let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
    shown.join("; and ")
}

#[cfg(test)]
mod tests;
