//! Reading TOML files strictly: every error names file and line, and a mistyped key the one that was meant.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Upper bound on a TOML file's size in bytes. The longest of ours, a lock file, is under 64 KiB.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Why a TOML file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is larger than any such file should be.
    #[error("`{}` is larger than {MAX_BYTES} bytes", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It has a key that does not exist.
    #[error("`{}` line {line}: unknown key `{key}`{}", .path.display(), show_nearest(.nearest.as_deref()))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The key as written.
        key: String,
        /// The valid key closest to it.
        nearest: Option<String>,
    },
    /// It is not what its schema says.
    #[error("`{}` line {line}: {message}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What the parser said.
        message: String,
    },
    /// It has a schema number that this program does not know.
    #[error("`{}` has version {found}; this eci-builder reads version {known}", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// What is understood.
        known: u32,
    },
}

/// Reads a file of a strict schema.
///
/// # Errors
/// Every variant of [`Error`] but the version, which is the caller's to check with [`check_version`].
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(failed)?.len() > MAX_BYTES {
        return Err(Error::TooLarge { path: path.to_owned() });
    }
    parse(path, &fs::read_to_string(path).map_err(failed)?)
}

/// Parses the text of a file of a strict schema; `path` is for the message.
///
/// # Errors
/// [`Error::UnknownKey`] and [`Error::Malformed`].
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, Error> {
    toml::from_str(text).map_err(|error| explain(path, text, &error))
}

/// Refuses a schema number other than `known`.
///
/// # Errors
/// [`Error::Version`].
pub fn check_version(path: &Path, found: u32, known: u32) -> Result<(), Error> {
    if found == known { Ok(()) } else { Err(Error::Version { path: path.to_owned(), found, known }) }
}

fn explain(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let path = path.to_owned();
    let start = error.span().map_or(0, |span| span.start);
    let line = 1 + text.bytes().take(start).filter(|&byte| byte == b'\n').count();
    // Serde words an unknown field as "unknown field `x`, expected one of `a`, `b`"; the quoted words are what we need.
    let mut quoted = error.message().split('`').skip(1).step_by(2).map(str::to_owned);
    match quoted.next() {
        Some(key) if error.message().starts_with("unknown field") => {
            let nearest = nearest(&key, quoted);
            Error::UnknownKey { path, line, key, nearest }
        }
        _ => Error::Malformed { path, line, message: error.message().trim_end().replace('\n', ", ") },
    }
}

/// The candidate with the smallest edit distance, if it is near enough to be a typing error.
fn nearest(word: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    candidates
        .map(|candidate| (edit_distance(word, &candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count() / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, one row at a time.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, left) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, right) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

fn show_nearest(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |key| format!("; did you mean `{key}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the parser looks at the fields")]
    struct Schema {
        name: String,
        flavour: Option<String>,
    }

    fn message(text: &str) -> String {
        parse::<Schema>(Path::new("x.toml"), text).expect_err("it is wrong").to_string()
    }

    #[test]
    fn a_mistyped_key_is_named_with_line_and_nearest_key() {
        assert_eq!(
            message("name = \"a\"\n\nflavor = \"b\"\n"),
            "`x.toml` line 3: unknown key `flavor`; did you mean `flavour`?"
        );
    }

    #[test]
    fn a_key_near_to_nothing_gets_no_suggestion() {
        assert_eq!(message("name = \"a\"\ncolour = 1\n"), "`x.toml` line 2: unknown key `colour`");
    }

    #[test]
    fn a_wrong_type_is_named_with_its_line() {
        assert_eq!(message("name = 3\n"), "`x.toml` line 1: invalid type: integer `3`, expected a string");
    }

    #[test]
    fn edit_distance_counts_single_changes() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("flavor", "flavour"), 1);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }
}
