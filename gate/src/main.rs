//! `eci-gate`: serves the host link until the machine stops.

use std::process::ExitCode;

use eci_service::log::{self, Level};

fn main() -> ExitCode {
    match eci_gate::run() {
        Ok(never) => match never {},
        Err(error) => {
            log::failure(Level::Error, "the gate cannot start", &error);
            ExitCode::FAILURE
        }
    }
}
