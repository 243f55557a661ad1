//! A registry that is not on the administrator's list, told at once and in one sentence: the engine's own error would be one of several that it met on
//! the way, and of the VM's loopback the kernel's.
//!
//! Invariant: nothing rests on this. The kernel and `eci-egress` keep the engine from registries; a request that is not recognised here goes on.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Instant, SystemTime};

use eci_audit::limit::Limit;
use eci_audit::time::rfc3339;
use eci_contract::audit::{self, Denial, OF_ENGINE};
use eci_contract::registries::{RegistryPolicy, VERSION};
use eci_policy::Verdict;
use eci_policy::rules::registry::Registries;
use eci_policy::rules::registry_request::{Asked, registry_of};
use eci_service::log::{self, Level};
use percent_encoding::percent_decode_str;
use tokio::task::spawn_blocking;

/// A request whose head and body are longer names no registry that one could have: tokens go along, and those have some thousand bytes.
const MOST_BYTES: usize = 64 * 1024;

/// Longest body that is waited for: names, a password, a registry.
const MOST_BODY: usize = 8 * 1024;

/// What was refused lately, by this gate.
static LIMIT: std::sync::LazyLock<Limit> = std::sync::LazyLock::new(Limit::default);

/// What a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    action: String,
    rule: &'static str,
    message: String,
    remedy: &'static str,
}

/// The list that PID 1 tells of in `path`; `None` where there is none.
#[must_use]
pub fn read(path: &Path) -> Option<Registries> {
    match parse(path) {
        Ok(registries) => Some(registries),
        // A folder is what the engine makes for a mount whose source is missing.
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::IsADirectory].contains(&error.kind()) => None,
        Err(error) => {
            log::failure(Level::Warn, "registries that are not on the list are not told of early", &error);
            None
        }
    }
}

fn parse(path: &Path) -> io::Result<Registries> {
    let policy: RegistryPolicy = serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)?;
    if policy.version != VERSION {
        return Err(io::Error::other(format!("it is of version {}", policy.version)));
    }
    let mut registries = Registries::default();
    for entry in &policy.allowed {
        registries.add(entry).map_err(io::Error::other)?;
    }
    Ok(registries)
}

/// Why a request with this beginning is refused, if it is one that names a registry which is not on the list.
#[must_use]
pub fn judge(registries: &Registries, request: &[u8]) -> Option<Refused> {
    let request = request.get(..request.len().min(MOST_BYTES))?;
    let line = request.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (method, uri) = (words.next()?, words.next()?);
    words.next()?.strip_prefix("HTTP/1.")?;
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let path = percent_decode_str(path).decode_utf8().ok()?;
    let query: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let end = request.windows(4).position(|four| four == b"\r\n\r\n").map_or(request.len(), |at| at + 4);
    let body = request.get(end..).unwrap_or_default();
    let targets = registry_of(Asked { method, path: &path, query: &query, body })?;
    if targets.iter().any(|target| registries.allow(target)) {
        return None;
    }
    match registries.judge(targets.first()?) {
        Verdict::Allow => None,
        Verdict::Deny { rule, message, remedy } => {
            let path: String = path.chars().take(200).collect();
            Some(Refused { action: format!("{method} {path}"), rule, message, remedy })
        }
    }
}

/// Whether more has to come before a request with this beginning can be judged: one that names its registry in its body, which clients may write by
/// itself. Who waits to be asked for it (`Expect`) is asked by the engine, which has to have the head for that; there it goes on unread.
#[must_use]
pub fn is_in_body(request: &[u8]) -> bool {
    let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let Ok(head) = std::str::from_utf8(request.get(..end).unwrap_or_default()) else { return false };
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let names_in_body =
        words.next() == Some("POST") && words.next().is_some_and(|path| path.ends_with("/auth"));
    let field = |line: &str, wanted: &str| {
        line.split_once(':').is_some_and(|(name, _)| name.eq_ignore_ascii_case(wanted))
    };
    if lines.clone().any(|line| field(line, "expect")) {
        return false;
    }
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let length = name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok());
        length.flatten()
    });
    let came = request.len() - end - 4;
    names_in_body && length.is_some_and(|length| length <= MOST_BODY && came < length)
}

