//! The administrator's settings: what is in force for as long as the machine runs. They are those of the image, on its verified root, or of
//! a config disk that is signed by the key that the image names ([`disk`]).
//!
//! They are read with the reader that the builder checked them with. Settings that are not there or not understood refuse the engine: an
//! image has a file in any case, and what this program does not understand it does not enforce.

pub mod disk;

use std::fs;
use std::io;

use eci_contract::choice::Switch;
use eci_contract::paths::{ADMIN_SETTINGS, ISOLATION, PORTS_REACH, REGISTRY_POLICY, SOCKET_POLICY};
use eci_contract::ports::Reach;
use eci_contract::registries::{PROXY, RegistryPolicy, VERSION};
use eci_contract::status::{Settings as Report, SettingsSource};
use eci_policy::rules::registry::Registries;
use eci_policy::settings::engine::Engine;
use eci_policy::settings::isolation::Locked;
use eci_policy::settings::machine::{self, Machine};
use eci_policy::settings::shares::Shares;
use eci_policy::settings::{self, DEFAULT, Settings};
use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::json;

use crate::handover::Platform;
use crate::kmsg;

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the administrator's settings `{ADMIN_SETTINGS}`")]
    Read {
        /// What the kernel said.
        source: io::Error,
    },
    /// It is not understood, or asks for what this version does not enforce.
    #[error("the administrator's settings {whose} are not understood")]
    Refused {
        /// Where they are.
        whose: String,
        /// What is wrong with them.
        source: settings::Error,
    },
    /// What others have to know of them cannot be written.
    #[error("cannot write `{path}`")]
    Tell {
        /// The file.
        path: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The machine's user chose what they say.
    #[error(transparent)]
    Locked(#[from] Locked),
    /// There is no way to keep them in a distro.
    #[error(
        "a distro of WSL 2 does not keep to `{key}`: its network is that of all distros; build its image from settings without the key"
    )]
    InDistro {
        /// The key.
        key: &'static str,
    },
    /// The machine is not what it may be.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// The config disk cannot be used.
    #[error(transparent)]
    Disk(#[from] disk::Error),
}

/// Settings that were read, and what is told of them.
#[derive(Clone, Debug)]
pub struct Administered {
    settings: Settings,
    isolation: Switch,
    source: SettingsSource,
    edition: Option<disk::Edition>,
    sha256: String,
}

/// Reads those of the disk if there is one, else those of the image.
///
/// # Errors
/// When they cannot be read or are not understood, when a disk is not to be trusted, or there has to be one and is none.
pub fn read() -> Result<Administered, Error> {
    if let Some(disk) = disk::read()? {
        let whose = format!("of edition {} on the config disk", disk.edition.number);
        return parse(&disk.settings, SettingsSource::Disk, Some(disk.edition), whose);
    }
    let bytes = fs::read(ADMIN_SETTINGS).map_err(|source| Error::Read { source })?;
    of_image(&bytes)
}

fn of_image(bytes: &[u8]) -> Result<Administered, Error> {
    let source = if bytes == DEFAULT.as_bytes() { SettingsSource::Default } else { SettingsSource::Image };
    parse(bytes, source, None, format!("`{ADMIN_SETTINGS}`"))
}

fn parse(
    bytes: &[u8],
    source: SettingsSource,
    edition: Option<disk::Edition>,
    whose: String,
) -> Result<Administered, Error> {
    let settings = settings::read(bytes).map_err(|source| Error::Refused { whose, source })?;
    let isolation = settings.isolation.value;
    Ok(Administered { settings, isolation, source, edition, sha256: sha256(bytes) })
}

