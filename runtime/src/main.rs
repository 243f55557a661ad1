//! `eci-runc`, installed as `/usr/bin/runc`, and under its own name for containers that are isolated whatever is switched off.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use eci_runc::arguments::{self, Invocation, Verb};
use eci_runc::{log, switch, verbs};

/// Exit code of every failure, as runc's.
const FAILURE: u8 = 1;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let program = words.next();
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    match arguments::parse(&words) {
        Ok(invocation) => run(program.as_deref(), invocation),
        Err(error) => fail(&error, None),
    }
}

fn run(program: Option<&OsStr>, Invocation { globals, verb }: Invocation) -> ExitCode {
    let log = globals.value("log").map(PathBuf::from);
    let log = log.as_deref();
    match verb {
        Verb::Version => match std::io::stdout().write_all(verbs::version::text().as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, log),
        },
        Verb::Create(create) => {
            let log = log.map(Path::to_owned);
            if switch::ground().isolates(program, &create.id) {
                fail(&verbs::create::run(globals, create), log.as_deref())
            } else {
                fail(&verbs::plain::run(globals, create), log.as_deref())
            }
        }
        Verb::Exec(flags, rest) => fail(&verbs::exec::run(&globals, &flags, rest), log),
        Verb::Delete(flags, id) => match verbs::delete::run(&globals, &flags, id) {
            Ok(code) => ExitCode::from(code),
            Err(error) => fail(&error, log),
        },
        Verb::Pass(words) => fail(&verbs::pass(&globals, &words, 0), log),
    }
}

fn fail(error: &dyn std::error::Error, log: Option<&std::path::Path>) -> ExitCode {
    log::report(&log::chain(error), log, SystemTime::now());
    ExitCode::from(FAILURE)
}
