//! The engine mounts no folder of the VM by itself: not to look into a container, and not for a volume with options.
//!
//! Why: to copy files from or to a container the engine lays the container's mounts by itself, and asks no runtime; a volume with a
//! device is mounted before any container has it. In the VM the engine's AppArmor profile refuses that. In a distro of WSL 2 there is
//! no AppArmor, so that there the gate asks this rule about each request.
//!
//! The engine reads JSON as Go does: keys in any case, of those that are there twice the last. What could be read in two ways is refused.

use eci_contract::paths::ENGINE_DATA;

use super::PREFIX;
use crate::Verdict;
use crate::json::Json;

/// Identifier of the rule.
pub const ID: &str = "no-engine-mount";
/// Most bytes of a request whose body is judged. A container's has some kilobytes.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Options of a tmpfs for a volume, or how they begin. `bind` is not among them: with it mount(2) ignores the type.
const TMPFS_OPTIONS: [&str; 5] = ["size=", "mode=", "uid=", "gid=", "nr_inodes="];
const TMPFS_FLAGS: [&str; 6] = ["ro", "rw", "nosuid", "nodev", "noexec", "noatime"];
/// How paths begin of what makes containers and volumes by other requests than those of this rule.
const NOT_THERE: [&str; 4] = ["/plugins/", "/services/", "/swarm/init", "/swarm/join"];
/// Files that the engine makes for a container's network, each under the same name in its folder of that container.
pub const NETWORK_FILES: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
const REMEDY: &str = "use a volume without options, and `docker cp` with containers that have volumes alone";

/// What a request may have the engine mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Nothing by itself.
    Plain,
    /// The mounts of the container of this name or id: [`judge_mount`] and [`judge_options`] say.
    LooksInto(String),
    /// A volume: [`judge_volume`] says, by the body.
    MakesVolume,
    /// Volumes of a container: [`judge_container`] says, by the body, and [`judge_name`].
    MakesContainer,
    /// Nothing, but a container gets another name: [`judge_name`] says.
    Renames,
    /// What this rule cannot look into.
    Refused(Verdict),
}

/// What a request is, by its decoded path.
#[must_use]
pub fn classify(path: &str) -> Request {
    match without_version(path) {
        "/volumes/create" => Request::MakesVolume,
        "/containers/create" => Request::MakesContainer,
        path if path.starts_with("/containers/") && path.ends_with("/rename") => Request::Renames,
        path => match path.strip_prefix("/containers/").and_then(|rest| rest.strip_suffix("/archive")) {
            Some(name) if is_name(name) => Request::LooksInto(name.to_owned()),
            Some(name) => Request::Refused(deny(&format!("`{name}` names no container"))),
            // They make containers that nobody here sees being made.
            None if NOT_THERE.iter().any(|start| path.starts_with(start)) => Request::Refused(deny(
                "there are neither swarms and services nor plugins in a distro of WSL 2",
            )),
            None => Request::Plain,
        },
    }
}

/// The engine's router takes `/v`, digits and dots for a version.
pub(super) fn without_version(path: &str) -> &str {
    let rest = path.strip_prefix("/v").and_then(|rest| rest.split_once('/').map(|(version, _)| version));
    match rest {
        Some(version)
            if !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') =>
        {
            path.get("/v".len() + version.len()..).unwrap_or(path)
        }
        _ => path,
    }
}

/// What the engine takes for a container's name or id; nothing that a path could be made of.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(good)
}

/// A mount of a container as the engine tells of it.
#[derive(Clone, Copy, Debug)]
pub struct Mount<'a> {
    /// `bind`, `volume`, `tmpfs`.
    pub kind: &'a str,
    /// The folder in the VM.
    pub source: &'a str,
    /// The container may write there.
    pub writable: bool,
}

/// Judges a mount of a container that is to be looked into. The options of a volume are for [`judge_options`].
#[must_use]
pub fn judge_mount(container: &str, mount: Mount<'_>) -> Verdict {
    let Mount { kind, source, writable } = mount;
    match kind {
        "volume" | "tmpfs" => Verdict::Allow,
        // Of the root, and empty; Kubernetes nodes bring it.
        "bind" if ["/lib/modules", "/usr/lib/modules"].contains(&source) && !writable => Verdict::Allow,
        _ => looked_into(container, source),
    }
}

