//! runc's command line, as far as the engine uses it.
//!
//! Flags are a table. A flag that is not in it is refused for the verbs that we act on, so that nothing reaches crun
//! that was not thought of; verbs that only pass through keep their words as they are.

use std::path::{Path, PathBuf};

/// Why a command line was not understood.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such flag for this verb.
    #[error("unknown flag `{flag}`")]
    UnknownFlag {
        /// The flag as given.
        flag: String,
    },
    /// A flag that needs a value came last.
    #[error("flag `--{flag}` needs a value")]
    MissingValue {
        /// The flag's name.
        flag: &'static str,
    },
    /// There is no verb.
    #[error("no command given")]
    NoVerb,
    /// A verb that would start a container past the rules, or that saves one for such a start.
    #[error("`{verb}` is refused (because a restored container would have what no rule has judged)")]
    Refused {
        /// The verb.
        verb: String,
    },
    /// No such verb.
    #[error("unknown command `{verb}`")]
    UnknownVerb {
        /// The verb.
        verb: String,
    },
    /// A verb without its container.
    #[error("`{verb}` needs exactly one container id")]
    NoContainer {
        /// The verb.
        verb: String,
    },
    /// An id that could be a path or a flag.
    #[error(
        "container id `{id}` has characters other than letters, digits and `_+-.`, or begins with one of `-.`"
    )]
    BadContainer {
        /// The id as given.
        id: String,
    },
}

/// A whole command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Global flags.
    pub globals: Flags,
    /// What to do.
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Verb {
    /// `create` or `run`.
    Create(Create),
    /// `exec`, with its flags and what comes after them.
    Exec(Flags, Vec<String>),
    /// `delete`.
    Delete(Flags, String),
    /// `--version`.
    Version,
    /// One of [`PASSED`] with its words, verb first; nothing for `--help`.
    Pass(Vec<String>),
}

/// `create` or `run`.
#[derive(Debug, PartialEq, Eq)]
pub struct Create {
    /// `create` or `run`.
    pub verb: String,
    /// Flags but for `--bundle`.
    pub flags: Flags,
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// Container id.
    pub id: String,
}

/// Flags with their values, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Flags(Vec<(&'static str, Option<String>)>);

impl Flags {
    /// The last value of flag `name`.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(flag, _)| *flag == name).and_then(|(_, value)| value.as_deref())
    }

    /// Makes the paths among the values absolute, as seen from `folder`.
    #[must_use]
    pub fn seen_from(self, folder: &Path) -> Self {
        let absolute = |(flag, value): (&'static str, Option<String>)| match value {
            Some(path) if PATHS.contains(&flag) => {
                (flag, Some(folder.join(path).to_string_lossy().into_owned()))
            }
            value => (flag, value),
        };
        Self(self.0.into_iter().map(absolute).collect())
    }

    /// The flags as crun takes them.
    #[must_use]
    pub fn to_arguments(&self) -> Vec<String> {
        self.0
            .iter()
            .filter(|(flag, _)| !ONLY_RUNC.contains(flag))
            .map(|(flag, value)| match value {
                Some(value) => format!("--{flag}={value}"),
                None => format!("--{flag}"),
            })
            .collect()
    }
}

/// A row of a flag table: long name, short name, whether a value follows.
type Flag = (&'static str, Option<&'static str>, Takes);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
    /// A value only after `=`.
    Optional,
}

const GLOBAL: &[Flag] = &[
    ("debug", None, Takes::Nothing),
    ("log", None, Takes::Value),
    ("log-format", None, Takes::Value),
    ("root", None, Takes::Value),
    ("criu", None, Takes::Value),
    ("rootless", None, Takes::Value),
    ("systemd-cgroup", None, Takes::Nothing),
    ("version", Some("v"), Takes::Nothing),
    ("help", Some("h"), Takes::Nothing),
];

const CREATE: &[Flag] = &[
    ("bundle", Some("b"), Takes::Value),
    ("console-socket", None, Takes::Value),
    ("detach", Some("d"), Takes::Nothing),
    ("keep", None, Takes::Nothing),
    ("no-new-keyring", None, Takes::Nothing),
    ("no-pivot", None, Takes::Nothing),
    ("no-subreaper", None, Takes::Nothing),
    ("pid-file", None, Takes::Value),
    ("preserve-fds", None, Takes::Value),
];