/// In hexadecimal.
fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Administered {
    /// Takes what the machine's user chose, where that is theirs to choose.
    ///
    /// # Errors
    /// [`Error::Locked`]: the settings stay in force.
    pub fn choose(&mut self, choice: Option<Switch>) -> Result<(), Error> {
        self.isolation = self.settings.isolation.chosen(choice)?;
        Ok(())
    }

    /// Whether containers are isolated.
    #[must_use]
    pub fn isolation(&self) -> Switch {
        self.isolation
    }

    /// Settings of the engine. Its labels tell everybody who asks `docker info` what is in force in this `version` of the image.
    #[must_use]
    pub fn engine(&self, version: &str) -> Engine {
        let isolation = match (self.isolation, self.settings.isolation.locked) {
            (Switch::Off, _) => "off",
            (Switch::On, true) => "locked",
            (Switch::On, false) => "on",
        };
        let engine = self.settings.engine.clone();
        let engine = match &self.settings.registries {
            Some(_) => engine.proxied_by(&format!("http://{PROXY}")),
            None => engine,
        };
        engine.labelled(vec![
            format!("org.eci.isolation={isolation}"),
            format!("org.eci.version={version}"),
            format!("org.eci.settings=sha256:{}", self.sha256),
        ])
    }

    /// Which folders of the host the machine may have.
    #[must_use]
    pub fn shares(&self) -> &Shares {
        &self.settings.shares
    }

    /// Tells the runtime whether containers are isolated.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn tell_of_isolation(&self) -> Result<(), Error> {
        if self.isolation == Switch::Off {
            kmsg::notice(
                "containers are not isolated: the settings say so, or leave it to the machine's user",
            );
        }
        fs::write(ISOLATION, self.isolation.word()).map_err(|source| Error::Tell { path: ISOLATION, source })
    }

    /// Tells runtime and gate which containers have the engine's socket. No file, no container.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn tell_of_socket(&self) -> Result<(), Error> {
        let policy = self.settings.isolation.socket(self.isolation);
        if policy.images.is_empty() { Ok(()) } else { tell(SOCKET_POLICY, &policy) }
    }

    /// Which registries the engine may reach; every one without a list.
    #[must_use]
    pub fn registries(&self) -> Option<&Registries> {
        self.settings.registries.as_ref()
    }

    /// Tells those who let the engine through of that list, and of the proxies that lead to them. No file, no list.
    ///
    /// # Errors
    /// When the file cannot be written, or `platform` cannot keep to the list.
    pub fn tell_of_registries(&self, platform: Platform) -> Result<(), Error> {
        let Some(registries) = self.registries() else { return Ok(()) };
        if platform == Platform::Wsl {
            return Err(Error::InDistro { key: "eci.registryAccess" });
        }
        let proxies = self.settings.engine.get("proxies").cloned().unwrap_or_else(|| json!({}));
        let failed = |source| Error::Tell { path: REGISTRY_POLICY, source };
        let proxies = serde_json::from_value(proxies).map_err(io::Error::other).map_err(failed)?;
        tell(
            REGISTRY_POLICY,
            &RegistryPolicy { version: VERSION, allowed: registries.written().to_vec(), proxies },
        )
    }

    /// Tells the gate how far ports of containers may be published.
    ///
    /// # Errors
    /// When the file cannot be written, or `platform` cannot keep to it.
    pub fn tell_of_ports(&self, platform: Platform) -> Result<(), Error> {
        let reach = self.settings.ports;
        if platform == Platform::Wsl && reach != Reach::All {
            return Err(Error::InDistro { key: "eci.ports" });
        }
        fs::write(PORTS_REACH, reach.word()).map_err(|source| Error::Tell { path: PORTS_REACH, source })
    }

    /// Whether the machine is what it may be.
    ///
    /// # Errors
    /// It is too large, or of too old a version.
    pub fn judge(&self, machine: Machine<'_>) -> Result<(), Error> {
        Ok(self.settings.limits.judge(machine)?)
    }

    /// Takes them: on the data disk it is written that none that is older is taken from here on.
    ///
    /// # Errors
    /// When a newer edition was taken before, or that cannot be read or written.
    pub fn take(&self) -> Result<(), Error> {
        Ok(self.edition.as_ref().map_or(Ok(()), disk::take)?)
    }

    /// SHA-256 of the file, hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// For the status.
    #[must_use]
    pub fn report(&self) -> Report {
        let Settings { isolation, engine, shares, registries, ports, limits, kept_apart } = &self.settings;
        Report {
            source: self.source,
            edition: self.edition.as_ref().map(|edition| edition.number),
            sha256: self.sha256.clone(),
            isolation: self.isolation,
            locked: isolation.locked,
            socket: isolation.socket(self.isolation).images,
            engine: engine.iter().map(|(key, _)| key.to_owned()).collect(),
            shares: shares.allow.clone(),
            registries: registries.as_ref().map(|registries| registries.written().to_vec()),
            ports: *ports,
            memory: limits.memory,
            cpus: limits.cpus,
            minimum_version: limits.minimum_version.clone(),
            kept_apart: kept_apart.iter().map(|feature| feature.key.to_owned()).collect(),
        }
    }
}

