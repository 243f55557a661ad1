//! `eci.registryAccess`: registries that the engine may reach.

use serde_json::Value;

use super::engine::Engine;
use super::json::At;
use super::{Problem, Problems};
use crate::rules::registry::{Registries, Target};

/// Most entries: Docker's own product takes a hundred.
pub const MOST: usize = 100;

/// Reads the key's value.
pub(super) fn read(at: &At<'_>, problems: &mut Problems) -> Registries {
    let mut registries = Registries::default();
    let Some(entries) = problems.keep(at.table()) else { return registries };
    if !entries.iter().any(|(key, _)| *key == "allowed") {
        problems.add(at.lacks(
            "allowed",
            "it says which registries",
            "add a list, or leave the key out for all of them",
        ));
    }
    for (key, at) in entries {
        match key {
            "allowed" => read_list(&at, &mut registries, problems),
            _ => problems
                .add(at.problem("it is no key of registry access", "leave it out; the one key is allowed")),
        }
    }
    registries
}

fn read_list(at: &At<'_>, registries: &mut Registries, problems: &mut Problems) {
    let list = problems.keep(at.list()).unwrap_or_default();
    if list.len() > MOST {
        problems.add(at.problem(format!("{MOST} registries are the most"), "name several by one wildcard"));
        return;
    }
    for at in list {
        let added = at.text().and_then(|text| {
            registries.add(text).map_err(|reason| {
                at.problem(
                    reason,
                    "write docker.io, registry.example.com, registry.example.com:5000, *.example.com or 192.0.2.7:5000",
                )
            })
        });
        if let Err(problem) = added {
            problems.add(problem);
        }
    }
}

/// Judges settings of the engine that a list leaves without effect.
pub(super) fn judge_engine(registries: &Registries, engine: &Engine, problems: &mut Problems) {
    for (index, mirror) in texts(engine.get("registry-mirrors")).enumerate() {
        let (rest, port) = match mirror.strip_prefix("http://") {
            Some(rest) => (rest, 80),
            None => (mirror.strip_prefix("https://").unwrap_or(mirror), 443),
        };
        let host = rest.split('/').next().unwrap_or_default();
        let target = Target::parse(host, Some(port));
        if !target.is_some_and(|target| registries.allow(&target)) {
            problems.add(Problem {
                path: format!("eci.engine.registry-mirrors[{index}]"),
                found: format!("{mirror:?}"),
                reason: "`eci.registryAccess` does not let the engine reach it".to_owned(),
                fix: format!("add {host:?} to `eci.registryAccess.allowed`"),
            });
        }
    }
    for key in ["http-proxy", "https-proxy"] {
        let proxy = engine.get("proxies").and_then(|proxies| proxies.get(key)).and_then(Value::as_str);
        if let Some(url) = proxy.filter(|url| url.starts_with("https://")) {
            problems.add(Problem {
                path: format!("eci.engine.proxies.{key}"),
                found: format!("{url:?}"),
                reason: "with `eci.registryAccess` a proxy is spoken to in the clear, as to most; what goes through it is encrypted all the same"
                    .to_owned(),
                fix: "write it as http://proxy.example.com:3128".to_owned(),
            });
        }
    }
}

fn texts(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}
