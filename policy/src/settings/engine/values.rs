//! Texts that the engine understands: URLs, names, sizes.
//!
//! Stricter than dockerd: what it would not start with is found here, and what it would silently change is not accepted.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::keys::Wrong;
use super::network::parse_cidr;

/// Domains that are searched: glibc before 2.26 reads no more from `resolv.conf`, and other libraries in images still do not.
pub const MOST_NAMES: usize = 6;
/// Most bytes of a URL or of a list in one text: browsers and proxies take no more.
const MOST_BYTES: usize = 2048;

/// Whether a URL may have a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paths {
    /// It may.
    Allowed,
    /// It ends with the host.
    Refused,
}

/// Judges an `http` or `https` URL.
///
/// # Errors
/// What is wrong with it.
pub fn judge_url(text: &str, paths: Paths) -> Result<(), Wrong> {
    const FIX: &str = "write it as http://proxy.example.com:3128";
    let wrong = |reason| Err(Wrong { reason, fix: FIX });
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return wrong("it is not a URL of http or https");
    };
    if text.len() > MOST_BYTES {
        return wrong("it is longer than 2048 bytes");
    }
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    if authority.contains('@') {
        return wrong("a name or password in it could be read by all who have the image");
    }
    if !is_authority(authority) {
        return wrong("its host is not a name or address with or without a port");
    }
    let is_path = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
    if !path.chars().all(is_path) || path.split('/').any(|part| part == "..") {
        return wrong("its path is not one of letters, digits, `/`, `-`, `.`, `_` and `~`");
    }
    match (paths, path) {
        (Paths::Allowed, _) | (Paths::Refused, "" | "/") => Ok(()),
        (Paths::Refused, _) => wrong("a proxy has no path"),
    }
}

/// Judges the URL of a mirror.
///
/// # Errors
/// What is wrong with it.
pub fn judge_mirror(text: &str) -> Result<(), Wrong> {
    judge_url(text, Paths::Allowed)
        .map_err(|wrong| Wrong { fix: "write it as https://mirror.example.com", ..wrong })
}

/// Judges a registry that is used without a trusted certificate: a host, or a network of hosts.
///
/// # Errors
/// What is wrong with it.
pub fn judge_registry(text: &str) -> Result<(), Wrong> {
    const FIX: &str = "write it as registry.example.com:5000 or 192.0.2.0/24";
    match parse_cidr(text) {
        Some((_, 0)) => Err(Wrong { reason: "that is every registry", fix: FIX }),
        Some(_) => Ok(()),
        None if text.len() <= MOST_BYTES && is_authority(text) => Ok(()),
        None => Err(Wrong { reason: "it is neither a host with or without a port nor a network", fix: FIX }),
    }
}

/// Judges who is reached without the proxy: names, domains, addresses and networks with commas between.
///
/// # Errors
/// What is wrong with it.
pub fn judge_bypass(text: &str) -> Result<(), Wrong> {
    const FIX: &str = "write names, .domains, addresses and networks with commas between";
    let entry = |entry: &str| {
        let host = entry.strip_prefix("*.").or_else(|| entry.strip_prefix('.')).unwrap_or(entry);
        parse_cidr(entry).is_some_and(|(_, prefix)| prefix > 0)
            || is_authority(host)
            || entry.parse::<Ipv6Addr>().is_ok()
    };
    if text.len() <= MOST_BYTES && text.split(',').all(|text| entry(text.trim_matches(' '))) {
        return Ok(());
    }
    Err(Wrong { reason: "an entry is no host, domain, address or network", fix: FIX })
}

/// Judges a domain that short names are looked up in.
///
/// # Errors
/// What is wrong with it.
pub fn judge_domain(text: &str) -> Result<(), Wrong> {
    if is_name(text) {
        return Ok(());
    }
    Err(Wrong { reason: "it is not the name of a domain", fix: "write it as corp.example.com" })
}

