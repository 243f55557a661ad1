//! Whether an address is a container's: one that the kernel reaches directly through a bridge, and that is not the VM's own.
//!
//! Whoever can announce is root in the VM already; this keeps a mistake there, or an engine that was talked into something,
//! from giving the host a way to programs of the VM or to the network around it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

/// The kernel's routes; one line each, numbers in hexadecimal.
const ROUTES_V4: &str = "/proc/net/route";
/// The same for IPv6.
const ROUTES_V6: &str = "/proc/net/ipv6_route";
/// A folder per interface; a bridge's has a folder `bridge`.
const INTERFACES: &str = "/sys/class/net";
/// `RTF_GATEWAY` of linux/route.h: the network is behind a router.
const BEHIND_ROUTER: u32 = 2;
/// `RTF_REJECT`: there is no way there.
const REJECTED: u32 = 0x200;

/// Why an address is not taken for a container's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is one that no host has to itself.
    #[error("`{address}` is no address of a container: it is not one host's own")]
    Special {
        /// The address.
        address: IpAddr,
    },
    /// The kernel does not reach it through a bridge.
    #[error("`{address}` is no address of a container: it is on none of the engine's bridges")]
    Elsewhere {
        /// The address.
        address: IpAddr,
    },
    /// It is the VM itself.
    #[error("`{address}` is no address of a container: it is the VM's own")]
    Own {
        /// The address.
        address: IpAddr,
    },
    /// The kernel does not say.
    #[error("cannot find out whether `{address}` is a container's address")]
    Ask {
        /// The address.
        address: IpAddr,
        /// What it said.
        source: io::Error,
    },
}

/// Says whether an address is a container's.
pub type Judge = fn(IpAddr) -> Result<(), Error>;

/// Judges an address by what the kernel says of the VM's networks now.
///
/// # Errors
/// [`Error`]: it is not a container's.
pub fn judge(address: IpAddr) -> Result<(), Error> {
    let failed = |source| Error::Ask { address, source };
    if is_special(address) {
        return Err(Error::Special { address });
    }
    let routes = match address {
        IpAddr::V4(_) => {
            fs::read_to_string(ROUTES_V4).map_err(failed)?.lines().filter_map(parse_v4).collect()
        }
        IpAddr::V6(_) => {
            fs::read_to_string(ROUTES_V6).map_err(failed)?.lines().filter_map(parse_v6).collect()
        }
    };
    if !is_on_bridge(address, routes, |interface| {
        Path::new(INTERFACES).join(interface).join("bridge").exists()
    }) {
        return Err(Error::Elsewhere { address });
    }
    if is_own(address).map_err(failed)? { Err(Error::Own { address }) } else { Ok(()) }
}

/// Loopback, everybody, nobody, and addresses that mean something on a link only.
fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip.is_link_local()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
                || ip.to_ipv4_mapped().is_some()
        }
    }
}

/// A network and the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    interface: String,
    network: IpAddr,
    prefix: u32,
    /// The kernel asks for hosts of the network on the link itself.
    direct: bool,
}

impl Route {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - self.prefix.min(32)).unwrap_or_default();
                (u32::from(network) ^ u32::from(ip)) & mask == 0
            }
            (IpAddr::V6(network), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - self.prefix.min(128)).unwrap_or_default();
                (u128::from(network) ^ u128::from(ip)) & mask == 0
            }
            _ => false,
        }
    }
}

/// Whether the most exact of the routes leads directly to a bridge. Of two that are equally exact both have to: the kernel
/// may take either.
fn is_on_bridge(address: IpAddr, routes: Vec<Route>, is_bridge: impl Fn(&str) -> bool) -> bool {
    let leading: Vec<_> = routes.into_iter().filter(|route| route.contains(address)).collect();
    let Some(longest) = leading.iter().map(|route| route.prefix).max() else { return false };
    leading
        .iter()
        .filter(|route| route.prefix == longest)
        .all(|route| route.direct && is_bridge(&route.interface))
}

/// `docker0 000011AC 00000000 0001 0 0 0 0000FFFF 0 0 0`: interface, network, gateway, flags, three counts, mask, in the
/// machine's byte order.
fn parse_v4(line: &str) -> Option<Route> {
    let columns: Vec<_> = line.split_whitespace().collect();
    let number = |index: usize| u32::from_str_radix(columns.get(index)?, 16).ok();
    let mask = u32::from_be_bytes(number(7)?.to_ne_bytes());
    let flags = number(3)?;
    Some(Route {
        interface: (*columns.first()?).to_owned(),
        network: Ipv4Addr::from(number(1)?.to_ne_bytes()).into(),
        prefix: mask.count_ones(),
        direct: number(2)? == 0 && flags & (BEHIND_ROUTER | REJECTED) == 0,
    })
}

