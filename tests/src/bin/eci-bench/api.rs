//! The engine's API without Docker's command line, whose own start would be a large part of what is measured.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Asks the engine at a Unix socket; gives the JSON that it answers, null when it answers with nothing.
///
/// # Errors
/// When the engine cannot be reached, or does not answer with success.
pub fn ask(socket: &str, method: &str, path: &str, body: &Value) -> Result<Value> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("cannot connect to {socket}"))?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
    let status = head.split(' ').nth(1).context("an answer has a status")?;
    ensure!(status.starts_with('2'), "{method} {path} was answered with {status}: {body}");
    if body.trim().is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(body)?) }
}
