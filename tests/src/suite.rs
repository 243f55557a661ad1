//! Rows of assertions over something that is expensive to make, such as a booted VM.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

/// Rows that take this long are named in the end, slowest first: a suite's time is in few of them.
const SLOW: Duration = Duration::from_secs(8);

/// Whether everything is asked for, `scripts/test --all`: what takes hours, or finds only by number what fewer find as well.
#[must_use]
pub fn everything() -> bool {
    env::var_os("ECI_TESTS").is_some_and(|value| value == "all")
}

/// One row: a name that states the behaviour, and what shows it.
pub struct Row<S> {
    name: &'static str,
    check: fn(&S) -> Result<()>,
    thorough: bool,
}

/// A row of a suite over `S`.
pub fn row<S>(name: &'static str, check: fn(&S) -> Result<()>) -> Row<S> {
    Row { name, check, thorough: false }
}

/// A row that is left to `scripts/test --all`, and said to be: much time for what other rows would nearly always find as well.
pub fn thorough_row<S>(name: &'static str, check: fn(&S) -> Result<()>) -> Row<S> {
    Row { thorough: true, ..row(name, check) }
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
    let is_filtered = arguments.filter.is_some();
    let subject = Arc::new(subject);
    let slow = Arc::new(Mutex::new(Vec::new()));
    let trials = rows
        .into_iter()
        .map(|Row { name, check, thorough }| {
            let (subject, slow) = (Arc::clone(&subject), Arc::clone(&slow));
            let trial = Trial::test(name, move || {
                let begin = Instant::now();
                let outcome = check(&subject);
                if let (true, Ok(mut slow)) = (begin.elapsed() >= SLOW, slow.lock()) {
                    slow.push((begin.elapsed(), name));
                }
                outcome.map_err(|error| {
                    note_failure(name, &error);
                    Failed::from(format!("{error:?}\n{}", on_failure(&subject)))
                })
            });
            // The pattern of a filter names a row on purpose.
            trial.with_ignored_flag(thorough && !everything() && !is_filtered)
        })
        .collect();
    let exit_code = libtest_mimic::run(&arguments, trials).exit_code();
    if let Ok(mut slow) = slow.lock() {
        slow.sort_unstable_by(|one, other| other.cmp(one));
        slow.iter().for_each(|(took, name)| eprintln!("{:4} s  {name}", took.as_secs()));
    }
    exit_code
}

/// Adds a failure to the file that `scripts/test` shows when all suites have run: why, without a machine's log.
fn note_failure(name: &str, error: &anyhow::Error) {
    let Some(path) = env::var_os("ECI_FAILURES") else { return };
    let note = format!("-- {name}\n{error:?}\n");
    // The row fails whether or not this can be written.
    drop(
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map(|mut file| file.write_all(note.as_bytes())),
    );
}

/// A suite without a shared subject.
#[must_use]
pub fn run_alone(rows: Vec<Row<()>>) -> ExitCode {
    run((), rows, |()| String::new())
}
