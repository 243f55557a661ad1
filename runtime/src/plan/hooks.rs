//! The hooks of a bundle.

use eci_policy::Verdict;
use eci_policy::rules::hook::{self, Hook};
use serde_json::Value;

use crate::bundle::{Error, Spec, text};

/// Judges every hook. `runs_engine` says whether a path opens the engine's own binary.
///
/// # Errors
/// A list of hooks is not an array.
pub fn judge(spec: &Spec, runs_engine: impl Fn(&str) -> bool) -> Result<Verdict, Error> {
    let Some(hooks) = spec.get("hooks").filter(|hooks| !hooks.is_null()) else { return Ok(Verdict::Allow) };
    let phases = hooks.as_object().ok_or(Error::Field { field: "hooks" })?;
    for (phase, rows) in phases.iter().filter(|(_, rows)| !rows.is_null()) {
        for row in rows.as_array().ok_or(Error::Field { field: "hooks" })? {
            let argument_zero = row.get("args").and_then(|args| args.get(0)).and_then(Value::as_str);
            let path = text(row, "path").unwrap_or_default();
            let hook = Hook {
                phase,
                runs_engine: is_own_executable(path) && runs_engine(path),
                argument_zero: argument_zero.unwrap_or_default(),
            };
            let verdict = hook::judge(hook);
            if verdict != Verdict::Allow {
                return Ok(verdict);
            }
        }
    }
    Ok(Verdict::Allow)
}

/// Whether `path` is `/proc/<pid>/exe`, the form in which dockerd names itself.
fn is_own_executable(path: &str) -> bool {
    path.strip_prefix("/proc/")
        .and_then(|rest| rest.strip_suffix("/exe"))
        .is_some_and(|pid| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn verdict(hooks: &Value) -> Verdict {
        judge(json!({"hooks": hooks}).as_object().unwrap(), |path| path == "/proc/7/exe").unwrap()
    }

    #[test]
    fn dockerds_hook_passes() {
        assert_eq!(
            verdict(&json!({"prestart": [{"path": "/proc/7/exe", "args": ["libnetwork-setkey", "-x"]}]})),
            Verdict::Allow
        );
        assert_eq!(verdict(&Value::Null), Verdict::Allow);
    }

    #[test]
    fn neighbours_of_dockerds_hook_do_not() {
        for hooks in [
            json!({"prestart": [{"path": "/bin/sh", "args": ["libnetwork-setkey"]}]}),
            json!({"prestart": [{"path": "/proc/8/exe", "args": ["libnetwork-setkey"]}]}),
            json!({"prestart": [{"path": "/proc/7/exe"}]}),
            json!({"poststop": [{"path": "/proc/7/exe", "args": ["libnetwork-setkey"]}]}),
        ] {
            assert_eq!(verdict(&hooks).denied_by(), Some(hook::ID), "{hooks}");
        }
    }
}