/// Options of resolv.conf(5) without a value.
const RESOLVER_SWITCHES: [&str; 10] = [
    "debug",
    "edns0",
    "no-aaaa",
    "no-check-names",
    "no-reload",
    "no-tld-query",
    "rotate",
    "single-request",
    "single-request-reopen",
    "trust-ad",
];
/// Options of resolv.conf(5) with a number, and the most that the resolver takes.
const RESOLVER_NUMBERS: [(&str, u32); 3] = [("attempts", 5), ("ndots", 15), ("timeout", 30)];

/// Judges an option of resolv.conf(5).
///
/// # Errors
/// What is wrong with it.
pub fn judge_resolver_option(text: &str) -> Result<(), Wrong> {
    const FIX: &str =
        "write one of them as there, such as ndots:1, timeout:2 (at most 30), attempts:3 (at most 5), use-vc";
    let is_number = |(name, value): (&str, &str)| {
        let most = RESOLVER_NUMBERS.iter().find(|(option, _)| *option == name).map(|(_, most)| *most);
        let value: Option<u32> = value.parse().ok().filter(|number: &u32| number.to_string() == value);
        most.zip(value).is_some_and(|(most, value)| value <= most)
    };
    if RESOLVER_SWITCHES.contains(&text) || text == "use-vc" || text.split_once(':').is_some_and(is_number) {
        return Ok(());
    }
    Err(Wrong { reason: "it is not an option of resolv.conf(5)", fix: FIX })
}

/// Judges the name of a log driver.
///
/// # Errors
/// What is wrong with it.
pub fn judge_log_driver(text: &str) -> Result<(), Wrong> {
    match text {
        "json-file" | "local" => Ok(()),
        _ => Err(Wrong {
            reason: "logs are kept in files, so that `docker logs` has them and they have limits",
            fix: "write json-file or local",
        }),
    }
}

/// Judges the size of a log file.
///
/// # Errors
/// What is wrong with it.
pub fn judge_size(text: &str) -> Result<(), Wrong> {
    let number = text.strip_suffix(['k', 'm', 'g']).filter(|number| is_count(number, 9999));
    match number {
        Some(_) => Ok(()),
        None => Err(Wrong {
            reason: "it is not a size",
            fix: "write a number from 1 to 9999 with k, m or g, such as 10m",
        }),
    }
}

/// Judges how many log files are kept. The driver `local` packs all but the last, and does not start with one alone.
///
/// # Errors
/// What is wrong with it.
pub fn judge_files(text: &str) -> Result<(), Wrong> {
    if is_count(text, 100) && text != "1" {
        return Ok(());
    }
    Err(Wrong {
        reason: "it is not a number of files",
        fix: "write a number from 2 to 100 in quotes, such as \"3\"",
    })
}

/// A number from 1 to `most`, written in one way.
pub(crate) fn is_count(text: &str, most: u32) -> bool {
    let number: Option<u32> = text.parse().ok();
    number.is_some_and(|number| (1..=most).contains(&number) && number.to_string() == text)
}

/// A host with or without a port.
fn is_authority(text: &str) -> bool {
    let is_port = |port: &str| is_count(port, u16::MAX.into());
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let is_address = address.parse::<Ipv6Addr>().is_ok();
        return is_address && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    match text.split_once(':') {
        Some((host, port)) => is_host(host) && is_port(port),
        None => is_host(text),
    }
}

fn is_host(text: &str) -> bool {
    // A name whose last label is a number is read as an address, or as none.
    let looks_like_address =
        text.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if looks_like_address { text.parse::<Ipv4Addr>().is_ok() } else { is_name(text) }
}

