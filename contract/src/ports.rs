//! A container's port that the engine publishes: what `eci-publish` tells the gate about it.
//!
//! The engine starts one `eci-publish` for each port and address family. It connects to [`crate::paths::PORTS_SOCKET`], writes one
//! [`Announcement`] as a line of JSON, and gets one [`crate::link::Reply`] line. The port is published for as long as that
//! connection lives; when `eci-publish` closes its half, the gate closes the other once the host has let go of the port.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A transport that ports are published of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// Its name, as Docker writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A port of a container, and where on the host it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Announcement {
    /// Of both.
    pub protocol: Protocol,
    /// Address and port on the host. `0.0.0.0` and `::` stand for whatever the host allows.
    pub host: SocketAddr,
    /// The container's.
    pub container: SocketAddr,
}

/// `::ffff:192.0.2.1` as the `192.0.2.1` that it is: a judgement of one form must hold for the other.
#[must_use]
pub fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(ip) => {
            ip.to_ipv4_mapped().map_or(address, |ip| SocketAddr::new(ip.into(), address.port()))
        }
        IpAddr::V4(_) => address,
    }
}

/// An address as loopback has it: what stands for every address is the family's own loopback; `None` for one that is elsewhere.
#[must_use]
pub fn on_loopback(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(ip) if ip.is_unspecified() => Some(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => Some(Ipv6Addr::LOCALHOST.into()),
        ip => ip.is_loopback().then_some(ip),
    }
}

/// The most that an administrator lets be published: PID 1 tells the gate, by its word in the file [`crate::paths::PORTS_REACH`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// Whatever the host allows.
    #[default]
    All,
    /// On addresses that the host alone reaches.
    Loopback,
    /// No port.
    Nothing,
}

impl Reach {
    /// All of them.
    pub const EACH: [Self; 3] = [Self::All, Self::Loopback, Self::Nothing];

    /// From its word; `None` for any other text.
    #[must_use]
    pub fn from_word(text: &str) -> Option<Self> {
        Self::EACH.into_iter().find(|reach| reach.word() == text)
    }

    /// As files have it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Loopback => "loopback",
            Self::Nothing => "nothing",
        }
    }

    /// Whether nothing is set, as a status leaves that out.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::All
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_the_other_family_s_clothes_is_seen_through() {
        let read = |text: &str| plain(text.parse().expect("an address")).to_string();
        assert_eq!(read("[::ffff:127.0.0.1]:80"), "127.0.0.1:80");
        assert_eq!(read("[::1]:80"), "[::1]:80");
        assert_eq!(read("[::]:80"), "[::]:80");
        assert_eq!(read("192.0.2.1:80"), "192.0.2.1:80");
    }

    #[test]
    fn every_address_is_the_family_s_loopback_and_one_elsewhere_is_none() {
        let place =
            |text: &str| on_loopback(text.parse().expect("an address")).map(|address| address.to_string());
        for (wanted, given) in
            [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("127.8.8.8", "127.8.8.8"), ("::1", "::1")]
        {
            assert_eq!(place(wanted).as_deref(), Some(given), "{wanted}");
        }
        for elsewhere in ["192.0.2.1", "2001:db8::1", "255.255.255.255", "224.0.0.1"] {
            assert_eq!(place(elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn a_reach_is_known_by_its_word_alone() {
        for reach in Reach::EACH {
            assert_eq!(Reach::from_word(reach.word()), Some(reach));
        }
        assert!(["", "All", "loopback\n", "none"].iter().all(|text| Reach::from_word(text).is_none()));
    }

    #[test]
    fn protocols_have_docker_s_names() {
        assert_eq!(Protocol::ALL.map(Protocol::name), ["tcp", "udp"]);
    }
}
