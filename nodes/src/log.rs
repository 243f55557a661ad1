//! JSON lines on stderr, which PID 1 keeps in its bounded log. A container can cause no line: it could fill the log.

use std::error::Error;
use std::io::{self, Write};

use eci_contract::errors::chain;
use serde_json::json;

/// A line with an error and its causes.
pub fn failure(text: &str, error: &(dyn Error + 'static)) {
    let line = json!({ "level": "error", "msg": text, "error": chain(error) });
    // Nobody is left to tell when stderr is gone, and serving goes on.
    drop(writeln!(io::stderr(), "{line}"));
}
