//! Rows of assertions over something that is expensive to make, such as a booted VM.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

/// One row: a name that states the behaviour, and what shows it.
pub struct Row<S> {
    name: &'static str,
    check: fn(&S) -> Result<()>,
}

/// A row of a suite over `S`.
pub fn row<S>(name: &'static str, check: fn(&S) -> Result<()>) -> Row<S> {
    Row { name, check }
}

/// Runs the rows in order over one `subject`; `on_failure` tells what a failed row should show of it.
#[must_use]
pub fn run<S: Send + Sync + 'static>(
    subject: S,
    rows: Vec<Row<S>>,
    on_failure: fn(&S) -> String,
) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Rows share a subject and may build on each other.
    arguments.test_threads = Some(1);
    let subject = Arc::new(subject);
    let trials = rows
        .into_iter()
        .map(|Row { name, check }| {
            let subject = Arc::clone(&subject);
            Trial::test(name, move || {
                check(&subject).map_err(|error| Failed::from(format!("{error:?}\n{}", on_failure(&subject))))
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A suite without a shared subject.
#[must_use]
pub fn run_alone(rows: Vec<Row<()>>) -> ExitCode {
    run((), rows, |()| String::new())
}
