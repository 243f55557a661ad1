//! What suite `conformance` needs in the VM besides the tests of crun and runc: `engine-runc` gives `runc` what the engine
//! would have given it, `recvtty` stands in for runc's program of that name. Which of them this is, is told by the name
//! that it was started under.

mod engine;
mod tty;

use std::io;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args();
    let path = words.next().unwrap_or_default();
    let words: Vec<String> = words.collect();
    let outcome = match Path::new(&path).file_name().and_then(|name| name.to_str()) {
        Some("engine-runc") => engine::run(&words),
        Some("recvtty") => tty::receive(&words),
        _ => Err(io::Error::other("it is called engine-runc or recvtty")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{path}: {error}");
            ExitCode::FAILURE
        }
    }
}
