//! Errors in the form that reaches the user through the engine.
//!
//! containerd reads the last JSON line of level `error` from the file given by `--log`, and drops it when its time
//! does not parse as RFC 3339.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use eci_audit::time::rfc3339;
pub use eci_contract::errors::chain;
use serde_json::json;

/// Appends `message` to `file`, if there is one, and writes it to standard error.
pub fn report(message: &str, file: Option<&Path>, time: SystemTime) {
    let line = json!({"level": "error", "msg": message, "time": rfc3339(time)}).to_string();
    if let Some(file) = file {
        let written = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(file)
            .and_then(|mut log| writeln!(log, "{line}"));
        // The exit code still says that it failed; standard error below has the reason.
        best_effort(written);
    }
    best_effort(writeln!(std::io::stderr(), "{line}"));
}

/// Says something on standard error that changes nothing.
pub fn warn(message: &str) {
    let line = json!({"level": "warning", "msg": message, "time": rfc3339(SystemTime::now())}).to_string();
    best_effort(writeln!(std::io::stderr(), "{line}"));
}

/// There is nowhere left to report a failure to.
fn best_effort(_outcome: std::io::Result<()>) {}
