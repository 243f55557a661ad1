//! `eci-publish`: started by the engine for each published port, in place of `docker-proxy`.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    match eci_publish::run(&env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        // The engine has been told, and passes it on to its user.
        Err(_) => ExitCode::FAILURE,
    }
}