/// Judges one of the three [`NETWORK_FILES`] of a container that is to be looked into, by the path that the engine tells. It is the engine's
/// own, of this container or of the one whose network it shares.
#[must_use]
pub fn judge_network_file(container: &str, path: &str) -> Verdict {
    let own = path.strip_prefix(ENGINE_DATA).and_then(|rest| rest.strip_prefix("/containers/"));
    let is_own = own.and_then(|rest| rest.split_once('/')).is_some_and(|(id, file)| {
        is_id(id) && NETWORK_FILES.iter().any(|known| known.strip_prefix("/etc/") == Some(file))
    });
    if path.is_empty() || is_own { Verdict::Allow } else { looked_into(container, path) }
}

fn looked_into(container: &str, source: &str) -> Verdict {
    deny(&format!(
        "can't copy from or to container `{container}`: it mounts `{source}`, which the engine would open by itself"
    ))
}

/// Judges a name that a container is to have: one that reads like an id would be taken for another container's.
#[must_use]
pub fn judge_name(name: &str) -> Verdict {
    if is_id(name.strip_prefix('/').unwrap_or(name)) {
        return deny(&format!("can't name a container `{name}`: that is what ids are like"));
    }
    Verdict::Allow
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Judges the body of a request that makes a volume.
#[must_use]
pub fn judge_volume(body: &[u8]) -> Verdict {
    judged(body, |volume| options(find(volume, &["driveropts"])?))
}

/// Judges the body of a request that makes a container: its volumes with options, and what is in the place of the files for its network.
/// The engine takes what is under `HostConfig`, or in its absence the same keys beside it.
#[must_use]
pub fn judge_container(body: &[u8]) -> Verdict {
    judged(body, |container| {
        let host_config = find(container, &["hostconfig"])?;
        [Some(container), host_config].into_iter().flatten().try_for_each(|at| {
            for bind in list(find(at, &["binds"])?, "Binds")? {
                let Json::Text(bind) = bind else { return Err("one of `Binds` is no text".to_owned()) };
                bind.split(':').try_for_each(no_network_file)?;
            }
            for mount in list(find(at, &["mounts"])?, "Mounts")? {
                options(find(mount, &["volumeoptions", "driverconfig", "options"])?)?;
                match find(mount, &["target"])? {
                    Some(Json::Text(target)) => no_network_file(target)?,
                    None | Some(Json::Null) => {}
                    Some(_) => return Err("a `Target` is no text".to_owned()),
                }
            }
            Ok(())
        })
    })
}

fn list<'a>(found: Option<&'a Json>, key: &str) -> Result<&'a [Json], String> {
    match found {
        None | Some(Json::Null) => Ok(&[]),
        Some(Json::List(elements)) => Ok(elements),
        Some(_) => Err(format!("`{key}` is no list")),
    }
}

/// The engine remembers what is mounted there as the container's own, gives it to whoever shares the network, and binds it by name.
fn no_network_file(target: &str) -> Result<(), String> {
    let mut clean = Vec::new();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(clean.pop()),
            part => clean.push(part),
        }
    }
    let clean = format!("/{}", clean.join("/"));
    if NETWORK_FILES.contains(&clean.as_str()) {
        return Err(format!(
            "can't mount anything at `{clean}`: the engine would open that by itself, for others too"
        ));
    }
    Ok(())
}

/// Judges the options of a volume that is there, as the engine tells them.
#[must_use]
pub fn judge_options(told: &Json) -> Verdict {
    options(Some(told)).map_or_else(|reason| deny(&reason), |()| Verdict::Allow)
}

fn judged(body: &[u8], judge: impl FnOnce(&Json) -> Result<(), String>) -> Verdict {
    let read = serde_json::from_slice::<Json>(body);
    match read
        .map_err(|error| format!("the request is not understood: {error}"))
        .and_then(|json| judge(&json))
    {
        Ok(()) => Verdict::Allow,
        Err(reason) => deny(&reason),
    }
}

