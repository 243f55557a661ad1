//! Addresses and networks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use super::keys::Wrong;

/// Ranges that are no networks of containers, each with why.
const NOT_FOR_CONTAINERS: [(Network, &str); 4] = [
    (network([0, 0, 0, 0], 8), "no machine has addresses of 0.0.0.0/8"),
    (network([127, 0, 0, 0], 8), "127.0.0.0/8 is the VM itself"),
    (network([169, 254, 0, 0], 16), "169.254.0.0/16 is not routed"),
    (network([224, 0, 0, 0], 3), "addresses from 224.0.0.0 on are those of groups"),
];

const fn network([a, b, c, d]: [u8; 4], prefix: u8) -> Network {
    Network { address: Ipv4Addr::new(a, b, c, d), prefix }
}

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: Ipv4Addr,
    /// Bits that all its addresses share.
    pub prefix: u8,
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

impl Network {
    /// Reads a network that containers may have.
    ///
    /// # Errors
    /// It is none.
    pub fn for_containers(text: &str) -> Result<Self, Wrong> {
        const FIX: &str = "write an IPv4 network as 10.10.0.0/16";
        let wrong = |reason| Wrong { reason, fix: FIX };
        let (address, prefix) = parse_cidr(text).ok_or(wrong("it is not a network"))?;
        let IpAddr::V4(address) = address else {
            return Err(wrong("the engine gives out IPv4 networks alone in this version"));
        };
        let network = Self { address, prefix };
        match NOT_FOR_CONTAINERS.iter().find(|(other, _)| other.overlaps(network)) {
            Some((_, reason)) => Err(wrong(reason)),
            None => Ok(network),
        }
    }

    /// Whether they have an address in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let mask = mask(self.prefix.min(other.prefix).into(), 32);
        u128::from(self.address.to_bits()) & mask == u128::from(other.address.to_bits()) & mask
    }
}

/// An address and a prefix of a network; `None` when it is written in another way, or when the address has bits behind the
/// prefix.
#[must_use]
pub fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let (bits, width) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let number: u8 = prefix.parse().ok().filter(|number| u32::from(*number) <= width)?;
    let is_written_plainly = number.to_string() == prefix;
    (is_written_plainly && bits & !mask(number.into(), width) == 0).then_some((address, number))
}

/// The first `prefix` of `width` bits.
pub(crate) fn mask(prefix: u32, width: u32) -> u128 {
    let all = u128::MAX >> (128 - width);
    all & !all.checked_shr(prefix).unwrap_or(0)
}

/// Judges the address of a resolver for containers.
///
/// # Errors
/// What is wrong with it.
pub fn judge_resolver(text: &str) -> Result<(), Wrong> {
    const FIX: &str = "write the address of a resolver that containers reach, such as 192.0.2.53";
    let address: IpAddr = text.parse().map_err(|_| Wrong { reason: "it is not an IP address", fix: FIX })?;
    // `::ffff:127.0.0.1` is 127.0.0.1.
    let address = address.to_canonical();
    let reason = match address {
        _ if address.is_loopback() => "a container would ask itself",
        _ if address.is_unspecified() => "nobody has that address",
        _ if address.is_multicast() => "it is the address of a group",
        IpAddr::V4(address) if address.is_broadcast() => "it is the address of everybody",
        _ => return Ok(()),
    };
    Err(Wrong { reason, fix: FIX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_written_in_one_way() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.1/32", "2001:db8::/32", "::/0", "::1/128"] {
            assert!(parse_cidr(text).is_some(), "{text}");
        }
        for text in [
            "10.0.0.1/8",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0/8",
            "10.0.0.0/8/8",
            " 10.0.0.0/8",
            "10.0.0.0/",
            "/8",
            "2001:db8::1/32",
            "::/129",
            "010.0.0.0/8",
            "",
        ] {
            assert_eq!(parse_cidr(text), None, "{text}");
        }
    }

    #[test]
    fn networks_overlap_when_one_is_inside_of_the_other() {
        let read = |text| Network::for_containers(text).unwrap();
        let (wide, inside, beside) = (read("10.8.0.0/13"), read("10.10.0.0/16"), read("10.16.0.0/16"));
        assert!(wide.overlaps(inside) && inside.overlaps(wide) && wide.overlaps(wide));
        assert!(!wide.overlaps(beside) && !beside.overlaps(inside));
    }

    #[test]
    fn what_is_no_network_of_containers_is_refused_with_its_reason() {
        let reason = |text| Network::for_containers(text).unwrap_err().reason;
        assert_eq!(reason("127.1.0.0/16"), "127.0.0.0/8 is the VM itself");
        assert_eq!(reason("0.0.0.0/0"), "no machine has addresses of 0.0.0.0/8");
        assert_eq!(reason("169.254.1.0/24"), "169.254.0.0/16 is not routed");
        assert_eq!(reason("239.0.0.0/8"), "addresses from 224.0.0.0 on are those of groups");
        assert!(reason("2001:db8::/32").contains("IPv4 networks alone"));
    }

    #[test]
    fn a_resolver_is_somebody_else() {
        for text in ["192.0.2.53", "2001:db8::53", "10.0.2.3"] {
            assert_eq!(judge_resolver(text), Ok(()), "{text}");
        }
        for text in [
            "127.0.0.53",
            "::ffff:127.0.0.1",
            "::1",
            "0.0.0.0",
            "::",
            "224.0.0.251",
            "255.255.255.255",
            "resolver",
            "192.0.2.53:53",
            "",
        ] {
            assert!(judge_resolver(text).is_err(), "{text}");
        }
    }
}
