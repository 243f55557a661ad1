//! A container's port that the engine publishes: what `eci-publish` tells the gate about it.
//!
//! The engine starts one `eci-publish` for each port and address family. It connects to [`crate::paths::PORTS_SOCKET`], writes one
//! [`Announcement`] as a line of JSON, and gets one [`crate::link::Reply`] line. The port is published for as long as that
//! connection lives; when `eci-publish` closes its half, the gate closes the other once the host has let go of the port.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

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
    fn protocols_have_docker_s_names() {
        assert_eq!(Protocol::ALL.map(Protocol::name), ["tcp", "udp"]);
    }
}
