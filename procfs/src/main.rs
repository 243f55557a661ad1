//! `eci-procfs`: writes figures until it is stopped.

use std::process::ExitCode;

use eci_service::log::{self, Level};

fn main() -> ExitCode {
    match eci_procfs::run() {
        Ok(never) => match never {},
        Err(error) => {
            log::failure(Level::Error, "containers read old figures of memory and processors", &error);
            ExitCode::FAILURE
        }
    }
}
