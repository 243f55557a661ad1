//! What a container that has the engine's socket may ask the engine for, by an administrator's list of commands.
//!
//! Why: who speaks to the engine has all containers, images and volumes of the machine. The list is Docker's, with the names that
//! `docker --help` has; what the engine is asked for is a method and a path (Docker's API 1.24 to 1.45). What is in no row here
//! belongs to no command, and is refused wherever a list is in force.
//!
//! The path is judged decoded, as the engine's router has it. One that could be read in two ways is refused.

use eci_contract::socket::{CommandList, ListKind};

use super::PREFIX;
use super::engine_mount::without_version;
use crate::Verdict;

/// Identifier of the rule.
pub const ID: &str = "engine-command";

/// Characters of a request that a refusal shows.
const SHOWN_CHARACTERS: usize = 200;

/// A part of a path that may be anything.
const ANY: &str = "{}";
/// One or more parts: an image's name has slashes.
const NAME: &str = "{…}";

/// Methods, path, and the commands that ask for it: on a list of what is denied any of them refuses it, on one of what is allowed any lets
/// it through.
struct Endpoint(&'static [&'static str], &'static str, &'static [&'static str]);

/// Commands that need more than what is theirs, and so have it when they are allowed: they look first, wait, pass signals on, or fetch
/// what is not there.
const NEEDS: &[(&str, &[&str])] = &[
    ("attach", &["container inspect", "kill", "wait"]),
    ("cp", &["container inspect"]),
    ("create", &["pull"]),
    ("exec", &["container inspect"]),
    ("logs", &["container inspect"]),
    ("run", &["attach", "container inspect", "create", "kill", "pull", "start", "wait"]),
    ("start", &["attach", "container inspect", "kill", "wait"]),
    ("stats", &["events", "ps"]),
];

/// What has the effect of other commands, which refuse it when they are denied.
const BRINGS: &[(&str, &[&str])] = &[
    ("/grpc", &["builder prune"]),
    ("/plugins/pull", &["pull"]),
    ("/plugins/{…}/push", &["push"]),
    ("/plugins/{…}/upgrade", &["pull"]),
    ("/services/create", &["create", "pull", "run"]),
    ("/services/{}/update", &["create", "pull", "run"]),
];

/// By its query the engine tells fetching an image from making one of what it is sent.
const PULL_OR_IMPORT: &str = "/images/create";

const GET: &[&str] = &["GET", "HEAD"];
const POST: &[&str] = &["POST"];
const DELETE: &[&str] = &["DELETE"];

/// What clients ask before anything else, to agree on a version. It tells nothing of containers, and is on no list.
const GREETING: [&str; 2] = ["/_ping", "/version"];
/// What the engine tells its developers, whatever the list.
const INSIDE: &str = "/debug/";

const ENDPOINTS: &[Endpoint] = &[
    Endpoint(POST, "/auth", &["login"]),
    Endpoint(POST, "/build", &["build"]),
    Endpoint(POST, "/build/cancel", &["build"]),
    Endpoint(POST, "/build/prune", &["builder prune", "build"]),
    Endpoint(POST, "/commit", &["commit"]),
    Endpoint(GET, "/configs", &["config"]),
    Endpoint(GET, "/configs/{}", &["config"]),
    Endpoint(POST, "/configs/create", &["config"]),
    Endpoint(POST, "/configs/{}/update", &["config"]),
    Endpoint(DELETE, "/configs/{}", &["config"]),
    Endpoint(GET, "/containers/json", &["ps"]),
    Endpoint(POST, "/containers/create", &["create", "run"]),
    Endpoint(POST, "/containers/prune", &["container prune"]),
    // Before what takes a link's name, with a slash, for a container's.
    Endpoint(DELETE, "/containers/{}/checkpoints/{}", &["checkpoint"]),
    Endpoint(DELETE, "/containers/{…}", &["rm"]),
    Endpoint(GET, "/containers/{}/json", &["container inspect", "inspect"]),
    Endpoint(GET, "/containers/{}/archive", &["cp"]),
    Endpoint(&["PUT"], "/containers/{}/archive", &["cp"]),
    Endpoint(POST, "/containers/{}/attach", &["attach", "run"]),
    Endpoint(GET, "/containers/{}/attach/ws", &["attach", "run"]),
    Endpoint(GET, "/containers/{}/changes", &["diff"]),
    Endpoint(GET, "/containers/{}/checkpoints", &["checkpoint"]),
    Endpoint(POST, "/containers/{}/checkpoints", &["checkpoint"]),
    Endpoint(POST, "/containers/{}/exec", &["exec"]),
    Endpoint(GET, "/containers/{}/export", &["export"]),
    Endpoint(POST, "/containers/{}/kill", &["kill"]),
    Endpoint(GET, "/containers/{}/logs", &["logs"]),
    Endpoint(POST, "/containers/{}/pause", &["pause"]),
    Endpoint(POST, "/containers/{}/rename", &["rename"]),
    Endpoint(POST, "/containers/{}/resize", &["attach", "run", "start"]),
    Endpoint(POST, "/containers/{}/restart", &["restart"]),
    Endpoint(POST, "/containers/{}/start", &["start", "run"]),
    Endpoint(GET, "/containers/{}/stats", &["stats"]),
    Endpoint(POST, "/containers/{}/stop", &["stop"]),
    Endpoint(GET, "/containers/{}/top", &["top"]),
    Endpoint(POST, "/containers/{}/unpause", &["unpause"]),
    Endpoint(POST, "/containers/{}/update", &["update"]),
    Endpoint(POST, "/containers/{}/wait", &["wait", "run"]),
    Endpoint(GET, "/distribution/{…}/json", &["manifest", "service"]),
    Endpoint(GET, "/events", &["events"]),
    Endpoint(GET, "/exec/{}/json", &["exec"]),
    Endpoint(POST, "/exec/{}/resize", &["exec"]),
    Endpoint(POST, "/exec/{}/start", &["exec"]),
    Endpoint(POST, "/grpc", &["build"]),
    Endpoint(POST, "/images/create", &["import", "pull"]),
    Endpoint(GET, "/images/get", &["save"]),
    Endpoint(GET, "/images/json", &["images"]),
    Endpoint(POST, "/images/load", &["load"]),
    Endpoint(POST, "/images/prune", &["image prune"]),
    Endpoint(GET, "/images/search", &["search"]),
    Endpoint(GET, "/images/{…}/get", &["save"]),
    Endpoint(GET, "/images/{…}/history", &["history"]),
    Endpoint(GET, "/images/{…}/json", &["image inspect", "inspect"]),
    Endpoint(POST, "/images/{…}/push", &["push"]),
    Endpoint(POST, "/images/{…}/tag", &["tag"]),
    Endpoint(DELETE, "/images/{…}", &["rmi"]),
    Endpoint(GET, "/info", &["info"]),
    Endpoint(GET, "/networks", &["network ls"]),
    Endpoint(POST, "/networks/create", &["network create"]),
    Endpoint(POST, "/networks/prune", &["network prune"]),
    Endpoint(GET, "/networks/{}", &["network inspect"]),
    Endpoint(DELETE, "/networks/{}", &["network rm"]),
    Endpoint(POST, "/networks/{}/connect", &["network connect"]),
    Endpoint(POST, "/networks/{}/disconnect", &["network disconnect"]),
    Endpoint(GET, "/nodes", &["node"]),
    Endpoint(GET, "/nodes/{}", &["node"]),
    Endpoint(POST, "/nodes/{}/update", &["node"]),
    Endpoint(DELETE, "/nodes/{}", &["node"]),
    Endpoint(GET, "/plugins", &["plugin"]),
    Endpoint(GET, "/plugins/privileges", &["plugin"]),
    Endpoint(POST, "/plugins/pull", &["plugin"]),
    Endpoint(POST, "/plugins/create", &["plugin"]),
    Endpoint(GET, "/plugins/{…}/json", &["plugin"]),
    Endpoint(POST, "/plugins/{…}/enable", &["plugin"]),
    Endpoint(POST, "/plugins/{…}/disable", &["plugin"]),
    Endpoint(POST, "/plugins/{…}/upgrade", &["plugin"]),
    Endpoint(POST, "/plugins/{…}/push", &["plugin"]),
    Endpoint(POST, "/plugins/{…}/set", &["plugin"]),
    Endpoint(DELETE, "/plugins/{…}", &["plugin"]),
    Endpoint(GET, "/secrets", &["secret"]),
    Endpoint(GET, "/secrets/{}", &["secret"]),
    Endpoint(POST, "/secrets/create", &["secret"]),
    Endpoint(POST, "/secrets/{}/update", &["secret"]),
    Endpoint(DELETE, "/secrets/{}", &["secret"]),
    Endpoint(GET, "/services", &["service"]),
    Endpoint(GET, "/services/{}", &["service"]),
    Endpoint(GET, "/services/{}/logs", &["service"]),
    Endpoint(POST, "/services/create", &["service"]),
    Endpoint(POST, "/services/{}/update", &["service"]),
    Endpoint(DELETE, "/services/{}", &["service"]),
    Endpoint(POST, "/session", &["build"]),
    Endpoint(GET, "/swarm", &["swarm"]),
    Endpoint(GET, "/swarm/unlockkey", &["swarm"]),
    Endpoint(POST, "/swarm/{}", &["swarm"]),
    Endpoint(GET, "/system/df", &["system df"]),
    Endpoint(GET, "/tasks", &["service"]),
    Endpoint(GET, "/tasks/{}", &["service"]),
    Endpoint(GET, "/tasks/{}/logs", &["service"]),
    Endpoint(GET, "/version", &["version"]),
    Endpoint(GET, "/volumes", &["volume ls"]),
    Endpoint(POST, "/volumes/create", &["volume create"]),
    Endpoint(POST, "/volumes/prune", &["volume prune"]),
    Endpoint(GET, "/volumes/{}", &["volume inspect"]),
    Endpoint(&["PUT"], "/volumes/{}", &["volume update"]),
    Endpoint(DELETE, "/volumes/{}", &["volume rm"]),
];

/// Names that stand for several commands: what they begin, or the commands that `docker NAME --help` lists.
const WILDCARDS: &[(&str, &[&str])] = &[
    ("build*", &["build", "builder prune"]),
    (
        "container*",
        &[
            "attach",
            "checkpoint",
            "commit",
            "container prune",
            "cp",
            "create",
            "diff",
            "exec",
            "export",
            "container inspect",
            "kill",
            "logs",
            "pause",
            "ps",
            "rename",
            "restart",
            "rm",
            "run",
            "start",
            "stats",
            "stop",
            "top",
            "unpause",
            "update",
            "wait",
        ],
    ),
    (
        "image*",
        &[
            "build",
            "history",
            "image prune",
            "images",
            "import",
            "image inspect",
            "load",
            "manifest",
            "pull",
            "push",
            "rmi",
            "save",
            "tag",
        ],
    ),
    (
        "network*",
        &[
            "network connect",
            "network create",
            "network disconnect",
            "network inspect",
            "network ls",
            "network prune",
            "network rm",
        ],
    ),
    (
        "system*",
        &[
            "builder prune",
            "container prune",
            "events",
            "image prune",
            "info",
            "network prune",
            "system df",
            "volume prune",
        ],
    ),
    (
        "volume*",
        &["volume create", "volume inspect", "volume ls", "volume prune", "volume rm", "volume update"],
    ),
];

/// Other names of commands, as `docker --help` has them.
const ALIASES: &[(&str, &str)] = &[
    ("buildx", "build"),
    ("container ls", "ps"),
    ("image build", "build"),
    ("image ls", "images"),
    ("image rm", "rmi"),
    ("logout", "login"),
    ("port", "container inspect"),
    ("system events", "events"),
    ("system info", "info"),
];

/// Whether a name can be on a list.
#[must_use]
pub fn is_known(name: &str) -> bool {
    !expand(name).is_empty()
}

/// The commands that a name on a list means; none for one that is not known.
fn expand(name: &str) -> Vec<&'static str> {
    if let Some((_, commands)) = WILDCARDS.iter().find(|(wildcard, _)| *wildcard == name) {
        return commands.to_vec();
    }
    let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| *name);
    let mut all = ENDPOINTS.iter().flat_map(|endpoint| endpoint.2.iter().copied());
    if let Some(command) = all.find(|command| *command == name) {
        return vec![command];
    }
    // `container stop` is `stop`.
    let of = |group: &str, short: &str| {
        let commands = WILDCARDS.iter().find(|(wildcard, _)| *wildcard == group)?.1;
        commands.iter().copied().find(|command| *command == short)
    };
    let short = name.strip_prefix("container ").and_then(|short| of("container*", short));
    short.or_else(|| name.strip_prefix("image ").and_then(|short| of("image*", short))).into_iter().collect()
}

