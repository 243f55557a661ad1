//! `eci-nodes`: answers containers until it is stopped.

use std::process::ExitCode;

use eci_service::log::{self, Level};

fn main() -> ExitCode {
    match eci_nodes::run() {
        Ok(never) => match never {},
        Err(error) => {
            log::failure(Level::Error, "device nodes cannot be made for containers", &error);
            ExitCode::FAILURE
        }
    }
}
