//! Descriptors on their way to a service that is started again: from number 3 on, with `LISTEN_FDS`, `LISTEN_PID` and
//! `LISTEN_FDNAMES` to tell of them (`sd_listen_fds(3)`).
//!
//! A helper stands between PID 1 and the service. Between fork and exec the numbers that a service expects may be in use, by the
//! pipe on which a failed exec is told among others, and the environment was written before its process had a number.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use eci_sys::descriptors::take_inherited;
use eci_sys::spawn::pass_on;
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use crate::kmsg;

/// The argument that makes `init` this helper; never PID 1.
pub const ROLE: &str = "pass-descriptors";
/// This program.
const INIT: &str = "/usr/sbin/init";
/// Number of the first descriptor that a service is passed.
const FIRST: i32 = 3;

/// Why a service was not passed its descriptors, and so not started.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the helper takes numbers, a program, and its arguments")]
    Arguments,
    #[error("descriptors are not there")]
    Take(#[source] io::Error),
    #[error("cannot make a descriptor number {number}")]
    Place {
        number: i32,
        #[source]
        source: Errno,
    },
    #[error("cannot start `{}`", .program.display())]
    Start {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A command that runs `program` with nothing in its environment but what tells of the descriptors in `stored`, if there are
/// any. They have to stay open until it is spawned; their numbers rise.
#[must_use]
pub fn command(program: &str, stored: &[(&str, BorrowedFd<'_>)]) -> Command {
    let (names, files): (Vec<_>, Vec<_>) = stored.iter().copied().unzip();
    let numbers: Vec<_> = files.iter().map(|file| file.as_raw_fd().to_string()).collect();
    let mut command = Command::new(if files.is_empty() { program } else { INIT });
    command.env_clear();
    if !files.is_empty() {
        command.args([ROLE, &numbers.join(","), program]).env("LISTEN_FDNAMES", names.join(":"));
        pass_on(&mut command, &files);
    }
    command
}

/// The helper: becomes the program that it was given.
pub fn run() -> ! {
    let Err(error) = pass(std::env::args_os().skip(2));
    // PID 1 logs the last line of a service that has ended.
    drop(writeln!(io::stderr(), "{}", kmsg::chain(&error)));
    std::process::exit(126)
}

fn pass(mut words: impl Iterator<Item = OsString>) -> Result<Infallible, Error> {
    let numbers =
        words.next().as_deref().and_then(|text| read_numbers(text.to_str()?)).ok_or(Error::Arguments)?;
    let program = words.next().ok_or(Error::Arguments)?;
    let passed = place(take_inherited(numbers).map_err(Error::Take)?)?;
    let source = Command::new(&program)
        .args(words)
        .env("LISTEN_FDS", passed.len().to_string())
        .env("LISTEN_PID", std::process::id().to_string())
        .exec();
    Err(Error::Start { program: program.into(), source })
}

/// Numbers that rise from [`FIRST`] on: then none is moved to the place of one that has not been moved yet.
fn read_numbers(text: &str) -> Option<Vec<i32>> {
    let numbers: Option<Vec<i32>> = text.split(',').map(|number| number.parse().ok()).collect();
    let numbers = numbers?;
    let rise = numbers.iter().zip(numbers.iter().skip(1)).all(|(one, next)| one < next);
    (rise && numbers.first().is_some_and(|first| *first >= FIRST)).then_some(numbers)
}

/// Moves them to [`FIRST`] and on, where they survive an exec.
fn place(taken: Vec<OwnedFd>) -> Result<Vec<OwnedFd>, Error> {
    let move_to = |file: OwnedFd, number: i32| {
        let file = if file.as_raw_fd() == number { file } else { fcntl_dupfd_cloexec(&file, number)? };
        // Something that this helper does not know of was there.
        if file.as_raw_fd() != number {
            return Err(Errno::BUSY);
        }
        fcntl_setfd(&file, FdFlags::empty())?;
        Ok(file)
    };
    let placed = taken.into_iter().zip(FIRST..);
    placed
        .map(|(file, number)| move_to(file, number).map_err(|source| Error::Place { number, source }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn numbers_have_to_rise() {
        assert_eq!(read_numbers("3"), Some(vec![3]));
        assert_eq!(read_numbers("3,7,20"), Some(vec![3, 7, 20]));
        for text in ["", "2", "-1", "3,", "7,3", "3,3", "3 4", "x"] {
            assert_eq!(read_numbers(text), None, "{text}");
        }
    }

    #[test]
    fn the_command_names_what_it_passes() {
        let files = [File::open("/dev/null").unwrap(), File::open("/dev/null").unwrap()];
        let stored = [("a", files[0].as_fd()), ("b", files[1].as_fd())];
        let command = command("/usr/libexec/x", &stored);
        let numbers = format!("{},{}", files[0].as_raw_fd(), files[1].as_raw_fd());
        assert_eq!(command.get_args().collect::<Vec<_>>(), [ROLE, &numbers, "/usr/libexec/x"]);
        assert!(
            command.get_envs().any(|(name, value)| name == "LISTEN_FDNAMES" && value == Some("a:b".as_ref()))
        );
        let command = super::command("/usr/libexec/x", &[]);
        assert_eq!((command.get_program(), command.get_args().count()), ("/usr/libexec/x".as_ref(), 0));
    }

    #[test]
    fn errors_name_number_and_program() {
        let error = Error::Place { number: 3, source: Errno::BUSY };
        assert_eq!(error.to_string(), "cannot make a descriptor number 3");
        let error = Error::Start { program: "/x".into(), source: io::ErrorKind::NotFound.into() };
        assert_eq!(error.to_string(), "cannot start `/x`");
        assert_eq!(Error::Arguments.to_string(), "the helper takes numbers, a program, and its arguments");
        let error = Error::Take(io::ErrorKind::NotFound.into());
        assert_eq!(error.to_string(), "descriptors are not there");
    }
}
