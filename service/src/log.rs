//! JSON lines on stderr, which PID 1 keeps in its bounded log.

use std::error::Error;
use std::io::{self, Write};

use eci_contract::errors::chain;
use serde_json::json;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something asked for did not happen.
    Error,
    /// Abnormal and harmless.
    Warn,
    /// A rare change of state.
    Info,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
        }
    }
}

/// A plain line.
pub fn line(level: Level, text: &str) {
    write(&json!({ "level": level.name(), "msg": text }));
}

/// A line with an error and its causes.
pub fn failure(level: Level, text: &str, error: &(dyn Error + 'static)) {
    write(&json!({ "level": level.name(), "msg": text, "error": chain(error) }));
}

fn write(line: &serde_json::Value) {
    // Nobody is left to tell when stderr is gone, and serving goes on.
    drop(writeln!(io::stderr(), "{line}"));
}
