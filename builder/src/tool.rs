//! External programs, run one way: argument vector shown with `--verbose`, last lines of stderr in the error.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use rustix::fs::{Access, access};

use crate::ui::Ui;

/// How many lines of a failed program's stderr an error carries; enough for a compiler's last message.
const KEPT_LINES: usize = 12;

/// Why an external program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not installed.
    #[error("`{program}` was not found in PATH")]
    Missing {
        /// Program name.
        program: String,
    },
    /// The program could not be started or listened to.
    #[error("cannot run `{program}`")]
    Run {
        /// Program name.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The program ended with a failure.
    #[error("`{program}` failed ({status}){}", show(.stderr))]
    Failed {
        /// Program name.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its stderr.
        stderr: Vec<String>,
    },
}

/// The executable of this name that PATH has.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let executable = |file: &PathBuf| file.is_file() && access(file, Access::EXEC_OK).is_ok();
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(program)).find(executable)
}

/// Whether PATH has an executable of this name.
#[must_use]
pub fn is_in_path(program: &str) -> bool {
    find(program).is_some()
}

/// Refuses to go on without a program, before anything is made that needs it.
///
/// # Errors
/// [`Error::Missing`].
pub fn require(program: &str) -> Result<(), Error> {
    if is_in_path(program) { Ok(()) } else { Err(Error::Missing { program: program.to_owned() }) }
}

/// An external program with its arguments.
#[derive(Debug)]
pub struct Tool {
    program: String,
    command: Command,
}

impl Tool {
    /// A program by name (looked up in PATH) or by path.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref();
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
        Self { program: name_of(program), command }
    }

    /// `program`, as the last argument so far of a `wrapper` that becomes it. Errors name the program, where it is the one that failed.
    pub fn behind(
        wrapper: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        program: &str,
    ) -> Self {
        let tool = Self::new(wrapper).args(arguments).arg(program);
        Self { program: program.to_owned(), ..tool }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, arguments: I) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Takes all environment variables away.
    #[must_use]
    pub fn without_environment(mut self) -> Self {
        self.command.env_clear();
        self
    }

    /// Sets the folder to run in.
    #[must_use]
    pub fn folder(mut self, path: &Path) -> Self {
        self.command.current_dir(path);
        self
    }

    /// Runs to the end and gives what it wrote to stdout.
    ///
    /// # Errors
    /// [`Error`], with the program's last words when it failed.
    pub fn output(self, ui: &Ui) -> Result<Vec<u8>, Error> {
        let mut output = Vec::new();
        self.each(ui, |stdout| stdout.read_to_end(&mut output).map(drop))?;
        Ok(output)
    }

    /// Runs to the end, giving each line of stdout to `line` as it comes.
    ///
    /// # Errors
    /// [`Error`], with the program's last words when it failed.
    pub fn lines(self, ui: &Ui, mut line: impl FnMut(&str)) -> Result<(), Error> {
        self.each(ui, |stdout| {
            let mut reader = BufReader::new(stdout);
            let mut buffer = Vec::new();
            while reader.read_until(b'\n', &mut buffer)? > 0 {
                line(String::from_utf8_lossy(&buffer).trim_end());
                buffer.clear();
            }
            Ok(())
        })
    }

    /// Runs to the end; stdout is thrown away.
    ///
    /// # Errors
    /// [`Error`], with the program's last words when it failed.
    pub fn run(self, ui: &Ui) -> Result<(), Error> {
        self.output(ui).map(drop)
    }

    fn each(mut self, ui: &Ui, read: impl FnOnce(&mut dyn Read) -> io::Result<()>) -> Result<(), Error> {
        ui.debug(&format!("run {}", shown(&self.command)));
        let program = self.program;
        let failed = |source| Error::Run { program: program.clone(), source };
        let spawned = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = match spawned {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Missing { program: name_of(self.command.get_program()) });
            }
            spawned => spawned.map_err(failed)?,
        };
        let stderr = child.stderr.take().expect("stderr was asked to be a pipe");
        let last_words = thread::spawn(move || last_lines(stderr));
        let mut stdout = child.stdout.take().expect("stdout was asked to be a pipe");
        let read = read(&mut stdout);
        drop(stdout);
        let status = child.wait().map_err(failed)?;
        let stderr = last_words.join().unwrap_or_default();
        if !status.success() {
            return Err(Error::Failed { program, status, stderr });
        }
        read.map_err(failed)
    }
}

fn name_of(program: &OsStr) -> String {
    Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned()
}

fn last_lines(stderr: impl Read) -> Vec<String> {
    let mut kept = std::collections::VecDeque::new();
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        kept.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
    }
    kept.into()
}

fn shown(command: &Command) -> String {
    let words: Vec<OsString> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(OsStr::to_owned).collect();
    words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn show(stderr: &[String]) -> String {
    stderr.iter().map(|line| format!("\n    {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named() {
        let error = Tool::new("no-such-program-here").run(&Ui::silent()).expect_err("it is not there");
        assert_eq!(error.to_string(), "`no-such-program-here` was not found in PATH");
    }

    #[test]
    fn what_is_missing_is_the_wrapper_and_what_fails_is_the_program() {
        let missing = Tool::behind(Path::new("no-such-program-here"), ["-x"], "make").run(&Ui::silent());
        let failed = Tool::behind(Path::new("env"), ["-i"], "false").run(&Ui::silent());
        let texts = [missing, failed].map(|outcome| outcome.expect_err("neither works").to_string());
        assert_eq!(
            texts,
            ["`no-such-program-here` was not found in PATH", "`false` failed (exit status: 1)"]
        );
    }

    #[test]
    fn a_required_program_is_one_that_can_be_run() {
        require("sh").expect("every host has one");
        let error = require("no-such-program-here").expect_err("it is not there");
        assert_eq!(error.to_string(), "`no-such-program-here` was not found in PATH");
    }

    #[test]
    fn a_failed_program_s_last_words_are_in_the_error() {
        let error = Tool::new("sh")
            .args(["-c", "i=0; while [ $i -lt 30 ]; do echo line $i >&2; i=$((i+1)); done; exit 3"])
            .run(&Ui::silent())
            .expect_err("it exits with 3");
        let text = error.to_string();
        assert!(text.starts_with("`sh` failed (exit status: 3)\n    line 18\n"), "{text}");
        assert!(text.ends_with("line 29"), "{text}");
    }

    #[test]
    fn lines_come_one_by_one() {
        let mut lines = Vec::new();
        Tool::new("printf")
            .arg("a\\nb\\n")
            .lines(&Ui::silent(), |line| lines.push(line.to_owned()))
            .expect("printf");
        assert_eq!(lines, ["a", "b"]);
    }
}
