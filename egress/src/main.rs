//! `eci-egress`: takes the engine's connections to registries until it is stopped.

use std::process::ExitCode;

use eci_service::log::{self, Level};

fn main() -> ExitCode {
    match eci_egress::run() {
        Ok(never) => match never {},
        Err(error) => {
            log::failure(Level::Error, "no registry can be reached", &error);
            ExitCode::FAILURE
        }
    }
}
