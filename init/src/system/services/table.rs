//! The service table: `/etc/eci/services.json`, on the verified root.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use serde::Deserialize;

use super::state::Limits;
use super::store;

const PATH: &str = "/etc/eci/services.json";

/// The service whose readiness is the engine's.
pub const ENGINE: &str = "engine";
/// The service that leads to registries where the administrator lists some.
pub const EGRESS: &str = "egress";

/// The whole table, in the order of start.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Table {
    version: u32,
    services: Vec<Definition>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Definition {
    /// Name: lower-case letters; also its cgroup's.
    pub name: String,
    /// What the machine lacks without it.
    pub why: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// What it is told besides when it did not get ready as it was started before, twice or for too long.
    #[serde(default)]
    pub arguments_after_failure: Vec<String>,
    /// Its environment, all of it but `PATH` and `NOTIFY_SOCKET`.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// How it says that it is ready.
    pub readiness: Readiness,
    /// Services that must be ready first.
    #[serde(default)]
    pub after: Vec<String>,
    /// It gets its settings through a pipe.
    #[serde(default)]
    pub settings: Option<Settings>,
    /// How many descriptors PID 1 keeps for its next start, as systemd's `FileDescriptorStoreMax=`.
    #[serde(default)]
    pub file_descriptor_store_max: usize,
    /// It is stopped when the engine is refused.
    #[serde(default)]
    pub only_with_engine: bool,
    /// Most that it may take of one processor: for a service that containers can keep busy.
    #[serde(default)]
    pub cpu_percent: Option<u32>,
    /// The AppArmor profile that it runs under, as systemd's `AppArmorProfile=`: one of the image's, loaded by name.
    #[serde(default)]
    pub apparmor_profile: Option<String>,
    /// `/proc/self/oom_score_adj`.
    pub oom_score: i16,
    /// Seconds to get ready.
    pub start_seconds: u64,
    /// Seconds to end.
    pub stop_seconds: u64,
    /// First and longest pause before a restart, in milliseconds.
    pub restart_pause_ms: [u64; 2],
}

/// Settings that a service reads from a pipe, and so waits for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// The file with the settings.
    pub file: String,
    /// The file to take in its place in a distro of WSL 2.
    #[serde(default)]
    pub file_in_wsl: Option<String>,
    /// The pipe that the service takes for its settings file.
    pub pipe: String,
    /// Services that must be ready before it gets them.
    pub after: Vec<String>,
}

impl Settings {
    /// Takes the file that is meant for WSL, if there is one.
    pub fn take_those_of_wsl(&mut self) {
        if let Some(file) = self.file_in_wsl.take() {
            self.file = file;
        }
    }
}

/// How a service says that it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// `sd_notify`.
    Notify,
    /// It is ready once it runs.
    None,
}

impl Definition {
    /// Its times, for the state machine.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let [first_pause_ms, longest_pause_ms] = self.restart_pause_ms;
        Limits {
            start_ms: self.start_seconds * 1000,
            stop_ms: self.stop_seconds * 1000,
            first_pause_ms,
            longest_pause_ms,
        }
    }
}

/// Why the table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there.
    #[error("cannot read the service table `{PATH}`")]
    Read {
        /// What the kernel said.
        source: io::Error,
    },
    /// It is not JSON of the expected form.
    #[error("the service table `{PATH}` is not understood")]
    Parse {
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It contradicts itself.
    #[error("the service table `{PATH}`: {what}")]
    Content {
        /// What is wrong with it.
        what: String,
    },
}

/// Reads and checks the table.
///
/// # Errors
/// When it is missing, malformed, or contradicts itself.
pub fn read() -> Result<Vec<Definition>, Error> {
    parse(&fs::read(PATH).map_err(|source| Error::Read { source })?)
}

