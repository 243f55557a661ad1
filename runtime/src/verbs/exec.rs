//! `exec`: crun enters the container; what could give crun orders is taken out.

use std::path::Path;

use eci_policy::Verdict;

use super::program;
use crate::arguments::Flags;
use crate::audit::Denied;
use crate::bundle;
use crate::plan::annotations::strip_environment;
use crate::plan::settings;
use crate::switch;

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A rule says no.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Its description cannot be read or written.
    #[error("cannot use the description of the process")]
    Description(#[from] bundle::Error),
    /// crun cannot be started.
    #[error(transparent)]
    Program(#[from] program::Error),
}

/// Becomes crun. Only ever returns an error.
#[must_use]
pub fn run(globals: &Flags, flags: &Flags, rest: Vec<String>) -> Error {
    let judges = rest.first().is_none_or(|id| switch::ground().judges(id));
    if let Some(path) = flags.value("process").filter(|_| judges) {
        match judge(Path::new(path)) {
            Ok(Verdict::Allow) => {}
            Ok(Verdict::Deny { rule, message, remedy }) => {
                let denied = Denied { rule, message, remedy };
                denied.record("exec", rest.first().map_or("", String::as_str));
                return denied.into();
            }
            Err(error) => return error.into(),
        }
    }
    let words = [vec!["exec".to_owned()], flags.to_arguments(), rest].concat();
    program::pass(globals, &words, program::inherited(flags)).into()
}

/// Judges the process, and takes orders to crun out of its description: in place, for the shim made the file for this
/// one call and removes it afterwards.
fn judge(path: &Path) -> Result<Verdict, bundle::Error> {
    let mut process = bundle::read_object(path)?;
    let strips = strip_environment(&mut process);
    let verdict = settings::judge_process(&serde_json::Value::Object(process.clone()))?;
    if strips && verdict == Verdict::Allow {
        bundle::write_object(path, &process)?;
    }
    Ok(verdict)
}