/// `fd00…00 40 00…00 00 00…00 00000100 00000001 00000000 00000001 docker0`: network, its prefix, source, its prefix, next hop,
/// metric, two counts, flags, interface.
fn parse_v6(line: &str) -> Option<Route> {
    let columns: Vec<_> = line.split_whitespace().collect();
    let number = |index: usize| u32::from_str_radix(columns.get(index)?, 16).ok();
    let address = |index: usize| {
        let text = columns.get(index).filter(|text| text.len() == 32)?;
        u128::from_str_radix(text, 16).ok().map(Ipv6Addr::from)
    };
    let flags = number(8)?;
    Some(Route {
        interface: (*columns.get(9)?).to_owned(),
        network: address(0)?.into(),
        prefix: number(1)?,
        direct: address(4)?.is_unspecified() && flags & (BEHIND_ROUTER | REJECTED) == 0,
    })
}

/// The kernel speaks to its own addresses from these addresses. Nothing is sent.
fn is_own(address: IpAddr) -> io::Result<bool> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    // The port does not matter; 9 is the one that throws everything away.
    socket.connect(SocketAddr::new(address, 9))?;
    Ok(socket.local_addr()?.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
br-1234\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
br-1234\t000013AC\t020012AC\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t000512AC\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
";
    const V6: &str = "\
fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001  docker0
fec00000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fec00000000000000000000000000002 00000400 00000001 00000000 00000003     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
fd000000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000002 00000000 80200001  docker0
";

    fn on_bridge(address: &str) -> bool {
        let address: IpAddr = address.parse().expect("an address");
        let routes = match address {
            IpAddr::V4(_) => V4.lines().filter_map(parse_v4).collect(),
            IpAddr::V6(_) => V6.lines().filter_map(parse_v6).collect(),
        };
        is_on_bridge(address, routes, |interface| interface != "eth0" && interface != "lo")
    }

    #[test]
    fn hosts_on_a_bridge_pass_and_those_behind_routers_or_on_other_cards_do_not() {
        for address in ["172.17.0.2", "172.18.255.1", "fd00::2"] {
            assert!(on_bridge(address), "{address}");
        }
        for address in [
            "10.0.2.2",
            "10.0.2.15",
            "192.0.2.1",
            "172.19.0.2",
            "172.18.5.1",
            "172.16.255.255",
            "fec0::2",
            "2001:db8::1",
            "fd00:1::2",
        ] {
            assert!(!on_bridge(address), "{address}");
        }
        assert!(!is_on_bridge("172.17.0.2".parse().expect("an address"), Vec::new(), |_| true));
    }

    #[test]
    fn addresses_that_are_not_one_host_s_are_special() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "169.254.169.254",
            "::",
            "::1",
            "ff02::1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "::ffff:172.17.0.2",
        ] {
            assert!(is_special(address.parse().expect("an address")), "{address}");
        }
        assert!(!is_special("172.17.0.2".parse().expect("an address")));
        assert!(!is_special("fd00::2".parse().expect("an address")));
    }

    #[test]
    fn lines_that_are_no_routes_are_passed_over() {
        assert_eq!(V4.lines().filter_map(parse_v4).count(), 6);
        assert_eq!(V6.lines().filter_map(parse_v6).count(), 5);
        for line in ["", "eth0", "eth0 zz 0 1 0 0 0 0", "eth0 00000000 00000000 0001 0 0 0", "\0 \0"] {
            assert_eq!(parse_v4(line), None, "{line:?}");
            assert_eq!(parse_v6(line), None, "{line:?}");
        }
    }

    #[test]
    fn the_machine_s_own_address_is_known() {
        assert!(is_own(Ipv4Addr::LOCALHOST.into()).expect("asked"));
    }

    #[test]
    fn refusals_name_the_address() {
        let error = judge("127.0.0.1".parse().expect("an address")).expect_err("not a container's");
        assert_eq!(error.to_string(), "`127.0.0.1` is no address of a container: it is not one host's own");
        let address = "192.0.2.1".parse().expect("an address");
        for error in [Error::Elsewhere { address }, Error::Own { address }] {
            assert!(error.to_string().starts_with("`192.0.2.1` is no address of a container: "), "{error}");
        }
    }
}
