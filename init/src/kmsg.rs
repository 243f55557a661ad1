//! The log: one record a write to `/dev/kmsg`, which puts it on every console and keeps it in order with the
//! kernel's own words. File descriptor 2 before that exists.

use std::fs::OpenOptions;
use std::io::Write;

pub use eci_contract::errors::chain;

/// Longest record in bytes. The kernel cuts at 1024 with its prefix; 900 leaves room for that.
const MAX_RECORD_BYTES: usize = 900;

/// How loud a record is, as a syslog priority. The console shows the first two; the log keeps all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The engine will not run, or the machine stops.
    Error,
    /// A milestone.
    Notice,
    /// The start and end of each step. A serial port takes 1 ms for 12 letters, so these stay off it.
    Info,
}

/// Logs one record. Nothing can be done about a log that fails, so nothing is returned.
pub fn log(level: Level, text: &str) {
    let record = record(level, text);
    let written =
        OpenOptions::new().write(true).open("/dev/kmsg").and_then(|mut kmsg| kmsg.write_all(&record));
    if written.is_err() {
        // Before devtmpfs is mounted only the descriptor that the kernel gave us can be heard.
        drop(std::io::stderr().write_all(&record));
    }
}

/// Logs a milestone.
pub fn notice(text: &str) {
    log(Level::Notice, text);
}

/// Logs a detail.
pub fn info(text: &str) {
    log(Level::Info, text);
}

/// Logs a failure.
pub fn error(text: &str) {
    log(Level::Error, text);
}

/// Runs `action`, whose failure changes nothing for the caller; `what` says what was tried.
pub fn best_effort<E: std::error::Error>(what: &str, result: Result<(), E>) {
    if let Err(err) = result {
        notice(&format!("could not {what}: {}", chain(&err)));
    }
}

fn record(level: Level, text: &str) -> Vec<u8> {
    let priority = match level {
        Level::Error => "<3>",
        Level::Notice => "<5>",
        Level::Info => "<6>",
    };
    let mut record = format!("{priority}eci: ");
    for letter in text.chars() {
        let letter = if letter.is_control() { ' ' } else { letter };
        if record.len() + letter.len_utf8() >= MAX_RECORD_BYTES {
            break;
        }
        record.push(letter);
    }
    record.push('\n');
    record.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_bounded_line() {
        let record = record(Level::Error, &format!("two\nlines {}", "é".repeat(2000)));
        assert!(record.starts_with(b"<3>eci: two lines "));
        assert!(record.len() <= MAX_RECORD_BYTES);
        assert_eq!(record.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert!(std::str::from_utf8(&record).is_ok());
    }
}
