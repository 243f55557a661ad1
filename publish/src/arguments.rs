//! What the engine asks for, in the words of `docker-proxy`.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use eci_contract::ports::{Announcement, Protocol};

/// Why the engine's words are not understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A flag that `docker-proxy` of this engine does not have.
    #[error("`{flag}` is not understood")]
    Unknown {
        /// The flag.
        flag: String,
    },
    /// A flag is missing, or has no value.
    #[error("`{flag}` is missing")]
    Missing {
        /// The flag.
        flag: &'static str,
    },
    /// A value is not of its kind.
    #[error("`{flag} {value}` is not understood")]
    Value {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
    },
    /// A transport that is not carried.
    #[error("ports of {protocol} cannot be published: only TCP and UDP are carried to the host")]
    Protocol {
        /// Its name.
        protocol: String,
    },
    /// A port that nobody can connect to.
    #[error("port 0 cannot be published")]
    Zero,
}

const PROTOCOL: &str = "-proto";
const HOST_IP: &str = "-host-ip";
const HOST_PORT: &str = "-host-port";
const CONTAINER_IP: &str = "-container-ip";
const CONTAINER_PORT: &str = "-container-port";
const FLAGS: [&str; 5] = [PROTOCOL, HOST_IP, HOST_PORT, CONTAINER_IP, CONTAINER_PORT];

/// Reads the arguments, the program's name left out.
///
/// # Errors
/// [`Error`].
pub fn parse(arguments: &[String]) -> Result<Announcement, Error> {
    for pair in arguments.chunks(2) {
        let flag = pair.first().map(String::as_str).unwrap_or_default();
        if !FLAGS.contains(&flag) {
            return Err(Error::Unknown { flag: flag.to_owned() });
        }
    }
    let name = value(arguments, PROTOCOL)?;
    let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.name() == name);
    let protocol = protocol.ok_or_else(|| Error::Protocol { protocol: name.to_owned() })?;
    let host = address(arguments, HOST_IP, HOST_PORT)?;
    let container = address(arguments, CONTAINER_IP, CONTAINER_PORT)?;
    if host.port() == 0 || container.port() == 0 {
        Err(Error::Zero)
    } else {
        Ok(Announcement { protocol, host, container })
    }
}

fn address(arguments: &[String], ip: &'static str, port: &'static str) -> Result<SocketAddr, Error> {
    Ok(SocketAddr::new(parsed::<IpAddr>(arguments, ip)?, parsed(arguments, port)?))
}

fn parsed<T: FromStr>(arguments: &[String], flag: &'static str) -> Result<T, Error> {
    let value = value(arguments, flag)?;
    value.parse().map_err(|_| Error::Value { flag, value: value.to_owned() })
}

/// The last one counts, as everywhere.
fn value<'a>(arguments: &'a [String], flag: &'static str) -> Result<&'a str, Error> {
    let mut pairs = arguments.chunks_exact(2).rev();
    let found = pairs.find_map(|pair| match pair {
        [name, value] if name == flag => Some(value.as_str()),
        _ => None,
    });
    found.ok_or(Error::Missing { flag })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    const REST: &str = "-host-port 8080 -container-ip 172.17.0.2 -container-port 80";

    #[test]
    fn the_engine_s_words_are_understood() {
        let read = parse(&words(&format!("-proto tcp -host-ip 0.0.0.0 {REST}"))).expect("understood");
        assert_eq!(read.protocol, Protocol::Tcp);
        assert_eq!(
            (read.host.to_string(), read.container.to_string()),
            ("0.0.0.0:8080".into(), "172.17.0.2:80".into())
        );
        let read = parse(&words(&format!("-proto udp -host-ip :: {REST}"))).expect("understood");
        assert_eq!((read.protocol, read.host.to_string()), (Protocol::Udp, "[::]:8080".into()));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (text, error) in [
            ("", "`-proto` is missing"),
            ("-proto", "`-proto` is missing"),
            (
                "-proto tcp -host-ip 0.0.0.0 -host-port 8080 -container-ip 172.17.0.2",
                "`-container-port` is missing",
            ),
            ("-use-listen-fd -proto tcp", "`-use-listen-fd` is not understood"),
        ] {
            assert_eq!(parse(&words(text)).expect_err("refused").to_string(), error, "{text}");
        }
        for (start, error) in [
            ("-proto tcp -host-ip localhost", "`-host-ip localhost` is not understood"),
            ("-proto tcp -host-ip 1.2.3", "`-host-ip 1.2.3` is not understood"),
            (
                "-proto sctp -host-ip ::",
                "ports of sctp cannot be published: only TCP and UDP are carried to the host",
            ),
        ] {
            let text = format!("{start} {REST}");
            assert_eq!(parse(&words(&text)).expect_err("refused").to_string(), error, "{text}");
        }
        for (port, error) in [
            ("65536", "`-host-port 65536` is not understood"),
            ("-1", "`-host-port -1` is not understood"),
            ("0", "port 0 cannot be published"),
        ] {
            let text = format!("-proto tcp -host-ip :: {REST} -host-port {port}");
            assert_eq!(parse(&words(&text)).expect_err("refused").to_string(), error, "{text}");
        }
    }
}
