//! No driver of a volume, a network, a log or a secret is named by a way out of the folder of plugins.
//!
//! Why: for a driver that it does not know, the engine looks for a socket or a file of that name in the folders of plugins, and cleans no `..` out of
//! it. So a container that listens on a volume would be a plugin of the engine: it says which link of the VM goes into whose network, and which
//! folder of the VM is a volume to be filled. Nothing else keeps the engine from it: the kernel asks no one about a socket with a name.
//!
//! What could be read in two ways is refused. The engine reads JSON as Go does: keys in any case, of those that are there twice the last.

use super::PREFIX;
use super::engine_mount::{fold, without_version};
use crate::Verdict;
use crate::json::Json;

/// Identifier of the rule.
pub const ID: &str = "no-driver-by-path";

/// Keys, as [`fold`] has them, under which the engine finds the name of a driver: `Driver` in most places, or `Name` in it,
/// `HostConfig.VolumeDriver`, `HostConfig.LogConfig.Type`.
const KEYS: [&str; 4] = ["driver", "name", "type", "volumedriver"];
/// Keys of what the user or a driver calls as they like.
const FREE: [&str; 4] = ["annotations", "driveropts", "labels", "options"];

/// Whether the body of a request may name a driver, by its decoded path.
#[must_use]
pub fn is_judged(path: &str) -> bool {
    let path = without_version(path);
    let is_update = |start: &str| path.starts_with(start) && path.ends_with("/update");
    ["/containers/create", "/volumes/create", "/networks/create", "/secrets/create", "/services/create"]
        .contains(&path)
        || ["/swarm/init", "/swarm/update"].contains(&path)
        || is_update("/services/")
        || is_update("/secrets/")
}

/// Judges such a body.
#[must_use]
pub fn judge(body: &[u8]) -> Verdict {
    // Most have neither two dots nor any that are written in another way, and are the engine's to understand or not.
    let may_climb = body.windows(2).any(|two| two == b"..")
        || body.windows(6).any(|six| six.eq_ignore_ascii_case(b"\\u002e"));
    if !may_climb {
        return Verdict::Allow;
    }
    match serde_json::from_slice::<Json>(body) {
        Ok(json) => climbing(&json).map_or(Verdict::Allow, |name| {
            deny(&format!("can't have the driver `{name}`: `..` leads out of the folder of plugins"))
        }),
        Err(error) => deny(&format!("the request is not understood: {error}")),
    }
}

/// The first name of a driver with `..` in it.
fn climbing(json: &Json) -> Option<&str> {
    match json {
        Json::List(elements) => elements.iter().find_map(climbing),
        Json::Table(entries) => entries.iter().find_map(|(key, value)| {
            let key = fold(key);
            match value {
                Json::Text(name) if KEYS.contains(&key.as_str()) && climbs(name) => Some(name.as_str()),
                value if FREE.contains(&key.as_str()) => {
                    // What has to be text there; anything else is looked into.
                    let is_free = matches!(value, Json::Table(entries)
                        if entries.iter().all(|(_, value)| matches!(value, Json::Text(_))));
                    if is_free { None } else { climbing(value) }
                }
                value => climbing(value),
            }
        }),
        _ => None,
    }
}

fn climbs(name: &str) -> bool {
    name.split('/').any(|part| part == "..")
}

fn deny(reason: &str) -> Verdict {
    Verdict::Deny {
        rule: ID,
        message: format!("{PREFIX}: {reason}"),
        remedy: "use a driver of the engine's own",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_driver_s_name_climbs_wherever_it_is() {
        for body in [
            r#"{"Name":"v","Driver":"../../../var/lib/docker/volumes/v/_data/evil"}"#,
            r#"{"Driver":"x/../../y"}"#,
            r#"{"DRIVER":".."}"#,
            r#"{"Driver":"\u002e\u002E/x"}"#,
            r#"{"Driver":".\u002e/x"}"#,
            r#"{"driver":"local","Driver":"../x"}"#,
            r#"{"IPAM":{"Driver":"../x"}}"#,
            r#"{"HostConfig":{"VolumeDriver":"../x"}}"#,
            r#"{"HostConfig":{"Mounts":[{"Type":"volume","VolumeOptions":{"DriverConfig":{"Name":"../x"}}}]}}"#,
            r#"{"HostConfig":{"LogConfig":{"Type":"a/../../x"}}}"#,
            r#"{"TaskTemplate":{"LogDriver":{"Name":"../x"}}}"#,
            r#"{"Labels":{"Driver":{"Driver":"../x"}}}"#,
            "{\"Driver\":\"../x\u{fffd}\"}",
        ] {
            assert_eq!(judge(body.as_bytes()).denied_by(), Some(ID), "{body}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_where_it_may_climb() {
        for (body, denied) in [
            (&b"{\"Driver\":\"../x\xff\"}"[..], true),
            (b"{\"Driver\":\"..", true),
            (b"{\"Driver\":\"../x\"} {}", true),
            (b"{\"Driver\":\"x\xff\"}", false),
            (b"{", false),
            (b"", false),
        ] {
            assert_eq!(judge(body).denied_by().is_some(), denied, "{}", body.escape_ascii());
        }
    }

    #[test]
    fn two_dots_elsewhere_are_fine() {
        for body in [
            r#"{"Driver":"local","DriverOpts":{"name":"../x"},"Labels":{"type":".."}}"#,
            r#"{"Driver":"vieux/sshfs:1..2"}"#,
            r#"{"Cmd":["cd ..","ls ../x"],"Env":["A=../x"],"WorkingDir":"/a/../b"}"#,
            r#"{"HostConfig":{"Binds":["/home/u/../v:/x"],"LogConfig":{"Type":"json-file","Config":{"tag":"../x"}}}}"#,
        ] {
            assert_eq!(judge(body.as_bytes()), Verdict::Allow, "{body}");
        }
    }

    #[test]
    fn requests_are_told_by_their_path() {
        for path in [
            "/containers/create",
            "/v1.45/volumes/create",
            "/networks/create",
            "/services/x/update",
            "/swarm/init",
        ] {
            assert!(is_judged(path), "{path}");
        }
        for path in [
            "/containers/x/update",
            "/containers/create/",
            "/build",
            "/images/load",
            "/networks/x/connect",
            "",
        ] {
            assert!(!is_judged(path), "{path}");
        }
    }
}
