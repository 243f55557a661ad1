//! `eci.engine`: settings of the engine, as `daemon.json` names them.
//!
//! [`keys`] is what an administrator may set, [`refused`] what not and why, [`values`] and [`network`] what a value may be.
//!
//! Invariant: an [`Engine`] has keys of the first table alone, each with a value that dockerd understands and that weakens no
//! isolation; and laid over the engine's own settings it changes none of them.

pub mod keys;
pub mod network;
pub mod refused;
pub mod values;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use self::keys::KEYS;
use super::Problems;
use super::json::At;

/// The driver whose limits hold where none is named.
const LOG_DRIVER: &str = "json-file";
/// Limits of a container's log where none are set: without, one container fills the disk for all.
const LOG_LIMITS: [(&str, &str); 2] = [("max-size", "10m"), ("max-file", "3")];

/// Settings of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine(BTreeMap<&'static str, Value>);

impl Default for Engine {
    /// What is in force where nothing is set.
    fn default() -> Self {
        let mut engine = Self(BTreeMap::new());
        engine.fill_in();
        engine
    }
}

/// A setting that the engine's own settings have already.
#[derive(Debug, thiserror::Error)]
#[error("they have `{key}` already, which no administrator's setting changes")]
pub struct Taken {
    /// The key.
    pub key: &'static str,
}

impl Engine {
    /// All that is in force, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(key, value)| (*key, value))
    }

    /// The same, with labels that `docker info` shows. An administrator sets none.
    #[must_use]
    pub fn labelled(mut self, labels: Vec<String>) -> Self {
        self.0.insert("labels", labels.into());
        self
    }

    /// A setting's value, where it is set.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// The same, with all that the engine fetches asked of this proxy.
    #[must_use]
    pub fn proxied_by(mut self, url: &str) -> Self {
        self.0.insert("proxies", json!({ "http-proxy": url, "https-proxy": url }));
        self
    }

    /// The engine's own settings, which come with the image, and these.
    ///
    /// # Errors
    /// When both have a key.
    pub fn added_to(&self, own: &Map<String, Value>) -> Result<Map<String, Value>, Taken> {
        let mut all = own.clone();
        for (key, value) in self.iter() {
            if all.insert(key.to_owned(), value.clone()).is_some() {
                return Err(Taken { key });
            }
        }
        Ok(all)
    }

    /// Sets the limits of logs that are not set.
    fn fill_in(&mut self) {
        self.0.entry("log-driver").or_insert_with(|| json!(LOG_DRIVER));
        let set = self.0.get("log-opts").cloned().unwrap_or_default();
        let limits =
            LOG_LIMITS.map(|(name, value)| (name.to_owned(), set.get(name).cloned().unwrap_or(json!(value))));
        self.0.insert("log-opts", Value::Object(limits.into_iter().collect()));
    }
}

/// Reads the key's value.
pub(super) fn read(at: &At<'_>, problems: &mut Problems) -> Engine {
    let mut engine = Engine(BTreeMap::new());
    for (name, at) in problems.keep(at.table()).unwrap_or_default() {
        match KEYS.iter().find(|key| key.name == name) {
            Some(key) => {
                let value = problems.keep((key.read)(&at));
                engine.0.extend(value.map(|value| (key.name, value)));
            }
            None => problems.add(refused::problem(name, &at)),
        }
    }
    engine.fill_in();
    engine
}

#[cfg(test)]
mod tests;