const EXEC: &[Flag] = &[
    ("apparmor", None, Takes::Value),
    ("cap", Some("c"), Takes::Value),
    ("console-socket", None, Takes::Value),
    ("cwd", None, Takes::Value),
    ("detach", Some("d"), Takes::Nothing),
    ("env", Some("e"), Takes::Value),
    ("no-new-privs", None, Takes::Nothing),
    ("pid-file", None, Takes::Value),
    ("preserve-fds", None, Takes::Value),
    ("process", Some("p"), Takes::Value),
    ("tty", Some("t"), Takes::Optional),
    ("user", Some("u"), Takes::Value),
];

/// Flags whose value is a path that crun opens after it has gone into the bundle's folder, which is another one than the
/// caller named.
const PATHS: &[&str] = &["root", "log", "console-socket", "pid-file"];

const DELETE: &[Flag] = &[("force", Some("f"), Takes::Nothing)];

/// Verbs that crun may have as they are: they look, or act on a container that was judged. crun has others, which start
/// containers or mount into them.
pub const PASSED: &[&str] =
    &["features", "kill", "list", "pause", "ps", "resume", "spec", "start", "state", "update"];

/// Verbs that are told why they are refused.
const REFUSED: &[&str] = &["checkpoint", "restore"];

/// Flags of runc that crun does not know and that change nothing here.
const ONLY_RUNC: &[&str] = &["criu", "bundle"];

/// Reads the words after the program's name.
///
/// # Errors
/// See [`Error`].
pub fn parse(words: &[String]) -> Result<Invocation, Error> {
    let (globals, rest) = scan(words, GLOBAL)?;
    if globals.0.iter().any(|(flag, _)| *flag == "version") {
        return Ok(Invocation { globals, verb: Verb::Version });
    }
    let verb = match rest.split_first() {
        Some((verb, rest)) => parse_verb(verb, rest)?,
        None if globals.0.iter().any(|(flag, _)| *flag == "help") => Verb::Pass(Vec::new()),
        None => return Err(Error::NoVerb),
    };
    Ok(Invocation { globals, verb })
}

fn parse_verb(verb: &str, rest: &[String]) -> Result<Verb, Error> {
    match verb {
        "create" | "run" => {
            let (flags, rest) = scan(rest, CREATE)?;
            let bundle = flags.value("bundle").unwrap_or(".").into();
            Ok(Verb::Create(Create { verb: verb.to_owned(), flags, bundle, id: only_container(verb, rest)? }))
        }
        "exec" => {
            let (flags, rest) = scan(rest, EXEC)?;
            only_container(verb, rest.get(..1).unwrap_or_default())?;
            Ok(Verb::Exec(flags, rest.to_vec()))
        }
        "delete" => {
            let (flags, rest) = scan(rest, DELETE)?;
            Ok(Verb::Delete(flags, only_container(verb, rest)?))
        }
        // After `--` a flag would be taken for the verb, and crun, which the `--` does not reach, for a flag again.
        _ if verb.starts_with('-') => Err(Error::UnknownFlag { flag: verb.to_owned() }),
        _ if PASSED.contains(&verb) => {
            Ok(Verb::Pass(std::iter::once(verb.to_owned()).chain(rest.iter().cloned()).collect()))
        }
        _ if REFUSED.contains(&verb) => Err(Error::Refused { verb: verb.to_owned() }),
        _ => Err(Error::UnknownVerb { verb: verb.to_owned() }),
    }
}

/// Flags up to the first word that is none, as Go's flag packages read them.
fn scan<'a>(words: &'a [String], table: &[Flag]) -> Result<(Flags, &'a [String]), Error> {
    let mut flags = Flags::default();
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        let Some(name) = word.strip_prefix('-').filter(|name| !name.is_empty()) else { break };
        rest = after;
        if name == "-" {
            break;
        }
        let name = name.strip_prefix('-').unwrap_or(name);
        let (name, inline) = name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value)));
        let &(flag, _, takes) = table
            .iter()
            .find(|(long, short, _)| *long == name || *short == Some(name))
            .ok_or_else(|| Error::UnknownFlag { flag: word.clone() })?;
        let value = match (takes, inline) {
            (Takes::Nothing, None) | (Takes::Optional, None) => None,
            (Takes::Nothing, Some("true")) => None,
            (Takes::Nothing, Some(_)) => return Err(Error::UnknownFlag { flag: word.clone() }),
            (Takes::Value | Takes::Optional, Some(value)) => Some(value.to_owned()),
            (Takes::Value, None) => {
                let (value, after) = rest.split_first().ok_or(Error::MissingValue { flag })?;
                rest = after;
                Some(value.clone())
            }
        };
        flags.0.push((flag, value));
    }
    Ok((flags, rest))
}