/// Whether a request with this beginning makes the connection something else than HTTP.
#[must_use]
pub fn upgrades(request: &[u8]) -> bool {
    let head = request.get(..request.len().min(MOST_BYTES)).unwrap_or_default();
    let end = head.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(head.len());
    let lines = head.get(..end).unwrap_or_default().split(|byte| *byte == b'\n');
    lines.filter_map(|line| line.get(..8)).any(|start| start.eq_ignore_ascii_case(b"upgrade:"))
}

impl Refused {
    /// What the engine's clients show.
    #[must_use]
    pub fn told(&self) -> String {
        format!("{} ({})", self.message, self.remedy)
    }

    /// Has it written down in the audit log `log`.
    pub fn write_down(self, log: &Path) {
        let Some(message) = LIMIT.line(&self.message, Instant::now()) else { return };
        let Self { action, rule, remedy, .. } = self;
        log::line(Level::Warn, &format!("refused: {action}: {message}"));
        let denial = Denial {
            version: audit::VERSION,
            time: rfc3339(SystemTime::now()),
            by: env!("CARGO_PKG_NAME").to_owned(),
            action,
            container: OF_ENGINE.to_owned(),
            image: None,
            rule: rule.to_owned(),
            message,
            remedy: remedy.to_owned(),
        };
        let log = log.to_owned();
        spawn_blocking(move || {
            if let Err(error) = eci_audit::append(&log, denial) {
                log::failure(Level::Warn, "cannot write the audit log", &error);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(request: &str) -> Option<String> {
        let mut registries = Registries::default();
        registries.add("registry.example.com:5000").expect("an entry");
        judge(&registries, request.as_bytes()).map(|refused| refused.message)
    }

    #[test]
    fn a_request_for_another_registry_is_refused_by_its_beginning() {
        let pull = |name: &str| {
            told(&format!("POST /v1.45/images/create?fromImage={name}&tag=1 HTTP/1.1\r\nHost: x\r\n\r\n"))
        };
        assert_eq!(pull("registry.example.com%3A5000%2Fx"), None);
        let message = "registry access to registry.example.com:5001 is not allowed";
        assert_eq!(pull("registry.example.com%3A5001%2Fx").as_deref(), Some(message));
        assert_eq!(pull("busybox"), None);
        let mut in_the_clear = Registries::default();
        in_the_clear.add("registry.example.com:80").expect("an entry");
        let request = "POST /images/create?fromImage=registry.example.com%2Fx HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(judge(&in_the_clear, request.as_bytes()), None, "the engine looks there as well");
        let body = r#"{"serveraddress":"registry.example.com:5001"}"#;
        assert_eq!(
            told(&format!("POST /v1.45/auth HTTP/1.1\r\nHost: x\r\n\r\n{body}")).as_deref(),
            Some(message)
        );
        for other in [
            "",
            "\r\n",
            "POST /v1.45/images/create?fromImage=a.example%2Fx",
            "\u{0}\u{1}",
            "GET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(told(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_body_is_waited_for_where_it_names_the_registry() {
        let head = "POST /v1.45/auth HTTP/1.1\r\nHost: x\r\ncontent-length: 5\r\n\r\n";
        assert!(is_in_body(head.as_bytes()) && is_in_body(format!("{head}{{\"a\"").as_bytes()));
        assert!(!is_in_body(format!("{head}{{\"a\"}}").as_bytes()));
        for other in [
            head.replace("auth", "build"),
            head.replace("POST", "GET"),
            head.replace(": 5", ": 99999999"),
            head.replace("Host: x", "expect: 100-continue"),
            head.replace("\r\n\r\n", "\r\n"),
            String::new(),
        ] {
            assert!(!is_in_body(other.as_bytes()), "{other:?}");
        }
    }

    #[test]
    fn what_follows_an_upgrade_is_no_request() {
        assert!(upgrades(b"POST /containers/x/attach HTTP/1.1\r\nHost: x\r\nupgrade: tcp\r\n\r\n"));
        assert!(!upgrades(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nUpgrade: tcp\r\n"));
    }

    #[test]
    fn without_a_list_there_is_nothing_to_tell() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("registries.json");
        assert_eq!(read(&path), None);
        fs::write(&path, r#"{"version":1,"allowed":["a.example"],"proxies":{}}"#).expect("written");
        assert_eq!(read(&path).expect("a list").written(), ["a.example"]);
        fs::write(&path, r#"{"version":2,"allowed":[],"proxies":{}}"#).expect("written");
        assert_eq!(read(&path), None);
    }
}
