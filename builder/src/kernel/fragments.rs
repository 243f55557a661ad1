//! Kernel fragments: what is asked of the configuration, by purpose, every group with a why.
//!
//! Format: `# why: TEXT` begins a group, `CONFIG_NAME=VALUE` asks for a value (`n` for "not set"), any other comment is
//! prose, a blank line ends a group.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use eci_contract::manifest::Architecture;

/// Fragments of an x86-64 kernel, in the order in which they are merged.
const X86_64: &[&str] = &["base", "containers", "integrity", "hardening", "qemu", "hyperv", "x86_64"];
/// Fragments of an aarch64 kernel.
const AARCH64: &[&str] =
    &["base", "containers", "integrity", "hardening", "qemu", "hyperv", "apple", "aarch64"];

/// Why the fragments cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A fragment cannot be read.
    #[error("cannot read the kernel fragment `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is neither a comment nor an option.
    #[error("{place}: `{line}` is neither a comment nor CONFIG_NAME=VALUE")]
    Line {
        /// File name and line.
        place: Place,
        /// The line.
        line: String,
    },
    /// An option stands in a group without a reason.
    #[error("{place}: {option} stands in a group without a `# why:` line")]
    NoWhy {
        /// File name and line.
        place: Place,
        /// Name of the option.
        option: String,
    },
    /// An option is asked for twice.
    #[error("{place}: {option} was asked for already at {first}")]
    Duplicate {
        /// Where it is asked for again.
        place: Place,
        /// Name of the option.
        option: String,
        /// Where it is asked for first.
        first: Place,
    },
}

/// A line of a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// File name.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.file, self.line)
    }
}

/// An option with the value that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Name, `CONFIG_` included.
    pub option: String,
    /// Value as in `.config`; `n` means that it must not be set.
    pub value: String,
    /// Why, from the head of its group.
    pub why: String,
    /// Where it is asked for.
    pub place: Place,
}

/// Everything that the fragments of an architecture ask for.
#[derive(Clone, Debug, Default)]
pub struct Fragments {
    requests: Vec<Request>,
    sources: Vec<(String, String)>,
}

impl Fragments {
    /// Reads the fragments of an architecture from a folder.
    ///
    /// # Errors
    /// [`Error`] names the file and the line.
    pub fn read(folder: &Path, architecture: Architecture) -> Result<Self, Error> {
        let names = match architecture {
            Architecture::X86_64 => X86_64,
            Architecture::Aarch64 => AARCH64,
        };
        let mut sources = Vec::new();
        for name in names {
            let file = format!("{name}.config");
            let path = folder.join(&file);
            let text = fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?;
            sources.push((file, text));
        }
        Self::parse(sources)
    }

    /// Parses fragments given as file name and text.
    ///
    /// # Errors
    /// [`Error`] names the file and the line.
    pub fn parse(sources: Vec<(String, String)>) -> Result<Self, Error> {
        let mut requests = Vec::new();
        let mut seen: BTreeMap<String, Place> = BTreeMap::new();
        for (file, text) in &sources {
            for request in parse_fragment(file, text)? {
                if let Some(first) = seen.insert(request.option.clone(), request.place.clone()) {
                    return Err(Error::Duplicate { place: request.place, option: request.option, first });
                }
                requests.push(request);
            }
        }
        Ok(Self { requests, sources })
    }

    /// What is asked for, in order.
    #[must_use]
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// File names and texts, in order: what a built kernel depends on.
    #[must_use]
    pub fn sources(&self) -> &[(String, String)] {
        &self.sources
    }

    /// Lays the requests over a configuration; the result still has to go through `olddefconfig`.
    #[must_use]
    pub fn merge_into(&self, base: &str) -> String {
        let asked: BTreeMap<&str, &str> =
            self.requests.iter().map(|request| (request.option.as_str(), request.value.as_str())).collect();
        let kept = base
            .lines()
            .filter(|line| super::config::option_of(line).is_none_or(|name| !asked.contains_key(name)));
        let mut merged: String = kept.flat_map(|line| [line, "\n"]).collect();
        for request in &self.requests {
            merged.push_str(&match request.value.as_str() {
                "n" => format!("# {} is not set\n", request.option),
                value => format!("{}={value}\n", request.option),
            });
        }
        merged
    }
}

