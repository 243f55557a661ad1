//! What is asked of the engine before a request may go on to it.

use std::path::Path;

use eci_policy::Verdict;
use eci_policy::rules::driver_name;
use eci_policy::rules::engine_command::{Asked, Commands};
use eci_policy::rules::engine_mount::{self, Request};
use eci_policy::rules::live_commit;
use hyper::Uri;
use hyper::http::uri::PathAndQuery;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::Refusal;
use crate::copies::{self, describe};

/// A request that may go on.
pub enum Judged {
    /// As it is.
    Plain,
    /// It looks into this container, by this path: a name could be another container's a moment later.
    LooksInto {
        /// The container's id.
        id: String,
        /// The path with the id in place of a name.
        path: String,
    },
    /// With nothing in its body: the engine would take a form there for its query.
    ByQuery,
    /// With a body that is JSON, whatever it says of itself: as above.
    AsJson,
    /// If this finds nothing wrong with its body.
    ByBody(fn(&[u8]) -> Verdict),
}

/// Why one may not.
#[derive(Debug)]
pub struct Told(pub String);

/// Judges a request by its path, and the container that it looks into by what the engine at `socket` says of it.
///
/// # Errors
/// When it may not go on.
pub async fn request(path: &str, query: &str, socket: &Path) -> Result<Judged, Refusal> {
    let decoded = percent_decode_str(path).decode_utf8();
    let decoded = decoded.map_err(|_| Refusal::bad("the request's path is no text"))?;
    told(committed(&decoded, query))?;
    match engine_mount::classify(&decoded) {
        Request::Plain if live_commit::is_commit(&decoded) => Ok(Judged::AsJson),
        Request::Plain => Ok(by_drivers(&decoded)),
        Request::MakesVolume => {
            Ok(Judged::ByBody(|body| engine_mount::judge_volume(body).and_then(|| driver_name::judge(body))))
        }
        Request::MakesContainer => {
            names(query)?;
            Ok(Judged::ByBody(|body| {
                engine_mount::judge_container(body).and_then(|| driver_name::judge(body))
            }))
        }
        Request::Renames => {
            names(query)?;
            Ok(Judged::ByQuery)
        }
        Request::Refused(verdict) => {
            told(verdict)?;
            Ok(Judged::Plain)
        }
        Request::LooksInto(name) => looks_into(&decoded, &name, socket).await,
    }
}

/// Judges a request of the host's by its path: its clients may ask for anything but drivers that are none.
#[must_use]
pub fn of_host(path: &str) -> Judged {
    // What is no text is the path of nothing.
    percent_decode_str(path).decode_utf8().map_or(Judged::Plain, |decoded| by_drivers(&decoded))
}

fn by_drivers(decoded: &str) -> Judged {
    if driver_name::is_judged(decoded) { Judged::ByBody(driver_name::judge) } else { Judged::Plain }
}

/// Letters of a method and of a path that are told of what was refused: both are the container's to choose.
const METHOD_CHARS: usize = 16;
const PATH_CHARS: usize = 200;

/// What a rule refused to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Method and path of what it asked for, cut where they are longer than any that the engine knows.
    pub action: String,
    /// The rule.
    pub rule: &'static str,
    /// What it is told.
    pub message: String,
    /// What can be done instead.
    pub remedy: &'static str,
}

/// Judges a container's request by its method, path and query.
///
/// # Errors
/// When it may not go on.
pub fn command(method: &str, uri: &Uri, commands: &Commands) -> Result<Judged, Refusal> {
    let decoded = percent_decode_str(uri.path()).decode_utf8();
    let decoded = decoded.map_err(|_| Refusal::bad("the request's path is no text"))?;
    // As Go takes it: the first value counts.
    let query = uri.query().unwrap_or_default();
    let image = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "fromImage");
    let pulls = image.is_some_and(|(_, image)| !image.is_empty());
    let shown = uri.path_and_query().map_or(uri.path(), PathAndQuery::as_str);
    let verdict = match commands.judge(Asked { method, decoded: &decoded, pulls, shown }) {
        Verdict::Allow => committed(&decoded, query),
        denied => denied,
    };
    match verdict {
        Verdict::Allow if live_commit::is_commit(&decoded) => Ok(Judged::AsJson),
        // The engine would take a form in the body for its query.
        Verdict::Allow if decoded.ends_with("/images/create") => Ok(Judged::ByQuery),
        Verdict::Allow => Ok(by_drivers(&decoded)),
        // Docker's words, as they are.
        Verdict::Deny { rule, message, remedy } => {
            let cut = |text: &str, most| text.chars().take(most).collect::<String>();
            let action = format!("{} {}", cut(method, METHOD_CHARS), cut(uri.path(), PATH_CHARS));
            Err(Refused { action, rule, message, remedy }.into())
        }
    }
}

/// What a verdict tells a user.
///
/// # Errors
/// [`Told`] when it is no.
pub fn told(verdict: Verdict) -> Result<(), Told> {
    match verdict {
        Verdict::Allow => Ok(()),
        Verdict::Deny { message, remedy, .. } => Err(Told(format!("{message} ({remedy})"))),
    }
}

/// Every value that the query has: which of them the engine takes is its own affair.
fn committed(path: &str, query: &str) -> Verdict {
    if !live_commit::is_commit(path) {
        return Verdict::Allow;
    }
    let query: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    live_commit::judge(query.iter().filter(|(key, _)| key == "pause").map(|(_, value)| &**value))
}

/// Every name that the query has: which of them the engine takes is its own affair.
fn names(query: &str) -> Result<(), Refusal> {
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        if key == "name" {
            told(engine_mount::judge_name(&value))?;
        }
    }
    Ok(())
}

async fn looks_into(path: &str, name: &str, engine: &Path) -> Result<Judged, Refusal> {
    let container = match describe(engine, &format!("/containers/{name}/json")).await {
        // Not for the engine to say: one could be made of that name meanwhile.
        Err(copies::Error::Answer { .. }) => return Err(Refusal::no_container(name)),
        container => container?,
    };
    let id = text(&container, "Id");
    for mount in container.get("Mounts").and_then(Value::as_array).into_iter().flatten() {
        let kind = text(mount, "Type");
        let writable = mount.get("RW").and_then(Value::as_bool).unwrap_or(true);
        let source = text(mount, "Source");
        told(engine_mount::judge_mount(name, engine_mount::Mount { kind, source, writable }))?;
        if kind == "volume" {
            let volume = describe(engine, &format!("/volumes/{}", text(mount, "Name"))).await?;
            let options = volume.get("Options").cloned().unwrap_or_default();
            let options =
                serde_json::from_value(options).map_err(|_| Refusal::bad("a volume has odd options"))?;
            told(engine_mount::judge_options(&options))?;
        }
    }
    for key in ["HostsPath", "HostnamePath", "ResolvConfPath"] {
        told(engine_mount::judge_network_file(name, text(&container, key)))?;
    }
    let before = path.strip_suffix(&format!("/{name}/archive"));
    let before = before.ok_or_else(|| Refusal::bad("the request's path is not understood"))?;
    Ok(Judged::LooksInto { path: format!("{before}/{id}/archive"), id: id.to_owned() })
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}