fn tell(path: &'static str, what: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_vec(what).map_err(io::Error::other);
    text.and_then(|text| fs::write(path, text)).map_err(|source| Error::Tell { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_a_list_of_registries_the_engine_asks_for_all_of_them_at_one_place() {
        let text = br#"{"configurationFileVersion": 2, "eci": {
            "engine": {"proxies": {"https-proxy": "http://proxy.example.com:3128", "no-proxy": ".example.com"}},
            "registryAccess": {"allowed": ["docker.io"]}
        }}"#;
        let administered = of_image(text).unwrap();
        let engine = administered.engine("1.2.3");
        let ours = json!({ "http-proxy": "http://127.0.0.1:3128", "https-proxy": "http://127.0.0.1:3128" });
        assert_eq!(engine.get("proxies"), Some(&ours));
        assert_eq!(administered.report().registries, Some(vec!["docker.io".to_owned()]));
        let error = administered.tell_of_registries(Platform::Wsl).unwrap_err();
        assert!(
            error.to_string().starts_with("a distro of WSL 2 does not keep to `eci.registryAccess`: "),
            "{error}"
        );
        let kept = of_image(br#"{"configurationFileVersion": 2, "eci": {"ports": {"publish": "loopback"}}}"#)
            .unwrap();
        assert!(matches!(kept.tell_of_ports(Platform::Wsl), Err(Error::InDistro { key: "eci.ports" })));
        let none = of_image(DEFAULT.as_bytes()).unwrap();
        none.tell_of_registries(Platform::Wsl).unwrap();
        assert_eq!((none.engine("1").get("proxies"), none.report().registries), (None, None));
    }

    #[test]
    fn settings_are_told_with_where_they_come_from() {
        let report = of_image(DEFAULT.as_bytes()).unwrap().report();
        assert_eq!((report.source, report.locked), (SettingsSource::Default, true));
        assert_eq!(report.engine, ["log-driver", "log-opts"]);
        let text = br#"{
            "configurationFileVersion": 2, "enhancedContainerIsolation": {"value": true, "locked": false},
            "scout": {}, "eci": {"engine": {"mtu": 1400}}
        }"#;
        let administered = of_image(text).unwrap();
        let report = administered.report();
        assert_eq!((report.source, report.locked), (SettingsSource::Image, false));
        assert_eq!(report.engine, ["log-driver", "log-opts", "mtu"]);
        assert_eq!(report.kept_apart, ["scout"]);
        assert_eq!(report.sha256.len(), 64);
        let engine = administered.engine("1.2.3");
        assert!(engine.iter().any(|(key, value)| key == "mtu" && value == 1400));
        let labels = ["isolation=on", "version=1.2.3", &format!("settings=sha256:{}", report.sha256)]
            .map(|label| format!("org.eci.{label}"));
        assert!(engine.iter().any(|(key, value)| key == "labels" && *value == serde_json::json!(labels)));
    }

    #[test]
    fn a_choice_counts_where_the_settings_leave_it_and_is_told_everywhere() {
        let mut locked = of_image(DEFAULT.as_bytes()).unwrap();
        assert!(matches!(locked.choose(Some(Switch::Off)), Err(Error::Locked(_))));
        assert_eq!(locked.isolation(), Switch::On);
        let text = br#"{
            "configurationFileVersion": 2, "enhancedContainerIsolation": {"value": false, "locked": false}
        }"#;
        let mut free = of_image(text).unwrap();
        for (choice, is, label) in [
            (None, Switch::Off, "off"),
            (Some(Switch::On), Switch::On, "on"),
            (Some(Switch::Off), Switch::Off, "off"),
        ] {
            free.choose(choice).unwrap();
            assert_eq!(free.report().isolation, is);
            let wanted = format!("org.eci.isolation={label}");
            assert!(free.engine("1").iter().any(|(_, value)| value.to_string().contains(&wanted)), "{label}");
            assert_eq!(free.report().socket.is_empty(), is == Switch::On);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_with_place_and_reason() {
        let error = of_image(br#"{"configurationFileVersion": 2, "eci": {"resource": {}}}"#).unwrap_err();
        let said = kmsg::chain(&error);
        assert!(
            said.starts_with(
                "the administrator's settings `/etc/eci/admin-settings.json` are not understood: `eci.resource` is {}: it is not a \
                 key of this version; leave it out; "
            ),
            "{said}"
        );
        let error = Error::Read { source: io::ErrorKind::NotFound.into() };
        assert_eq!(
            error.to_string(),
            "cannot read the administrator's settings `/etc/eci/admin-settings.json`"
        );
    }
}
