//! Which registry a request to the engine would lead to.
//!
//! Why: who asks for a registry that is not on the list hears so at once, in one sentence. It is told early here, and kept elsewhere: what this table
//! does not know, a build among it, ends at `eci-egress`. Docker Hub is left to that as well, for a mirror may stand in for it.

use serde_json::Value;

use super::engine_mount::without_version;
use super::registry::{HUB_HOSTS, Host, Target};

/// Where a request names the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    /// An image's name, in this key of the query.
    Query(&'static str),
    /// An image's name, in the path, before this.
    Path(&'static str),
    /// A registry, in this key of the body.
    Body(&'static str),
}

/// Method, beginning of the path, where the name is.
const REQUESTS: &[(&str, &str, Named)] = &[
    ("POST", "/auth", Named::Body("serveraddress")),
    ("POST", "/images/create", Named::Query("fromImage")),
    ("GET", "/plugins/privileges", Named::Query("remote")),
    ("POST", "/plugins/pull", Named::Query("remote")),
    ("POST", "/images/", Named::Path("/push")),
    ("POST", "/plugins/", Named::Path("/push")),
    ("GET", "/distribution/", Named::Path("/json")),
];

/// A request's head, and as much of its body as came with it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path, decoded.
    pub path: &'a str,
    /// Keys and values of its query, decoded.
    pub query: &'a [(String, String)],
    /// The body.
    pub body: &'a [u8],
}

/// The registry, when the request is in the table and names another than Docker Hub: where the engine looks for it, first to last. Without a
/// port that is 443, then 80, as of one that is listed as insecure.
#[must_use]
pub fn registry_of(asked: Asked<'_>) -> Option<Vec<Target>> {
    let path = without_version(asked.path);
    REQUESTS.iter().filter(|(method, ..)| *method == asked.method).find_map(|(_, start, named)| match named {
        Named::Query(key) if path == *start => {
            let (_, name) = asked.query.iter().find(|(found, _)| found == key)?;
            of_image(name)
        }
        Named::Body(key) if path == *start => {
            let body: Value = serde_json::from_slice(asked.body).ok()?;
            of_server(body.get(key)?.as_str()?)
        }
        Named::Path(end) => of_image(path.strip_prefix(start)?.strip_suffix(end)?),
        Named::Query(_) | Named::Body(_) => None,
    })
}

/// Of an image's name, as the engine reads it: what is before the first slash is a host if it could be no part of a path.
fn of_image(name: &str) -> Option<Vec<Target>> {
    let (host, _) = name.split_once('/')?;
    let is_host =
        host.contains(['.', ':']) || host == "localhost" || host.chars().any(|c| c.is_ascii_uppercase());
    if is_host { other_than_hub(host) } else { None }
}

/// Of what `docker login` is told, a host or a URL.
fn of_server(server: &str) -> Option<Vec<Target>> {
    let rest = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    other_than_hub(rest.split('/').next().unwrap_or_default())
}

fn other_than_hub(host: &str) -> Option<Vec<Target>> {
    let [target, in_the_clear] = [Target::parse(host, Some(443))?, Target::parse(host, Some(80))?];
    let is_hub = matches!(&target.host, Host::Name(name) if name == "docker.io" || HUB_HOSTS.iter().any(|(host, _)| host == name));
    let mut targets = vec![target, in_the_clear];
    targets.dedup();
    (!is_hub).then_some(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(method: &str, path: &str, query: &[(&str, &str)], body: &str) -> Option<String> {
        let query: Vec<_> =
            query.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let targets = registry_of(Asked { method, path, query: &query, body: body.as_bytes() })?;
        targets.first().map(Target::to_string)
    }

    #[test]
    fn without_a_port_a_registry_is_at_both() {
        let targets = |name: &str| {
            let query = [("fromImage".to_owned(), name.to_owned())];
            let targets =
                registry_of(Asked { method: "POST", path: "/images/create", query: &query, body: b"" });
            targets.unwrap_or_default().iter().map(Target::to_string).collect::<Vec<_>>()
        };
        assert_eq!(targets("a.example/x"), ["a.example:443", "a.example:80"]);
        for port in ["443", "80", "5000"] {
            assert_eq!(targets(&format!("a.example:{port}/x")), [format!("a.example:{port}")]);
        }
    }

    #[test]
    fn a_registry_is_found_where_the_engine_finds_it() {
        let of = |name| registry("POST", "/v1.45/images/create", &[("tag", "1"), ("fromImage", name)], "");
        assert_eq!(of("a.example/team/x").as_deref(), Some("a.example:443"));
        assert_eq!(of("a.example:5000/x").as_deref(), Some("a.example:5000"));
        assert_eq!(of("localhost/x").as_deref(), Some("localhost:443"));
        assert_eq!(of("[::1]:5000/x").as_deref(), Some("[::1]:5000"));
        for hub in ["busybox", "team/x", "docker.io/library/busybox", "index.docker.io/team/x", "a.example"] {
            assert_eq!(of(hub), None, "{hub}");
        }
        for (method, path) in [
            ("POST", "/images/a.example/x/push"),
            ("POST", "/v1.24/plugins/a.example/x/push"),
            ("GET", "/v1.45/distribution/a.example/x/json"),
        ] {
            assert_eq!(registry(method, path, &[], "").as_deref(), Some("a.example:443"), "{path}");
        }
        for (method, path) in [("POST", "/plugins/pull"), ("GET", "/plugins/privileges")] {
            assert_eq!(
                registry(method, path, &[("remote", "a.example/x")], "").as_deref(),
                Some("a.example:443")
            );
        }
        for server in ["a.example", "https://a.example/v1/", "http://a.example"] {
            let body = format!(r#"{{"username":"u","serveraddress":"{server}"}}"#);
            assert_eq!(
                registry("POST", "/v1.45/auth", &[], &body).as_deref(),
                Some("a.example:443"),
                "{server}"
            );
        }
        assert_eq!(
            registry("POST", "/auth", &[], r#"{"serveraddress":"https://index.docker.io/v1/"}"#),
            None
        );
    }

    #[test]
    fn other_requests_name_none() {
        assert_eq!(registry("GET", "/v1.45/images/a.example/x/json", &[], ""), None);
        assert_eq!(registry("GET", "/images/create", &[("fromImage", "a.example/x")], ""), None);
        assert_eq!(registry("POST", "/images/create", &[("fromSrc", "http://a.example/x")], ""), None);
        assert_eq!(registry("POST", "/build", &[("remote", "https://a.example/x")], ""), None);
        assert_eq!(registry("POST", "/auth", &[], "{"), None);
    }
}
