//! Exit codes, and how an error gets its code and its hint.

use std::fmt;

/// Exit codes, as `eci-builder --help` lists them. Numbers never change meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Something failed that has no code of its own.
    Failure = 1,
    /// The command line is wrong (clap's own code).
    Usage = 2,
    /// `eci.toml`, a lock file, a rule table or an administrator's settings are wrong, or they disagree.
    Config = 3,
    /// The host lacks a program, a package or space.
    Host = 4,
    /// Something is not what its digest or signature says.
    Untrusted = 5,
    /// The VM did not get its engine ready.
    Boot = 6,
    /// The instance or what it is to boot does not exist, or is in the wrong state.
    Instance = 7,
}

/// The table that `--help` prints.
pub const HELP: &str = "Exit codes:
  0  done
  1  failed, see the message
  2  wrong command line
  3  wrong or drifted configuration (eci.toml, lock files, rule tables, settings)
  4  the host lacks a program, a package or space
  5  a digest or signature does not match
  6  the VM did not get its engine ready
  7  no such instance, nothing for it to boot, or it is in the wrong state";

/// An error with its exit code and what the user can do about it.
pub struct Classified {
    code: Exit,
    hint: Option<String>,
    error: anyhow::Error,
}

impl Classified {
    /// The exit code.
    #[must_use]
    pub fn code(&self) -> Exit {
        self.code
    }

    /// The error itself.
    #[must_use]
    pub fn error(&self) -> &anyhow::Error {
        &self.error
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Debug for Classified {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, formatter)
    }
}

impl fmt::Display for Classified {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, formatter)
    }
}

impl std::error::Error for Classified {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Puts a code, or a code and a hint, on whatever a library returned.
pub trait Classify<T> {
    /// Ends the program with this code when it is an error.
    ///
    /// # Errors
    /// The same error, classified.
    fn or_exit(self, code: Exit) -> anyhow::Result<T>;

    /// The same, with a line that says what to do.
    ///
    /// # Errors
    /// The same error, classified.
    fn or_exit_with_hint(self, code: Exit, hint: impl Into<String>) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Classify<T> for Result<T, E> {
    fn or_exit(self, code: Exit) -> anyhow::Result<T> {
        self.map_err(|error| Classified { code, hint: None, error: error.into() }.into())
    }

    fn or_exit_with_hint(self, code: Exit, hint: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| Classified { code, hint: Some(hint.into()), error: error.into() }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classification_adds_no_line_to_the_chain() {
        let error = Err::<(), _>(anyhow::anyhow!("inner").context("outer"))
            .or_exit_with_hint(Exit::Config, "do this")
            .expect_err("it is an error");
        assert_eq!(error.chain().map(ToString::to_string).collect::<Vec<_>>(), ["outer", "inner"]);
        let classified = error.downcast_ref::<Classified>().expect("it was classified");
        assert_eq!((classified.code(), classified.hint()), (Exit::Config, Some("do this")));
    }
}