/// A list, ready to judge by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commands {
    kind: ListKind,
    names: Vec<&'static str>,
    empty: bool,
}

impl Commands {
    /// Of a list that [`is_known`] found nothing wrong with. One with a name that is not known lets nothing through.
    #[must_use]
    pub fn new(list: &CommandList) -> Self {
        let known = list.commands.iter().all(|name| is_known(name));
        let kind = if known { list.kind } else { ListKind::Allow };
        let mut names =
            if known { list.commands.iter().flat_map(|name| expand(name)).collect() } else { Vec::new() };
        if kind == ListKind::Allow {
            let needed =
                NEEDS.iter().filter(|(command, _)| names.contains(command)).flat_map(|(_, needs)| *needs);
            names.extend(needed.copied().collect::<Vec<_>>());
        }
        Self { kind, names, empty: known && list.commands.is_empty() && list.kind == ListKind::Deny }
    }

    /// Judges a request.
    #[must_use]
    pub fn judge(&self, asked: Asked<'_>) -> Verdict {
        let Asked { method, decoded, pulls, shown } = asked;
        // The one path that the engine's router has with a slash at its end as well.
        let path = match without_version(decoded) {
            "/networks/" => "/networks",
            path => path,
        };
        let is_clean =
            path.starts_with('/') && path.split('/').skip(1).all(|part| !["", ".", ".."].contains(&part));
        if is_clean && GREETING.contains(&path) && GET.contains(&method) {
            return Verdict::Allow;
        }
        let endpoint = ENDPOINTS.iter().find(|Endpoint(methods, pattern, _)| {
            methods.contains(&method) && matches(pattern.split('/'), path.split('/'))
        });
        let allowed = match endpoint {
            _ if !is_clean || path.starts_with(INSIDE) => false,
            // Nothing is denied.
            _ if self.empty => true,
            None => false,
            Some(Endpoint(_, pattern, commands)) => {
                let commands = match *pattern {
                    PULL_OR_IMPORT if pulls => &["pull"],
                    PULL_OR_IMPORT => &["import"],
                    _ => *commands,
                };
                let listed = |commands: &[&str]| commands.iter().any(|command| self.names.contains(command));
                let brings =
                    BRINGS.iter().find(|(path, _)| path == pattern).map_or(&[][..], |(_, brings)| *brings);
                match self.kind {
                    ListKind::Allow => listed(commands),
                    ListKind::Deny => !listed(commands) && !listed(brings),
                }
            }
        };
        if allowed {
            return Verdict::Allow;
        }
        let shown: String = shown.chars().take(SHOWN_CHARACTERS).collect();
        Verdict::Deny {
            rule: ID,
            message: format!(
                "{PREFIX}: docker command {shown:?} is blocked; if you wish to allow it, configure the docker socket command list in the admin settings."
            ),
            remedy: "ask whoever administers this engine",
        }
    }
}