fn only_container(verb: &str, rest: &[String]) -> Result<String, Error> {
    let [id] = rest else { return Err(Error::NoContainer { verb: verb.to_owned() }) };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.is_empty() || id.starts_with(['.', '-']) || !id.bytes().all(plain) {
        return Err(Error::BadContainer { id: id.clone() });
    }
    Ok(id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Invocation, Error> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_shims_create_line_is_understood() {
        let line =
            "--root /r --log /l --log-format json create --bundle /b --pid-file /p --console-socket /s id1";
        let Invocation { globals, verb: Verb::Create(create) } = parsed(line).unwrap() else {
            panic!("not create")
        };
        assert_eq!(globals.to_arguments(), ["--root=/r", "--log=/l", "--log-format=json"]);
        assert_eq!(create.bundle, PathBuf::from("/b"));
        assert_eq!(create.flags.to_arguments(), ["--pid-file=/p", "--console-socket=/s"]);
        assert_eq!(create.id, "id1");
    }

    #[test]
    fn buildkits_run_line_is_understood() {
        let Verb::Create(run) = parsed("--log F --log-format json run --bundle B --keep ID").unwrap().verb
        else {
            panic!("not run")
        };
        assert_eq!((run.verb.as_str(), run.flags.to_arguments()), ("run", vec!["--keep".to_owned()]));
    }

    #[test]
    fn paths_are_the_callers_not_the_bundles() {
        let Verb::Create(create) =
            parsed("create --pid-file p --console-socket /s --preserve-fds 1 id").unwrap().verb
        else {
            panic!("not create")
        };
        let flags = create.flags.seen_from(Path::new("/here"));
        assert_eq!(flags.to_arguments(), ["--pid-file=/here/p", "--console-socket=/s", "--preserve-fds=1"]);
    }

    #[test]
    fn another_configuration_file_cannot_be_smuggled_in() {
        assert!(matches!(parsed("create --config /evil id"), Err(Error::UnknownFlag { .. })));
        assert!(matches!(parsed("create -f /evil id"), Err(Error::UnknownFlag { .. })));
        assert!(matches!(parsed("create a -f /evil"), Err(Error::NoContainer { .. })));
    }

    #[test]
    fn ids_that_are_paths_or_flags_are_refused() {
        for verb in ["create", "delete", "exec"] {
            for id in ["../x", "a/b", ".", "..", ".hidden", "a b", "-fx", "-"] {
                let words = [verb.to_owned(), "--".to_owned(), id.to_owned()];
                assert!(matches!(parse(&words), Err(Error::BadContainer { .. })), "{verb} {id}");
            }
        }
    }

    #[test]
    fn two_dashes_carry_no_flag_past_the_tables() {
        assert!(matches!(parsed("exec -- --cgroup=/x id sh"), Err(Error::BadContainer { .. })));
        assert!(matches!(parsed("-- -- create id"), Err(Error::UnknownFlag { .. })));
        assert!(matches!(parsed("-- --root=/x create id"), Err(Error::UnknownFlag { .. })));
        assert!(matches!(parsed("exec -d"), Err(Error::NoContainer { .. })));
    }

    #[test]
    fn words_of_other_verbs_stay_as_they_are() {
        let Verb::Pass(words) = parsed("kill --all id 9").unwrap().verb else { panic!("not passed") };
        assert_eq!(words, ["kill", "--all", "id", "9"]);
    }

    #[test]
    fn a_verb_passes_when_it_is_known_to_start_and_mount_nothing() {
        for verb in PASSED {
            assert!(matches!(parsed(verb).unwrap().verb, Verb::Pass(_)), "{verb}");
        }
        for verb in ["checkpoint", "restore"] {
            assert!(matches!(parsed(&format!("{verb} id")), Err(Error::Refused { .. })), "{verb}");
        }
        for verb in ["mounts", "starts", "Start", ""] {
            let words = [verb.to_owned(), "id".to_owned()];
            assert!(matches!(parse(&words), Err(Error::UnknownVerb { .. })), "{verb}");
        }
    }

    #[test]
    fn the_command_after_exec_is_not_read_as_flags() {
        let Verb::Exec(flags, rest) = parsed("exec --process /p -d id ls --help").unwrap().verb else {
            panic!("not exec")
        };
        assert_eq!(flags.value("process"), Some("/p"));
        assert_eq!(rest, ["id", "ls", "--help"]);
    }

    #[test]
    fn errors_name_the_words() {
        for (line, text) in [
            ("--nope create x", "unknown flag `--nope`"),
            ("--log", "flag `--log` needs a value"),
            ("", "no command given"),
            ("create", "`create` needs exactly one container id"),
        ] {
            assert_eq!(parsed(line).unwrap_err().to_string(), text);
        }
    }
}
