//! Which of an administrator's proxies leads to a registry.
//!
//! Invariant: as Go's `net/http` has it, which the engine asked before there was a list (`golang.org/x/net/http/httpproxy`).

use std::net::IpAddr;

use eci_contract::registries::Proxies;

use super::registry::{Host, Target};
use crate::settings::engine::network::{mask, parse_cidr};

/// How a request arrives, which decides who takes it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// As a tunnel.
    Https,
}

/// The proxy to ask for this; `None` when it is reached without.
#[must_use]
pub fn on_the_way(proxies: &Proxies, scheme: Scheme, target: &Target) -> Option<Target> {
    let url = match scheme {
        Scheme::Http => proxies.http_proxy.as_deref(),
        Scheme::Https => proxies.https_proxy.as_deref(),
    }?;
    let bypassed = proxies.no_proxy.as_deref().unwrap_or_default().split(',');
    if is_local(&target.host) || bypassed.map(str::trim).any(|entry| covers(entry, target)) {
        return None;
    }
    // The settings take no proxy that is written in another way where they have a list.
    Target::parse(url.strip_prefix("http://")?.trim_end_matches('/'), Some(80))
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Name(name) => name == "localhost",
        Host::Address(address) => address.is_loopback(),
    }
}

fn covers(entry: &str, target: &Target) -> bool {
    if let Some((network, prefix)) = parse_cidr(entry) {
        return matches!(target.host, Host::Address(address) if is_in(address, network, prefix));
    }
    if let Ok(address) = entry.parse::<IpAddr>() {
        return target.host == Host::Address(address.to_canonical());
    }
    let below = entry.strip_prefix("*.").or_else(|| entry.strip_prefix('.'));
    let Some(named) = Target::parse(below.unwrap_or(entry), Some(target.port)) else { return false };
    if named.port != target.port {
        return false;
    }
    match (&named.host, &target.host) {
        (Host::Name(end), Host::Name(name)) => match name.strip_suffix(end.as_str()) {
            Some("") => below.is_none(),
            Some(before) => before.ends_with('.'),
            None => false,
        },
        (named, host) => named == host,
    }
}

fn is_in(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let prefix = u32::from(prefix);
    match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            u128::from(one.to_bits() ^ other.to_bits()) & mask(prefix, 32) == 0
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()) & mask(prefix, 128) == 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(no_proxy: &str, scheme: Scheme, target: &str) -> Option<String> {
        let proxies = Proxies {
            http_proxy: Some("http://plain.example.com:3128/".to_owned()),
            https_proxy: Some("http://[2001:db8::1]".to_owned()),
            no_proxy: Some(no_proxy.to_owned()),
        };
        let target = Target::parse(target, Some(443)).expect("a target");
        on_the_way(&proxies, scheme, &target).map(|proxy| proxy.to_string())
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        assert_eq!(way("", Scheme::Http, "a.example").as_deref(), Some("plain.example.com:3128"));
        assert_eq!(way("", Scheme::Https, "a.example").as_deref(), Some("[2001:db8::1]:80"));
        let target = Target::parse("a.example", Some(443)).expect("a target");
        assert_eq!(on_the_way(&Proxies::default(), Scheme::Https, &target), None);
    }

    #[test]
    fn who_is_reached_without_one_is_as_go_has_it() {
        let list =
            "one.example, .below.example,*.star.example,10.0.0.0/8,192.0.2.7,port.example:5000,2001:db8::/32";
        let goes_past = |target| way(list, Scheme::Https, target).is_none();
        for target in [
            "one.example",
            "a.one.example:5000",
            "a.below.example",
            "a.star.example",
            "10.1.2.3",
            "192.0.2.7:5000",
            "port.example:5000",
            "[2001:db8::9]",
            "localhost:5000",
            "127.0.0.1",
        ] {
            assert!(goes_past(target), "{target}");
        }
        for target in [
            "one.example.org",
            "none.example",
            "below.example",
            "star.example",
            "11.0.0.1",
            "192.0.2.8",
            "port.example",
            "[2001:db9::9]",
            "other.example",
        ] {
            assert!(!goes_past(target), "{target}");
        }
    }
}