/// A volume in memory, or one that is a folder of the engine's own.
fn options(told: Option<&Json>) -> Result<(), String> {
    let entries = match told {
        None | Some(Json::Null) => return Ok(()),
        Some(Json::Table(entries)) => entries,
        Some(_) => return Err("a volume's options are no object".to_owned()),
    };
    let mut kind = None;
    for (key, value) in entries {
        let Json::Text(value) = value else {
            return Err(format!("the option `{key}` of a volume is no text"));
        };
        match key.as_str() {
            "type" if value == "tmpfs" => kind = Some(value),
            "device" if ["tmpfs", "none", ""].contains(&value.as_str()) => {}
            "o" if value.is_empty() || value.split(',').all(is_of_tmpfs) => {}
            _ => {
                return Err(format!(
                    "can't make a volume with `{key}={value}`: the engine would mount that by itself"
                ));
            }
        }
    }
    if entries.is_empty() || kind.is_some() {
        Ok(())
    } else {
        Err("can't make a volume with options and without `type=tmpfs`".to_owned())
    }
}

fn is_of_tmpfs(option: &str) -> bool {
    TMPFS_FLAGS.contains(&option) || TMPFS_OPTIONS.iter().any(|start| option.starts_with(start))
}

/// Follows keys as Go does, in any case.
fn find<'a>(json: &'a Json, keys: &[&str]) -> Result<Option<&'a Json>, String> {
    let mut json = json;
    for key in keys {
        let entries = match json {
            Json::Table(entries) => entries,
            Json::Null => return Ok(None),
            _ => return Err(format!("what has to have `{key}` is no object")),
        };
        let mut values = entries.iter().filter(|(name, _)| fold(name) == *key).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (Some(value), None) => json = value,
            (None, _) => return Ok(None),
            (Some(_), Some(_)) => return Err(format!("the request has the key `{key}` twice")),
        }
    }
    Ok(Some(json))
}

/// As `encoding/json` folds: lower case, and the two letters outside of ASCII that fold into it, the long s and the sign of kelvins.
pub(super) fn fold(name: &str) -> String {
    name.chars()
        .flat_map(char::to_lowercase)
        .map(|letter| if letter == '\u{17f}' { 's' } else { letter })
        .collect()
}

