//! An attempt: what it may come to, and the child that it is made in.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use eci_sys::child;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};

/// Seconds that an attempt may take, under TCG beside other work: three times as long as the suites have a verb watch for.
const DEADLINE: u32 = 90;

/// An attack, by name.
pub struct Verb {
    /// What `eci-probe` is called with.
    pub name: &'static str,
    /// What would be lost if it were allowed, or why it must be.
    pub why: &'static str,
    /// Makes the attempt with what stood behind the colon.
    pub run: fn(&str) -> Attempt,
}

/// What came of an attempt; `Ok` when it had its effect.
pub type Attempt = Result<(), Failure>;

/// Why an attempt had no effect.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The kernel refused the very call.
    Refused(Errno),
    /// The kernel refused what has to come before it.
    Before(&'static str, Errno),
    /// Every call succeeded, and nothing changed.
    NoEffect,
    /// There was nothing to attack.
    NothingThere,
    /// What is there is not what the verb knows.
    NotUnderstood(&'static str),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(errno) => write!(formatter, "{errno:?}"),
            Self::Before(step, errno) => write!(formatter, "{errno:?} at {step}"),
            Self::NoEffect => formatter.write_str("no effect"),
            Self::NothingThere => formatter.write_str("nothing there"),
            Self::NotUnderstood(what) => write!(formatter, "not understood ({what})"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Self::Refused(Errno::from_raw(number)),
            None if error.kind() == io::ErrorKind::TimedOut => Self::Refused(Errno::ETIMEDOUT),
            None => Self::NotUnderstood("an error without a number"),
        }
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Refused(Errno::from_raw(errno.raw_os_error()))
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

/// Names the step that an error happened at, for steps before the one that counts.
pub trait At<T> {
    /// The same with the step's name in its error.
    fn at(self, step: &'static str) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> At<T> for Result<T, E> {
    fn at(self, step: &'static str) -> Result<T, Failure> {
        self.map_err(|error| match error.into() {
            Failure::Refused(errno) => Failure::Before(step, errno),
            other => other,
        })
    }
}

/// Makes an attempt in a child and sees to it that one line about it is printed.
///
/// # Errors
/// When the child cannot be made or the line not be printed.
pub fn make(wish: &str, verb: &Verb, argument: &str) -> io::Result<()> {
    let child = child::start(|| {
        nix::unistd::alarm::set(DEADLINE);
        let outcome = (verb.run)(argument);
        i32::from(print(wish, outcome).is_err())
    })?;
    match wait_for(child)?.terminating_signal() {
        Some(signal) => writeln!(io::stdout(), "{wish}: {}", name_signal(signal)),
        None => Ok(()),
    }
}

fn print(wish: &str, outcome: Attempt) -> io::Result<()> {
    let line = match outcome {
        Ok(()) => format!("{wish}: allowed\n"),
        Err(failure) => format!("{wish}: {failure}\n"),
    };
    // One write: lines of children that an attempt left behind do not mix with it.
    io::stdout().write_all(line.as_bytes())?;
    io::stdout().flush()
}

fn name_signal(number: i32) -> String {
    let name =
        Signal::try_from(number).map_or_else(|_| number.to_string(), |signal| signal.as_str().to_owned());
    format!("killed {name}")
}

/// Runs `run` in a child and gives what came of it, for attempts that need a second process.
pub fn in_second_process(run: impl FnOnce() -> Attempt) -> Attempt {
    /// Exit codes above the highest error number of Linux.
    const NO_EFFECT: i32 = 200;
    const OTHER: i32 = 201;
    let child = child::start(|| match run() {
        Ok(()) => 0,
        Err(Failure::Refused(errno) | Failure::Before(_, errno)) => errno as i32,
        Err(Failure::NoEffect) => NO_EFFECT,
        Err(Failure::NothingThere | Failure::NotUnderstood(_)) => OTHER,
    })
    .at("fork")?;
    match wait_for(child).at("wait")?.exit_status() {
        Some(0) => Ok(()),
        Some(NO_EFFECT) => Err(Failure::NoEffect),
        Some(errno) if errno < NO_EFFECT => Err(Failure::Refused(Errno::from_raw(errno))),
        _ => Err(Failure::NotUnderstood("how the second process ended")),
    }
}

/// Waits for a child.
///
/// # Errors
/// When there is no such child.
pub fn wait_for(child: i32) -> io::Result<WaitStatus> {
    let (_, status) = waitpid(Pid::from_raw(child), WaitOptions::empty())?.ok_or(io::ErrorKind::NotFound)?;
    Ok(status)
}

/// A new folder to play in.
pub fn scratch() -> Result<PathBuf, Failure> {
    let name = format!("probe-{}", std::process::id());
    let mut folder = PathBuf::from("/tmp").join(&name);
    if fs::create_dir_all(&folder).is_err() {
        folder = PathBuf::from("/dev/shm").join(&name);
        fs::create_dir_all(&folder).at("mkdir")?;
    }
    Ok(folder)
}

/// Names a result that does not matter: what was allowed is put back, so that later attempts find what they expect.
pub fn best_effort<T, E>(_step: &'static str, result: Result<T, E>) {
    drop(result);
}

/// The effect is there, or the success was none.
pub fn effective(effect: bool) -> Attempt {
    if effect { Ok(()) } else { Err(Failure::NoEffect) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_words() {
        let shown: Vec<_> = [
            Failure::Refused(Errno::EPERM),
            Failure::Before("open", Errno::ENOENT),
            Failure::NoEffect,
            Failure::NothingThere,
            Failure::NotUnderstood("a"),
        ]
        .iter()
        .map(ToString::to_string)
        .collect();
        assert_eq!(shown, ["EPERM", "ENOENT at open", "no effect", "nothing there", "not understood (a)"]);
        assert_eq!(name_signal(31), "killed SIGSYS");
    }

    #[test]
    fn an_error_keeps_its_number_and_gets_its_step() {
        let missing = fs::read("/nonexistent").at("open").unwrap_err();
        assert_eq!(missing, Failure::Before("open", Errno::ENOENT));
    }
}
