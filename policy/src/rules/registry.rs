//! Which registries the engine may reach, by an administrator's list.
//!
//! Why: what an image is made of is decided by where it comes from. The list is of hosts, and counts for whatever the engine dials: pulls,
//! pushes, logins, files that a build adds, and where those lead on to.
//!
//! Invariant: a host is judged as it was asked for, by name or by address, never by what a name resolves to; what is written in another way
//! than a list could have it is on none.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::Verdict;
use crate::settings::engine::values::{is_count, is_name};

/// Identifier of the rule.
pub const ID: &str = "registry-access";
/// What can be done instead.
pub const REMEDY: &str = "use a registry that is allowed, or ask the administrator to add this one to `eci.registryAccess.allowed`";
/// Most bytes of an entry: a name has 253, then a port.
const MAX_BYTES: usize = 260;
/// Ports of an entry that names none: where the engine looks for a registry without a port.
const PORTS: [u16; 2] = [443, 80];
/// The name that stands for all of Docker Hub.
const HUB: &str = "docker.io";
/// Hosts that Docker Hub is made of, each with why the engine asks it. Docker's own list for firewalls has them.
pub const HUB_HOSTS: &[(&str, &str)] = &[
    ("registry-1.docker.io", "manifests and layers: what the engine means by docker.io"),
    ("index.docker.io", "`docker login` and `docker search`, and the name that credentials are kept under"),
    ("auth.docker.io", "tokens, which the two above ask for"),
    ("production.cloudflare.docker.com", "layers, where the registry leads on to"),
    ("production.cloudfront.docker.com", "layers, in the registry's choice between the two"),
    (
        "docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com",
        "layers, for those who are not logged in",
    ),
];

/// Where a registry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// By name, in lower case.
    Name(String),
    /// By address.
    Address(IpAddr),
}

/// What somebody wants to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where.
    pub host: Host,
    /// At which port.
    pub port: u16,
}

impl Target {
    /// Reads `host`, `host:port`, `address:port` or `[address]:port`; `None` when it is written in another way, or has no port and there is
    /// no other.
    #[must_use]
    pub fn parse(text: &str, otherwise: Option<u16>) -> Option<Self> {
        let (host, port) = split(text)?;
        Some(Self { host: host.parse().ok()?, port: port.or(otherwise)? })
    }

    /// As it is told: without a port where that is 443 or 80, and with the one name that everybody knows for Docker Hub's many.
    #[must_use]
    pub fn shown(&self) -> String {
        match &self.host {
            Host::Name(name) if self.port == 443 && is_of_hub(name) => HUB.to_owned(),
            host if PORTS.contains(&self.port) => host.to_string(),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => formatter.write_str(name),
            Self::Address(IpAddr::V6(address)) => write!(formatter, "[{address}]"),
            Self::Address(address) => write!(formatter, "{address}"),
        }
    }
}

/// It is neither a name nor an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHost;

impl FromStr for Host {
    type Err = NoHost;

    fn from_str(text: &str) -> Result<Self, NoHost> {
        if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address: Ipv6Addr = address.parse().map_err(|_| NoHost)?;
            // `::ffff:192.0.2.7` is 192.0.2.7.
            return Ok(Self::Address(IpAddr::V6(address).to_canonical()));
        }
        // A name whose last label is a number is read as an address by some, and as none by others.
        let last = text.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") {
            return text.parse().map(|address: Ipv4Addr| Self::Address(address.into())).map_err(|_| NoHost);
        }
        if is_name(text) { Ok(Self::Name(text.to_ascii_lowercase())) } else { Err(NoHost) }
    }
}

/// Host and port of an authority.
fn split(text: &str) -> Option<(&str, Option<u16>)> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let end = text.find(']').map_or(0, |at| at + 1);
    match text.get(end..)?.split_once(':') {
        Some((before, port)) => {
            let port = is_count(port, u16::MAX.into()).then(|| port.parse().ok()).flatten()?;
            Some((text.get(..end + before.len())?, Some(port)))
        }
        None => Some((text, None)),
    }
}

fn is_of_hub(name: &str) -> bool {
    name == HUB || HUB_HOSTS.iter().any(|(host, _)| *host == name)
}

/// An entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    host: Pattern,
    /// One alone, or [`PORTS`].
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// Docker Hub, by all of its names.
    Hub,
    /// This one.
    One(Host),
    /// All names that end with it; it begins with a dot.
    Below(String),
}

