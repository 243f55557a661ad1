//! What a DHCP server gave, and putting it into effect.

use std::fmt;
use std::fs;
use std::net::Ipv4Addr;

use eci_contract::paths::RESOLV_CONF;
use eci_sys::interface::Configurator;
use smoltcp::socket::dhcpv4;

use super::Error;

const OPTION_SUBNET_MASK: u8 = 1;
const OPTION_ROUTER: u8 = 3;
const OPTION_DNS: u8 = 6;
const OPTION_DOMAIN: u8 = 15;
const OPTION_MTU: u8 = 26;

/// Options that are asked for (RFC 2132).
pub const REQUESTED_OPTIONS: [u8; 5] =
    [OPTION_SUBNET_MASK, OPTION_ROUTER, OPTION_DNS, OPTION_DOMAIN, OPTION_MTU];

/// Smallest packet size that IPv4 has to carry, and the largest of Ethernet with jumbo frames.
const MTU_RANGE: std::ops::RangeInclusive<u16> = 576..=9216;

/// An address and what came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Our address.
    pub address: Ipv4Addr,
    /// Its prefix length.
    pub prefix: u8,
    /// The default gateway.
    pub router: Option<Ipv4Addr>,
    /// Name servers.
    pub servers: Vec<Ipv4Addr>,
    /// Search domain.
    pub domain: Option<String>,
    /// Largest packet in bytes.
    pub mtu: Option<u16>,
}

impl From<&dhcpv4::Config<'_>> for Lease {
    fn from(config: &dhcpv4::Config<'_>) -> Self {
        let option = |kind| {
            let mut options = config.packet.as_ref()?.options();
            options.find(|option| option.kind == kind).map(|option| option.data)
        };
        Self {
            address: config.address.address(),
            prefix: config.address.prefix_len(),
            router: config.router,
            servers: config.dns_servers.to_vec(),
            domain: option(OPTION_DOMAIN).and_then(domain),
            mtu: option(OPTION_MTU).and_then(mtu),
        }
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

/// Sets address, route, packet size and resolver; without a lease takes address and resolver away.
///
/// # Errors
/// When the kernel refuses one of them.
pub fn apply(configurator: &Configurator, interface: &str, lease: Option<&Lease>) -> Result<(), Error> {
    let failed =
        |operation| move |source| Error::Interface { operation, interface: interface.to_owned(), source };
    let Some(lease) = lease else {
        configurator
            .set_address(interface, Ipv4Addr::UNSPECIFIED, 0)
            .map_err(failed("take the address from"))?;
        return write_resolver("");
    };
    if let Some(mtu) = lease.mtu {
        configurator.set_mtu(interface, mtu).map_err(failed("set the packet size of"))?;
    }
    configurator.set_address(interface, lease.address, lease.prefix).map_err(failed("give an address to"))?;
    if let Some(router) = lease.router {
        configurator.add_default_route(router).map_err(failed("route through"))?;
    }
    write_resolver(&resolver(lease))
}

/// Beside and renamed: a reader sees the old file or the new one.
fn write_resolver(text: &str) -> Result<(), Error> {
    let failed = |source| Error::Resolver { path: RESOLV_CONF, source };
    let beside = format!("{RESOLV_CONF}.new");
    fs::write(&beside, text).map_err(failed)?;
    fs::rename(&beside, RESOLV_CONF).map_err(failed)
}

fn resolver(lease: &Lease) -> String {
    let search = lease.domain.iter().map(|domain| format!("search {domain}\n"));
    let servers = lease.servers.iter().map(|server| format!("nameserver {server}\n"));
    search.chain(servers).collect()
}

/// A domain name as it may go into a file that others parse: letters, digits, dots and hyphens only.
fn domain(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0');
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
    (!text.is_empty() && text.len() < 254 && text.bytes().all(good)).then(|| text.to_owned())
}

fn mtu(bytes: &[u8]) -> Option<u16> {
    let mtu = u16::from_be_bytes(bytes.try_into().ok()?);
    MTU_RANGE.contains(&mtu).then_some(mtu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolver_file_lists_domain_and_servers() {
        let lease = Lease {
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            router: None,
            servers: vec![Ipv4Addr::new(10, 0, 2, 3)],
            domain: Some("example.org".into()),
            mtu: None,
        };
        assert_eq!(resolver(&lease), "search example.org\nnameserver 10.0.2.3\n");
        assert_eq!(lease.to_string(), "10.0.2.15/24");
    }

    #[test]
    fn a_hostile_domain_does_not_get_into_the_file() {
        assert_eq!(domain(b"lan"), Some("lan".into()));
        assert_eq!(domain(b"x\nnameserver 6.6.6.6"), None);
        assert_eq!(domain(b"\0\0"), None);
        assert_eq!(domain(&[b'a'; 300]), None);
    }

    #[test]
    fn packet_sizes_out_of_range_are_ignored() {
        assert_eq!(mtu(&[0x05, 0xdc]), Some(1500));
        assert_eq!(mtu(&[0, 68]), None);
        assert_eq!(mtu(&[1]), None);
    }
}