/// A name of DNS (RFC 1123, 2.1).
pub(crate) fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        inner && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(judge: fn(&str) -> Result<(), Wrong>, good: &[&str], bad: &[&str]) {
        good.iter().for_each(|text| assert_eq!(judge(text), Ok(()), "{text}"));
        bad.iter().for_each(|text| assert!(judge(text).is_err(), "{text}"));
    }

    #[test]
    fn a_proxy_is_a_host_with_scheme() {
        check(
            |text| judge_url(text, Paths::Refused),
            &[
                "http://proxy:3128",
                "https://proxy.example.com",
                "http://192.0.2.1:80/",
                "http://[2001:db8::1]:3128",
            ],
            &[
                "",
                "proxy:3128",
                "socks5://proxy",
                "http://",
                "http://:80",
                "http://proxy:0",
                "http://proxy:65536",
                "http://proxy:080",
                "http://proxy/path",
                "http://proxy?x",
                "http://proxy#x",
                "http://a b",
                "http://proxy\n",
                "http://[::1",
                "http://[x]:1",
                "http://256.0.2.1",
                "http://192.0.2",
                "http://-proxy",
                "http://proxy..x",
                "http://pro_xy",
                "HTTP://proxy",
            ],
        );
        let secret = judge_url("http://name:secret@proxy:3128", Paths::Refused).unwrap_err();
        assert!(secret.reason.contains("could be read by all who have the image"));
    }

    #[test]
    fn a_mirror_may_have_a_path() {
        let long = format!("https://mirror.example.com/{}", "x".repeat(MOST_BYTES));
        check(
            judge_mirror,
            &["https://mirror.example.com", "http://mirror:5000/", "https://mirror.example.com/hub/v1.2"],
            &[
                "mirror.example.com",
                "https://mirror/?a=b",
                "https://mirror/a%2f..",
                "https://mirror/a/../b",
                "https://u@mirror",
                &long,
            ],
        );
    }

    #[test]
    fn a_registry_is_a_host_or_a_network() {
        check(
            judge_registry,
            &[
                "registry.example.com",
                "registry:5000",
                "192.0.2.7:5000",
                "192.0.2.0/24",
                "2001:db8::/32",
                "[2001:db8::7]:5000",
            ],
            &[
                "",
                "http://registry",
                "registry/path",
                "0.0.0.0/0",
                "::/0",
                "192.0.2.7/24",
                "registry:",
                "registry:x",
                "*",
                "a,b",
            ],
        );
    }

    #[test]
    fn what_goes_past_the_proxy_is_a_list() {
        check(
            judge_bypass,
            &[
                "localhost",
                "localhost,127.0.0.1, .example.com,*.example.org,10.0.0.0/8,registry:5000,::1",
                "2001:db8::/32",
            ],
            &["", "*", "a,,b", "a;b", "a b", "10.0.0.1/8", "0.0.0.0/0", "http://a", "a\nb"],
        );
    }

    #[test]
    fn resolvers_are_told_what_they_understand() {
        check(
            judge_resolver_option,
            &[
                "ndots:0",
                "ndots:15",
                "timeout:30",
                "attempts:1",
                "rotate",
                "use-vc",
                "edns0",
                "single-request-reopen",
            ],
            &[
                "",
                "ndots",
                "ndots:16",
                "ndots:01",
                "timeout:31",
                "attempts:6",
                "rotate:1",
                "rotate\nnameserver 192.0.2.1",
                "inet6",
            ],
        );
        check(
            judge_domain,
            &["example", "corp.example.com", "1.example"],
            &["", ".", ".example", "example.", "a b", "a_b", "-a", "a-", "exämple", &"a".repeat(64)],
        );
    }

    #[test]
    fn logs_have_limits() {
        check(
            judge_size,
            &["1k", "10m", "9999g"],
            &["", "10", "m", "0m", "-1", "-1m", "10mb", "10M", "1.5g", "01m", "10000m"],
        );
        check(judge_files, &["2", "100"], &["", "0", "1", "101", "02", "-1", "3 "]);
        check(
            judge_log_driver,
            &["json-file", "local"],
            &["", "none", "syslog", "journald", "Local", "/path/plugin"],
        );
    }
}
