//! Commands with everything they said.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};

/// How a command ended and what it said.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The command, for messages.
    pub shown: String,
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Bytes on stdout.
    pub bytes: Vec<u8>,
    /// Text on stderr.
    pub stderr: String,
}

impl Outcome {
    /// stdout as text, without trailing white space.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.bytes).trim_end().to_owned()
    }

    /// stdout when the command succeeded.
    ///
    /// # Errors
    /// With all that it said when it did not.
    pub fn ok(self) -> Result<String> {
        ensure!(
            self.code == 0,
            "`{}` ended with {}\n{}{}",
            self.shown,
            self.code,
            self.stdout(),
            self.stderr
        );
        Ok(self.stdout())
    }

    /// Bytes on stdout when the command succeeded.
    ///
    /// # Errors
    /// With all that it said when it did not.
    pub fn into_bytes(self) -> Result<Vec<u8>> {
        let bytes = self.bytes.clone();
        self.ok().map(|_| bytes)
    }

    /// stderr when the command failed and said all of `words`.
    ///
    /// # Errors
    /// When it succeeded, or failed with other words.
    pub fn refused(self, words: &[&str]) -> Result<String> {
        ensure!(self.code != 0, "`{}` should have been refused, and gave\n{}", self.shown, self.stdout());
        for word in words {
            ensure!(
                self.stderr.contains(word),
                "`{}` was refused without `{word}`:\n{}",
                self.shown,
                self.stderr
            );
        }
        Ok(self.stderr)
    }
}

/// Runs a command to its end, with `input` on its stdin.
///
/// # Errors
/// When it cannot be started.
pub fn run(command: &mut Command, input: &[u8]) -> Result<Outcome> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {shown}"))?;
    let mut stdin = child.stdin.take().context("stdin is a pipe")?;
    let input = input.to_owned();
    // A command that does not read its input closes the pipe; that is its business.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {shown}"))?;
    drop(writer.join());
    Ok(Outcome {
        shown,
        code: output.status.code().unwrap_or(-1),
        bytes: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a host program with these arguments and no input.
///
/// # Errors
/// When it cannot be started.
pub fn host(program: &str, arguments: &[&str]) -> Result<Outcome> {
    run(Command::new(program).args(arguments), &[])
}