fn parse_fragment(file: &str, text: &str) -> Result<Vec<Request>, Error> {
    let mut requests = Vec::new();
    let mut why = None;
    for (index, line) in text.lines().enumerate() {
        let place = Place { file: file.to_owned(), line: index + 1 };
        if line.is_empty() {
            why = None;
        } else if let Some(comment) = line.strip_prefix('#') {
            let reason =
                comment.trim().strip_prefix("why:").map(str::trim).filter(|reason| !reason.is_empty());
            why = reason.map(str::to_owned).or(why);
        } else {
            let (option, value) = option_line(line)
                .ok_or_else(|| Error::Line { place: place.clone(), line: line.to_owned() })?;
            let Some(why) = why.clone() else {
                return Err(Error::NoWhy { place, option: option.to_owned() });
            };
            requests.push(Request { option: option.to_owned(), value: value.to_owned(), why, place });
        }
    }
    Ok(requests)
}

fn option_line(line: &str) -> Option<(&str, &str)> {
    let (option, value) = line.split_once('=')?;
    let name = option.strip_prefix("CONFIG_")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let quoted = value.len() >= 2 && value.starts_with('"') && value.ends_with('"');
    let sound = quoted || (!value.is_empty() && value.bytes().all(|byte| plain(byte) || byte == b'-'));
    (!name.is_empty() && name.bytes().all(plain) && sound).then_some((option, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Fragments, Error> {
        Fragments::parse(vec![("a.config".to_owned(), text.to_owned())])
    }

    #[test]
    fn a_group_shares_its_why() {
        let fragments =
            parse("# Prose.\n\n# why: a reason that\n# goes on.\nCONFIG_A=y\nCONFIG_B=n\n").expect("sound");
        let read: Vec<_> =
            fragments.requests().iter().map(|r| (r.option.as_str(), r.value.as_str())).collect();
        assert_eq!(read, [("CONFIG_A", "y"), ("CONFIG_B", "n")]);
        assert_eq!(fragments.requests()[1].why, "a reason that");
        assert_eq!(fragments.requests()[1].place.to_string(), "a.config:6");
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        for (text, message) in [
            ("CONFIG_A=y", "a.config:1: CONFIG_A stands in a group without a `# why:` line"),
            (
                "# why: x\nCONFIG_A=y\n\nCONFIG_B=y",
                "a.config:4: CONFIG_B stands in a group without a `# why:` line",
            ),
            ("# why:\nCONFIG_A=y", "a.config:2: CONFIG_A stands in a group without a `# why:` line"),
            ("# why: x\nCONFIG_A=y\nCONFIG_A=n", "a.config:3: CONFIG_A was asked for already at a.config:2"),
            ("# why: x\nFOO=y", "a.config:2: `FOO=y` is neither a comment nor CONFIG_NAME=VALUE"),
            ("# why: x\nCONFIG_A=", "a.config:2: `CONFIG_A=` is neither a comment nor CONFIG_NAME=VALUE"),
            ("# why: x\nCONFIG_A=\"", "a.config:2: `CONFIG_A=\"` is neither a comment nor CONFIG_NAME=VALUE"),
        ] {
            assert_eq!(parse(text).expect_err(text).to_string(), message);
        }
    }

    #[test]
    fn an_option_in_two_fragments_is_refused() {
        let text = "# why: x\nCONFIG_A=y\n".to_owned();
        let error = Fragments::parse(vec![("a".to_owned(), text.clone()), ("b".to_owned(), text)])
            .expect_err("twice");
        assert_eq!(error.to_string(), "b:2: CONFIG_A was asked for already at a:2");
    }

    #[test]
    fn merging_replaces_values_and_keeps_the_rest() {
        let fragments = parse("# why: x\nCONFIG_A=y\nCONFIG_B=n\nCONFIG_C=\"\"\n").expect("sound");
        let merged = fragments.merge_into("# head\n# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_AB=1\n");
        assert_eq!(merged, "# head\nCONFIG_AB=1\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"\"\n");
    }

    #[test]
    fn a_missing_fragment_is_named() {
        let error = Fragments::read(Path::new("/nowhere"), Architecture::X86_64).expect_err("no such folder");
        assert_eq!(error.to_string(), "cannot read the kernel fragment `/nowhere/base.config`");
    }

    #[test]
    fn the_fragments_of_this_project_are_sound() {
        let crate_folder = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs this");
        let folder = Path::new(&crate_folder).join("../kernel-config");
        for architecture in [Architecture::X86_64, Architecture::Aarch64] {
            let fragments = Fragments::read(&folder, architecture);
            assert!(fragments.is_ok(), "{architecture:?}: {fragments:?}");
        }
    }
}