/// A request to the engine.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path, decoded.
    pub decoded: &'a str,
    /// Its query names an image to fetch (`fromImage`): the engine does that then, and else makes one of what it is sent.
    pub pulls: bool,
    /// What a refusal shows of it.
    pub shown: &'a str,
}

fn matches<'a>(
    mut pattern: impl Iterator<Item = &'a str> + Clone,
    mut path: impl Iterator<Item = &'a str> + Clone,
) -> bool {
    match (pattern.next(), path.next()) {
        (None, None) => true,
        (Some(NAME), Some(_)) => {
            // As few parts as will do, then more.
            loop {
                if matches(pattern.clone(), path.clone()) {
                    return true;
                }
                if path.next().is_none() {
                    return false;
                }
            }
        }
        (Some(wanted), Some(part)) => (wanted == ANY || wanted == part) && matches(pattern, path),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(kind: ListKind, names: &[&str]) -> Commands {
        let commands = names.iter().map(|name| (*name).to_owned()).collect();
        Commands::new(&CommandList { kind, commands })
    }

    fn allows(list: &Commands, method: &str, path: &str) -> bool {
        list.judge(asked(method, path)) == Verdict::Allow
    }

    fn asked<'a>(method: &'a str, path: &'a str) -> Asked<'a> {
        Asked { method, decoded: path, pulls: true, shown: path }
    }

    #[test]
    fn what_is_denied_is_refused_and_its_neighbours_are_not() {
        let denied = list(ListKind::Deny, &["push", "exec", "volume rm"]);
        for (method, path) in [
            ("POST", "/v1.45/images/registry.example.com/a/b/push"),
            ("POST", "/images/a/push"),
            ("POST", "/containers/x/exec"),
            ("POST", "/exec/0f/start"),
            ("DELETE", "/v1.24/volumes/v"),
        ] {
            assert!(!allows(&denied, method, path), "{method} {path}");
        }
        for (method, path) in [
            ("POST", "/v1.45/images/a/tag"),
            ("POST", "/images/create"),
            ("POST", "/containers/create"),
            ("GET", "/v1.45/volumes/v"),
            ("GET", "/_ping"),
            ("HEAD", "/_ping"),
        ] {
            assert!(allows(&denied, method, path), "{method} {path}");
        }
    }

    #[test]
    fn what_is_not_allowed_is_refused() {
        let allowed = list(ListKind::Allow, &["ps", "run"]);
        for (method, path) in [
            ("GET", "/containers/json"),
            ("POST", "/containers/create"),
            ("POST", "/v1.45/containers/a/start"),
            ("GET", "/version"),
        ] {
            assert!(allows(&allowed, method, path), "{method} {path}");
        }
        for (method, path) in [
            ("POST", "/containers/json"),
            ("POST", "/containers/a/stop"),
            ("GET", "/images/a/json"),
            ("POST", "/version"),
            ("GET", "/info"),
        ] {
            assert!(!allows(&allowed, method, path), "{method} {path}");
        }
        assert!(!allows(&list(ListKind::Allow, &[]), "GET", "/info"));
    }

    #[test]
    fn what_no_command_asks_for_is_refused_where_there_is_a_list() {
        for (method, path) in [
            ("GET", "/debug/pprof"),
            ("GET", "/containers/a/unknown"),
            ("POST", "/containers//create"),
            ("POST", "/containers/./create"),
            ("POST", "/x/../containers/create"),
            ("POST", "containers/create"),
            ("POST", "/containers/create/"),
            ("OPTIONS", "/containers/create"),
            ("POST", ""),
        ] {
            for list in [list(ListKind::Deny, &["push"]), list(ListKind::Allow, &["create"])] {
                assert!(!allows(&list, method, path), "{method} {path}");
            }
        }
        // Nothing is denied, but a path that is read in two ways, and the engine's inside.
        let nothing = list(ListKind::Deny, &[]);
        assert!(!allows(&nothing, "GET", "/debug/pprof") && allows(&nothing, "GET", "/networks/"));
        assert!(
            allows(&nothing, "GET", "/of-a-later-version") && allows(&nothing, "POST", "/containers/create")
        );
        assert!(!allows(&nothing, "POST", "/containers//create"));
    }

    #[test]
    fn names_are_those_of_docker_help() {
        for name in [
            "attach",
            "build",
            "buildx",
            "commit",
            "container*",
            "container stop",
            "container prune",
            "cp",
            "create",
            "image*",
            "image rm",
            "images",
            "info",
            "login",
            "network*",
            "network connect",
            "ps",
            "pull",
            "push",
            "rmi",
            "run",
            "system*",
            "volume*",
            "volume rm",
        ] {
            assert!(is_known(name), "{name}");
        }
        for name in [
            "",
            "*",
            "pus",
            "push*",
            "Push",
            "container",
            "volume",
            "network rm*",
            "stop ",
            "image kill",
            "container push",
        ] {
            assert!(!is_known(name), "{name}");
        }
        let containers = list(ListKind::Deny, &["container*"]);
        assert!(
            !allows(&containers, "POST", "/containers/a/stop") && allows(&containers, "GET", "/images/json")
        );
        assert!(!allows(&list(ListKind::Deny, &["container stop"]), "POST", "/containers/a/stop"));
        for (wildcard, commands) in WILDCARDS {
            for command in *commands {
                assert_eq!(expand(command), [*command], "{wildcard}");
            }
        }
    }

    #[test]
    fn commands_have_what_they_ask_for_besides_and_what_does_the_same_is_denied_with_them() {
        for (command, requests) in [
            (
                "run",
                &[
                    "POST /images/create",
                    "POST /containers/create",
                    "POST /containers/a/attach",
                    "POST /containers/a/start",
                    "POST /containers/a/wait",
                    "POST /containers/a/resize",
                    "POST /containers/a/kill",
                    "GET /containers/a/json",
                ][..],
            ),
            (
                "exec",
                &[
                    "GET /containers/a/json",
                    "POST /containers/a/exec",
                    "POST /exec/a/start",
                    "GET /exec/a/json",
                ],
            ),
            ("logs", &["GET /containers/a/json", "GET /containers/a/logs"]),
            (
                "start",
                &[
                    "GET /containers/a/json",
                    "POST /containers/a/attach",
                    "POST /containers/a/start",
                    "POST /containers/a/wait",
                ],
            ),
            ("stats", &["GET /events", "GET /containers/json", "GET /containers/a/stats"]),
            (
                "image*",
                &["GET /images/json", "GET /images/a/b/json", "POST /images/create", "DELETE /images/a"],
            ),
        ] {
            let allowed = list(ListKind::Allow, &[command]);
            for request in requests {
                let (method, path) = request.split_once(' ').unwrap();
                assert!(allows(&allowed, method, path), "{command}: {request}");
            }
            assert!(
                !allows(&allowed, "POST", "/commit") && !allows(&allowed, "GET", "/volumes"),
                "{command}"
            );
        }
        // To look at images is not to look at containers.
        assert!(!allows(&list(ListKind::Allow, &["image*"]), "GET", "/containers/a/json"));
        assert!(allows(&list(ListKind::Deny, &["image*"]), "GET", "/containers/a/json"));
        for (denied, method, path) in [
            ("push", "POST", "/plugins/a/push"),
            ("run", "POST", "/services/create"),
            ("run", "POST", "/services/s/update"),
            ("pull", "POST", "/plugins/pull"),
            ("builder prune", "POST", "/grpc"),
            ("inspect", "GET", "/images/a/json"),
            ("rm", "DELETE", "/containers/a/b"),
            ("checkpoint", "DELETE", "/containers/a/checkpoints/b"),
        ] {
            assert!(!allows(&list(ListKind::Deny, &[denied]), method, path), "{denied}: {path}");
            assert!(allows(&list(ListKind::Deny, &["tag"]), method, path), "{path}");
        }
    }

    #[test]
    fn to_fetch_an_image_is_not_to_make_one() {
        let judge = |list: &Commands, pulls| {
            list.judge(Asked { pulls, ..asked("POST", "/images/create") }) == Verdict::Allow
        };
        let (pull, import) = (list(ListKind::Allow, &["pull"]), list(ListKind::Deny, &["pull"]));
        assert!(judge(&pull, true) && !judge(&pull, false) && judge(&import, false) && !judge(&import, true));
    }

    #[test]
    fn a_list_that_is_not_understood_lets_nothing_through() {
        let odd = list(ListKind::Deny, &["push", "pussh"]);
        assert!(!allows(&odd, "POST", "/images/a/push") && !allows(&odd, "GET", "/info"));
    }

    #[test]
    fn a_refusal_says_it_in_docker_s_words() {
        let Verdict::Deny { message, .. } = list(ListKind::Allow, &[]).judge(asked("GET", "/v1.45/info"))
        else {
            panic!("allowed")
        };
        assert_eq!(
            message,
            "enhanced container isolation: docker command \"/v1.45/info\" is blocked; if you wish to allow it, configure the docker \
             socket command list in the admin settings."
        );
    }
}