impl Entry {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains("://") || text.contains('/') {
            return Err("it is a URL or an image's name, and the list is of hosts");
        }
        if !text.is_ascii() {
            return Err("it has letters that a host's name has not; write the name as xn--…");
        }
        let (host, port) = split(text).ok_or("it is no host with or without a port from 1 to 65535")?;
        let host = if host.eq_ignore_ascii_case(HUB) {
            if port.is_some() {
                return Err("Docker Hub, which it stands for, is at several hosts");
            }
            Pattern::Hub
        } else if let Some(below) = host.strip_prefix("*.") {
            match below.parse() {
                Ok(Host::Name(name)) if name.contains('.') => Pattern::Below(format!(".{name}")),
                _ => return Err("a wildcard is the first part of a name that has two more, or more"),
            }
        } else if host.contains('*') {
            return Err("a wildcard is the first part of a name, and all of it");
        } else {
            Pattern::One(host.parse().map_err(|NoHost| "it is neither a host's name nor an address")?)
        };
        Ok(Self { host, port })
    }

    fn covers(&self, target: &Target) -> bool {
        let port = self.port.map_or(PORTS.contains(&target.port), |port| port == target.port);
        let host = match (&self.host, &target.host) {
            (Pattern::Hub, Host::Name(name)) => target.port == 443 && is_of_hub(name),
            (Pattern::Below(end), Host::Name(name)) => name.ends_with(end.as_str()),
            (Pattern::One(one), host) => one == host,
            (Pattern::Hub | Pattern::Below(_), Host::Address(_)) => false,
        };
        port && host
    }

    /// Addresses of the VM's own loopback that it names.
    fn loopback(&self) -> Vec<SocketAddr> {
        let addresses = match &self.host {
            Pattern::One(Host::Name(name)) if name == "localhost" => {
                vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            }
            Pattern::One(Host::Address(address)) if address.is_loopback() => vec![*address],
            _ => Vec::new(),
        };
        let ports = self.port.map_or_else(|| PORTS.to_vec(), |port| vec![port]);
        let at = |address: IpAddr| ports.iter().map(move |port| SocketAddr::new(address, *port));
        addresses.into_iter().flat_map(at).collect()
    }
}

/// The list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registries {
    written: Vec<String>,
    entries: Vec<Entry>,
}

impl Registries {
    /// Takes one more.
    ///
    /// # Errors
    /// Why it cannot be on a list.
    pub fn add(&mut self, text: &str) -> Result<(), &'static str> {
        self.entries.push(Entry::parse(text)?);
        self.written.push(text.to_owned());
        Ok(())
    }

    /// As they are written.
    #[must_use]
    pub fn written(&self) -> &[String] {
        &self.written
    }

    /// Whether it may be reached.
    #[must_use]
    pub fn allow(&self, target: &Target) -> bool {
        self.entries.iter().any(|entry| entry.covers(target))
    }

    /// The same, for who is to be told.
    #[must_use]
    pub fn judge(&self, target: &Target) -> Verdict {
        if self.allow(target) {
            return Verdict::Allow;
        }
        Verdict::Deny { rule: ID, message: refusal(&target.shown()), remedy: REMEDY }
    }

    /// Addresses of the VM's own loopback on the list. Go's programs ask no proxy for those.
    #[must_use]
    pub fn loopback(&self) -> Vec<SocketAddr> {
        self.entries.iter().flat_map(Entry::loopback).collect()
    }
}

/// What is told of a registry that may not be reached.
#[must_use]
pub fn refusal(shown: &str) -> String {
    format!("registry access to {shown} is not allowed")
}

