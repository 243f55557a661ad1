//! How the image's programs that PID 1 runs to their end have ended.

use std::io;
use std::process::Output;

/// Why a program did not do what it was run for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It, or what it reads, is not in the image.
    #[error("cannot start `{program}`")]
    Start {
        /// Its path.
        program: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// It failed.
    #[error("`{program}` ended with {code}: {last}")]
    Failed {
        /// Its path.
        program: &'static str,
        /// Its exit code, or -1 for a signal.
        code: i32,
        /// The last line that it wrote.
        last: String,
    },
}

/// Whether a program that has ended did well: its exit code is at most `highest_good`.
///
/// # Errors
/// [`Error::Failed`] when it is not.
pub fn judge(program: &'static str, output: &Output, highest_good: i32) -> Result<(), Error> {
    let code = output.status.code().unwrap_or(-1);
    if (0..=highest_good).contains(&code) {
        return Ok(());
    }
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    Err(Error::Failed { program, code, last: last.unwrap_or("no output").trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn output(code: i32) -> Output {
        Output {
            status: ExitStatus::from_raw(code << 8),
            stdout: vec![],
            stderr: b"first\nlast words\n\n".to_vec(),
        }
    }

    #[test]
    fn a_code_above_the_highest_good_one_is_told_with_the_last_line() {
        assert!((0..=3).all(|code| judge("/p", &output(code), 3).is_ok()));
        let error = judge("/p", &output(4), 3).unwrap_err();
        assert_eq!(error.to_string(), "`/p` ended with 4: last words");
    }

    #[test]
    fn a_killed_program_failed() {
        let killed = Output { status: ExitStatus::from_raw(9), stdout: vec![], stderr: vec![] };
        assert_eq!(judge("/p", &killed, 0).unwrap_err().to_string(), "`/p` ended with -1: no output");
    }
}