fn parse(bytes: &[u8]) -> Result<Vec<Definition>, Error> {
    let table: Table = serde_json::from_slice(bytes).map_err(|source| Error::Parse { source })?;
    let content = |what: String| Err(Error::Content { what });
    if table.version != 1 {
        return content(format!("version {} is not 1", table.version));
    }
    let mut before = BTreeSet::new();
    for service in &table.services {
        let name = &service.name;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return content(format!("`{name}` is not a name of lower-case letters"));
        }
        if !service.argv.first().is_some_and(|program| program.starts_with('/')) {
            return content(format!("{name} has no absolute program path"));
        }
        let (stored, most) = (service.file_descriptor_store_max, store::MOST);
        if stored > most {
            return content(format!("{name} may store {stored} descriptors, and {most} are the most"));
        }
        if stored > 0 && service.readiness != Readiness::Notify {
            return content(format!("{name} may store descriptors, but has no socket to send them to"));
        }
        let settled_after = service.settings.iter().flat_map(|settings| &settings.after);
        let mut needs = service.after.iter().chain(settled_after);
        if let Some(missing) = needs.find(|other| !before.contains(other.as_str())) {
            return content(format!("{name} is after `{missing}`, which is not above it"));
        }
        if !before.insert(name.as_str()) {
            return content(format!("{name} is there twice"));
        }
    }
    if !before.contains(ENGINE) {
        return content(format!("it has no service `{ENGINE}`"));
    }
    Ok(table.services)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../../../rootfs/overlay/etc/eci/services.json");

    const TEST: &str = include_str!("../../../../rootfs/test-overlay/etc/eci/services.json");

    #[test]
    fn the_gate_s_sockets_for_containers_are_all_kept() {
        let shipped = parse(SHIPPED.as_bytes()).unwrap();
        let gate = shipped.iter().find(|service| service.name == "gate").unwrap();
        assert_eq!(gate.file_descriptor_store_max, eci_contract::socket::MOST_LISTS + 1);
    }

    #[test]
    fn the_test_flavour_s_table_adds_two_services_and_changes_none() {
        let (shipped, mut test) = (parse(SHIPPED.as_bytes()).unwrap(), parse(TEST.as_bytes()).unwrap());
        let added: Vec<_> = test.drain(shipped.len()..).map(|service| service.name).collect();
        assert_eq!(added, ["intruder", "workbench"]);
        assert_eq!(test, shipped);
    }

    #[test]
    fn in_a_distro_the_engine_has_settings_of_its_own() {
        let mut services = parse(SHIPPED.as_bytes()).unwrap();
        let engine = services.iter_mut().find(|service| service.name == ENGINE).unwrap();
        let settings = engine.settings.as_mut().unwrap();
        assert_eq!(settings.file, "/etc/docker/daemon.json");
        settings.take_those_of_wsl();
        assert_eq!(settings.file, "/etc/docker/daemon-wsl.json");
    }

    fn refused(from: &str, to: &str) -> String {
        assert!(SHIPPED.contains(from), "{from}");
        parse(SHIPPED.replacen(from, to, 1).as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn the_shipped_table_is_good_and_every_service_says_why() {
        let services = parse(SHIPPED.as_bytes()).unwrap();
        assert!(services.iter().all(|service| !service.why.is_empty()));
        assert!(services.iter().any(|service| service.name == EGRESS));
    }

    #[test]
    fn a_table_that_contradicts_itself_is_refused() {
        let text = "the service table `/etc/eci/services.json`";
        assert_eq!(refused("\"version\": 1", "\"version\": 2"), format!("{text}: version 2 is not 1"));
        assert_eq!(refused("\"engine\"", "\"motor\""), format!("{text}: it has no service `engine`"));
        assert_eq!(
            refused("\"network\"", "\"../up\""),
            format!("{text}: `../up` is not a name of lower-case letters")
        );
        assert_eq!(refused("\"network\"", "\"gate\""), format!("{text}: gate is there twice"));
        assert_eq!(
            refused("\"after\": [\"containerd\"", "\"after\": [\"other\""),
            format!("{text}: engine is after `other`, which is not above it")
        );
        assert_eq!(
            refused("\"fileDescriptorStoreMax\": 2002", "\"fileDescriptorStoreMax\": 2049"),
            format!("{text}: nodes may store 2049 descriptors, and 2048 are the most")
        );
        assert_eq!(
            refused("\"readiness\": \"notify\",\n      \"fileD", "\"readiness\": \"none\",\n      \"fileD"),
            format!("{text}: nodes may store descriptors, but has no socket to send them to")
        );
        assert_eq!(refused("\"oomScore\"", "\"oomscore\""), format!("{text} is not understood"));
    }
}