/// Why a name may not lead to this address: who has a name on the list would else decide what of the VM, or of its neighbours on the link, the
/// engine speaks to.
#[must_use]
pub fn misleads(address: IpAddr) -> Option<&'static str> {
    match address.to_canonical() {
        address if address.is_loopback() || address.is_unspecified() => Some("the VM itself"),
        address if address.is_multicast() => Some("a group"),
        IpAddr::V4(address) if address.is_link_local() => Some("not routed"),
        IpAddr::V4(address) if address.is_broadcast() => Some("everybody"),
        IpAddr::V6(address) if address.is_unicast_link_local() => Some("not routed"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> Registries {
        let mut registries = Registries::default();
        entries.iter().for_each(|entry| registries.add(entry).expect(entry));
        registries
    }

    fn allows(entry: &str, good: &[&str], bad: &[&str]) {
        let registries = list(&[entry]);
        let asked =
            |text: &&str| Target::parse(text, Some(443)).is_some_and(|target| registries.allow(&target));
        good.iter().for_each(|text| assert!(asked(text), "{entry} does not cover {text}"));
        bad.iter().for_each(|text| assert!(!asked(text), "{entry} covers {text}"));
    }

    #[test]
    fn a_name_is_that_host_at_the_usual_ports() {
        allows(
            "Registry.example.com",
            &["registry.example.com", "REGISTRY.example.com:443", "registry.example.com:80"],
            &[
                "registry.example.com:5000",
                "registry.example.co",
                "registry.example.comm",
                "xregistry.example.com",
                "a.registry.example.com",
                "example.com",
                "registry.example.com.",
                "registry-example.com",
                "registry.example.com@evil.example.org",
                "registry.example.com:443:443",
                "registry.example.com:0443",
                "registry.example.com:",
                "registry.example.com:+443",
                " registry.example.com",
            ],
        );
    }

    #[test]
    fn a_port_is_that_port_alone() {
        allows(
            "registry.example.com:5000",
            &["registry.example.com:5000"],
            &[
                "registry.example.com",
                "registry.example.com:80",
                "registry.example.com:5001",
                "registry.example.com:500",
            ],
        );
    }

    #[test]
    fn a_wildcard_is_every_name_below_and_not_the_one_above() {
        allows(
            "*.example.com",
            &["a.example.com", "a.b.example.com:80", "A.Example.com"],
            &[
                "example.com",
                "aexample.com",
                "a.example.com.evil.org",
                "a.example.org",
                "a.example.com:5000",
                ".example.com",
            ],
        );
        allows("*.example.com:5000", &["a.example.com:5000"], &["a.example.com", "example.com:5000"]);
    }

    #[test]
    fn an_address_is_named_by_itself() {
        allows(
            "192.0.2.7:5000",
            &["192.0.2.7:5000", "[::ffff:192.0.2.7]:5000"],
            &[
                "192.0.2.7",
                "192.0.2.8:5000",
                "192.0.2.7:5001",
                "3221225991:5000",
                "0xc0.0.2.7:5000",
                "192.0.519:5000",
            ],
        );
        allows(
            "[2001:db8::7]:5000",
            &["[2001:db8::7]:5000", "[2001:db8:0:0::7]:5000"],
            &[
                "[2001:db8::8]:5000",
                "2001:db8::7:5000",
                "[2001:db8::7]",
                "[2001:db8::7%eth0]:5000",
                "[2001:db8::7]x:5000",
            ],
        );
        allows("*.example.com", &[], &["192.0.2.7", "[2001:db8::7]"]);
    }

    #[test]
    fn docker_hub_has_several_names_and_lends_them_to_nobody() {
        let hosts: Vec<_> = HUB_HOSTS.iter().map(|(host, _)| *host).chain([HUB]).collect();
        allows(
            "docker.io",
            &hosts,
            &[
                "registry-2.docker.io",
                "evil.docker.io",
                "docker.com",
                "registry-1.docker.io:80",
                "registry-1.docker.io:5000",
                "other.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com",
            ],
        );
        assert!(HUB_HOSTS.iter().all(|(_, why)| !why.is_empty()));
        allows("*.docker.io", &["registry-1.docker.io"], &["production.cloudflare.docker.com", "docker.io"]);
    }

    #[test]
    fn what_is_no_host_is_on_no_list() {
        for text in [
            "",
            "*",
            "*.com",
            "*.",
            "a.*.com",
            "a*.example.com",
            "*.*.example.com",
            "*.192.0.2",
            "https://registry.example.com",
            "registry.example.com/team",
            "registry.example.com:0",
            "registry.example.com:65536",
            "registry.example.com:x",
            "registry.example.com.",
            "192.0.2.0/24",
            "192.0.2",
            "2001:db8::7",
            "[2001:db8::7",
            "[192.0.2.7]",
            "bücher.example",
            "a_b.example",
            "docker.io:443",
            "a b",
            "-a.example",
        ] {
            assert!(Registries::default().add(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_refused_is_told_as_people_write_it() {
        let told =
            |text| match Registries::default().judge(&Target::parse(text, Some(443)).expect("a target")) {
                Verdict::Deny { rule, message, .. } => (rule, message),
                Verdict::Allow => panic!("allowed"),
            };
        let message = |name: &str| (ID, format!("registry access to {name} is not allowed"));
        assert_eq!(told("Registry.example.com"), message("registry.example.com"));
        assert_eq!(told("registry.example.com:5000"), message("registry.example.com:5000"));
        assert_eq!(told("[2001:db8::7]:5000"), message("[2001:db8::7]:5000"));
        assert_eq!(told("registry-1.docker.io:443"), message("docker.io"));
        assert_eq!(told("registry-1.docker.io:5000"), message("registry-1.docker.io:5000"));
    }

    #[test]
    fn loopback_is_reached_without_a_proxy_where_it_is_listed() {
        let addresses =
            |entries| -> Vec<String> { list(entries).loopback().iter().map(ToString::to_string).collect() };
        assert_eq!(addresses(&["localhost:5000"]), ["127.0.0.1:5000", "[::1]:5000"]);
        assert_eq!(addresses(&["127.0.0.2:5000", "[::1]:7"]), ["127.0.0.2:5000", "[::1]:7"]);
        assert_eq!(addresses(&["127.0.0.1"]), ["127.0.0.1:443", "127.0.0.1:80"]);
        assert_eq!(
            addresses(&["docker.io", "*.example.com", "192.0.2.7:5000", "localhost.example.com"]),
            [""; 0]
        );
    }

    #[test]
    fn a_name_leads_to_somebody_else() {
        for text in [
            "127.0.0.1",
            "0.0.0.0",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "169.254.169.254",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
        ] {
            assert!(misleads(text.parse().expect("an address")).is_some(), "{text}");
        }
        for text in ["192.0.2.7", "10.0.2.2", "172.17.0.2", "2001:db8::7", "fd00::7"] {
            assert_eq!(misleads(text.parse().expect("an address")), None, "{text}");
        }
    }
}