fn deny(reason: &str) -> Verdict {
    Verdict::Deny { rule: ID, message: format!("{PREFIX}: {reason}"), remedy: REMEDY }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(verdict: &Verdict) -> &str {
        match verdict {
            Verdict::Deny { message, .. } => message,
            Verdict::Allow => "allowed",
        }
    }

    #[test]
    fn requests_are_told_by_their_path_with_and_without_a_version() {
        let looks_into = |name: &str| Request::LooksInto(name.to_owned());
        for (path, request) in [
            ("/volumes/create", Request::MakesVolume),
            ("/v1.45/volumes/create", Request::MakesVolume),
            ("/v1/containers/create", Request::MakesContainer),
            ("/v1.45/containers/c.1/archive", looks_into("c.1")),
            ("/containers/archive/archive", looks_into("archive")),
            ("/v1.45/containers/c/rename", Request::Renames),
            ("/_ping", Request::Plain),
            ("/swarm/leave", Request::Plain),
            ("/vx/volumes/create", Request::Plain),
            ("/v/volumes/create", Request::Plain),
            ("/volumes/create/", Request::Plain),
            ("/containers/c/json", Request::Plain),
            ("/v1.45", Request::Plain),
            ("", Request::Plain),
        ] {
            assert_eq!(classify(path), request, "{path}");
        }
        for path in [
            "/containers/a/b/archive",
            "/containers//archive",
            "/containers/../archive",
            "/v1.45/services/create",
            "/plugins/pull",
            "/services/x/update",
            "/swarm/init",
        ] {
            assert!(matches!(classify(path), Request::Refused(_)), "{path}");
        }
    }

    #[test]
    fn of_a_container_s_mounts_volumes_are_looked_into_and_nothing_of_the_system() {
        for kind in ["volume", "tmpfs"] {
            assert_eq!(judge_mount("c", Mount { kind, source: "", writable: true }), Verdict::Allow);
        }
        let modules = Mount { kind: "bind", source: "/lib/modules", writable: false };
        assert_eq!(judge_mount("c", modules), Verdict::Allow);
        for other in [Mount { writable: true, ..modules }, Mount { source: "/lib/modules/x", ..modules }] {
            assert_eq!(judge_mount("c", other).denied_by(), Some(ID));
        }
        for kind in ["bind", "npipe", "cluster", ""] {
            assert_eq!(
                message(&judge_mount("c", Mount { kind, source: "/run", writable: false })),
                "enhanced container isolation: can't copy from or to container `c`: it mounts `/run`, which the engine would \
                 open by itself"
            );
        }
    }

    #[test]
    fn a_volume_has_no_options_or_is_a_tmpfs() {
        for body in [
            "{}",
            r#"{"Name": "v", "Driver": "local", "DriverOpts": null}"#,
            r#"{"DriverOpts": {}}"#,
            r#"{"DriverOpts": {"type": "tmpfs", "device": "none", "o": ""}}"#,
            r#"{"DriverOpts": {"type": "tmpfs", "device": "tmpfs", "o": "size=10m,uid=1000,noexec"}}"#,
        ] {
            assert_eq!(judge_volume(body.as_bytes()), Verdict::Allow, "{body}");
        }
        for body in [
            r#"{"DriverOpts": {"type": "none", "device": "/run", "o": "bind"}}"#,
            r#"{"DriverOpts": {"type": "tmpfs", "device": "/run", "o": "bind"}}"#,
            r#"{"DriverOpts": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,bind"}}"#,
            r#"{"DriverOpts": {"type": "tmpfs", "device": "tmpfs", "o": "rbind"}}"#,
            r#"{"DriverOpts": {"type": "overlay", "device": "overlay", "o": "lowerdir=/run"}}"#,
            r#"{"DriverOpts": {"device": "tmpfs"}}"#,
            r#"{"DriverOpts": {"o": "size=1m"}}"#,
            r#"{"DriverOpts": {"type": ["tmpfs"]}}"#,
            r#"{"DriverOpts": "type=tmpfs"}"#,
            // As the engine reads keys.
            r#"{"driveropts": {"device": "/run"}}"#,
            "{\"DriverOpt\u{17f}\": {\"device\": \"/run\"}}",
            r#"{"DriverOpts": {}, "DRIVEROPTS": {"device": "/run"}}"#,
            r#"{"DriverOpts": {"device": "tmpfs", "type": "tmpfs", "device": "/run"}}"#,
            r#"{"\u0044riverOpts": {"device": "/run"}}"#,
            r#"{} {"DriverOpts": {"device": "/run"}}"#,
            "[]",
            "",
        ] {
            assert!(judge_volume(body.as_bytes()).denied_by() == Some(ID), "{body}");
        }
        let body = br#"{"DriverOpts": {"type": "none", "device": "/run", "o": "bind"}}"#;
        assert_eq!(
            message(&judge_volume(body)),
            "enhanced container isolation: can't make a volume with `type=none`: the engine would mount that by itself"
        );
    }

    #[test]
    fn a_container_s_volumes_are_judged_and_its_binds_left_to_the_runtime() {
        let mount = |options: &str| {
            format!(
                r#"{{"HostConfig": {{"Binds": ["/run:/x"], "Mounts": [{{"Type": "volume"}}, {options}]}}}}"#
            )
        };
        for body in [
            "{}".to_owned(),
            r#"{"HostConfig": null}"#.to_owned(),
            r#"{"HostConfig": {"Mounts": []}}"#.to_owned(),
            // What is the container's own is told apart by case.
            r#"{"Labels": {"a": "1", "A": "2"}}"#.to_owned(),
            mount(r#"{"Type": "bind", "Source": "/run"}"#),
            mount(r#"{"VolumeOptions": {"DriverConfig": {"Name": "local"}}}"#),
            mount(
                r#"{"VolumeOptions": {"DriverConfig": {"Options": {"type": "tmpfs", "device": "tmpfs"}}}}"#,
            ),
        ] {
            assert_eq!(judge_container(body.as_bytes()), Verdict::Allow, "{body}");
        }
        for body in [
            mount(r#"{"VolumeOptions": {"DriverConfig": {"Options": {"device": "/run"}}}}"#),
            mount(r#"{"volumeoptions": {"DRIVERCONFIG": {"options": {"o": "bind"}}}}"#),
            mount(r#"{"VolumeOptions": []}"#),
            r#"{"HostConfig": {"Mounts": {}}}"#.to_owned(),
            // What older clients send beside `HostConfig`.
            r#"{"Mounts": [{"VolumeOptions": {"DriverConfig": {"Options": {"device": "/run"}}}}]}"#.to_owned(),
            r#"{"HostConfig": null, "mounts": [{"VolumeOptions": {"DriverConfig": {"Options": {"o": "bind"}}}}]}"#
                .to_owned(),
            r#"{"HostConfig": {"Binds": [1]}}"#.to_owned(),
            r#"{"HostConfig": {}, "hostconfig": {"Mounts": []}}"#.to_owned(),
            "null null".to_owned(),
        ] {
            assert!(judge_container(body.as_bytes()).denied_by() == Some(ID), "{body}");
        }
    }

    #[test]
    fn files_for_the_network_are_the_engine_s_own() {
        let folder = format!("/var/lib/docker/containers/{}", "0a".repeat(32));
        for path in [String::new(), format!("{folder}/hosts"), format!("{folder}/resolv.conf")] {
            assert_eq!(judge_network_file("c", &path), Verdict::Allow, "{path}");
        }
        for path in [
            "/etc/hosts".to_owned(),
            "/var/lib/docker/volumes/v/_data/d".to_owned(),
            format!("{folder}/hosts/.."),
            format!("{folder}/../x/hosts"),
            format!("{folder}/other"),
            folder,
        ] {
            assert_eq!(judge_network_file("c", &path).denied_by(), Some(ID), "{path}");
        }
        for target in ["/etc/hosts", "/etc//./resolv.conf", "/x/../etc/hostname/"] {
            for body in [
                format!(
                    r#"{{"HostConfig": {{"Binds": ["/var/lib/docker/volumes/v/_data/d:{target}:ro"]}}}}"#
                ),
                format!(r#"{{"Binds": ["v:{target}"]}}"#),
                format!(r#"{{"HostConfig": {{"Mounts": [{{"Type": "bind", "Target": "{target}"}}]}}}}"#),
                format!(r#"{{"mounts": [{{"TARGET": "{target}"}}]}}"#),
            ] {
                assert_eq!(judge_container(body.as_bytes()).denied_by(), Some(ID), "{body}");
            }
        }
        let beside =
            br#"{"HostConfig": {"Binds": ["v:/etc/hosts.d", "/etc"], "Mounts": [{"Target": "/etc"}]}}"#;
        assert_eq!(judge_container(beside), Verdict::Allow);
    }

    #[test]
    fn no_container_is_named_like_an_id() {
        let id = "0aF".repeat(22);
        assert_eq!(judge_name(&id[..64]).denied_by(), Some(ID));
        assert_eq!(judge_name(&format!("/{}", &id[..64])).denied_by(), Some(ID));
        for name in ["", "web", &id[..63], &id[..65], &format!("{}g", &id[..63])] {
            assert_eq!(judge_name(name), Verdict::Allow, "{name}");
        }
    }

    #[test]
    fn options_that_the_engine_tells_are_judged_alike() {
        let told = |text: &str| judge_options(&serde_json::from_str(text).unwrap());
        assert_eq!(told("null"), Verdict::Allow);
        assert_eq!(told(r#"{"type": "tmpfs"}"#), Verdict::Allow);
        assert_eq!(told(r#"{"device": "/run", "o": "bind"}"#).denied_by(), Some(ID));
    }
}
