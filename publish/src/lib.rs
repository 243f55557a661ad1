//! Has one port of a container published on the host, for as long as it runs: what the engine's setting `userland-proxy-path`
//! names, in place of `docker-proxy`.
//!
//! The engine starts one for each published port and address family. It writes `0` and a newline to descriptor 3 when the port
//! is there, or `1`, a newline and the reason, which the user of `docker run` gets to read; the engine waits 16 s for that. It
//! ends at SIGINT, and the engine waits for its end: so the port is free once `docker rm` is done. Should the engine be killed, the
//! kernel sends SIGTERM.
//!
//! Invariant: it moves no byte of a connection, opens nothing on a network, and has no capabilities.
//!
//! In reading order: [`arguments`] (the engine's words), [`gate`] (announcing to the gate), [`stay`] (from start to end).

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod arguments;
pub mod gate;
pub mod stay;

use std::fs::OpenOptions;
use std::io::{self, Write};

use eci_contract::errors::chain;

/// Descriptor 3, opened anew: there is no other way to a number without `unsafe`.
const REPORT: &str = "/proc/self/fd/3";

/// Why a port is not published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine asks for something else.
    #[error(transparent)]
    Arguments(#[from] arguments::Error),
    /// It was not published, or stopped being so.
    #[error(transparent)]
    Stay(#[from] stay::Error),
    /// Nobody can be told.
    #[error("cannot report to the engine")]
    Report(#[source] io::Error),
}

/// Publishes until a signal comes.
///
/// # Errors
/// [`Error`]; the engine has been told.
pub fn run(arguments: &[String]) -> Result<(), Error> {
    let mut report = OpenOptions::new().write(true).open(REPORT).map_err(Error::Report)?;
    let outcome = publish(arguments, &mut report);
    if let Err(error) = &outcome {
        // An engine that does not listen any more has given up on this.
        drop(report.write_all(format!("1\n{}", chain(error)).as_bytes()));
    }
    outcome
}

fn publish(arguments: &[String], report: &mut impl Write) -> Result<(), Error> {
    let announcement = arguments::parse(arguments)?;
    let stay = stay::Stay::begin()?;
    if let Some(published) = stay.publish(&announcement)? {
        report.write_all(b"0\n").map_err(Error::Report)?;
        stay.keep(published, &announcement)?;
    }
    Ok(())
}
