//! Where on the host a container's port may be.

use std::net::{IpAddr, SocketAddr};

use eci_contract::ports::{on_loopback, plain};

/// Addresses of the host that ports may be published on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublishOn {
    /// Those that this host alone reaches.
    #[default]
    Loopback,
    /// Whatever the container asks for: every address of the host, unless `-p` names one.
    All,
}

/// Why a port may not be where it is wanted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The user has not allowed it.
    #[error(
        "port {port} is wanted at {ip}, which is not on the loopback of the host: others could reach it; \
         `eci-builder run --publish-on all` allows that"
    )]
    NotLoopback {
        /// The port.
        port: u16,
        /// The address.
        ip: IpAddr,
    },
}

/// A place for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Address and port.
    pub address: SocketAddr,
    /// The engine publishes for IPv6 what is published for every address, whether or not the host has IPv6.
    pub needed: bool,
}

impl PublishOn {
    /// The place for a port that is wanted at an address.
    ///
    /// # Errors
    /// [`Error`].
    pub fn place(self, wanted: SocketAddr) -> Result<Place, Error> {
        let wanted = plain(wanted);
        let (ip, port) = (wanted.ip(), wanted.port());
        let needed = !(ip.is_unspecified() && ip.is_ipv6());
        let ip = match self {
            Self::All => ip,
            Self::Loopback => on_loopback(ip).ok_or(Error::NotLoopback { port, ip })?,
        };
        Ok(Place { address: SocketAddr::new(ip, port), needed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(on: PublishOn, wanted: &str) -> Result<(String, bool), Error> {
        let place = on.place(wanted.parse().expect("an address"))?;
        Ok((place.address.to_string(), place.needed))
    }

    #[test]
    fn without_leave_everything_is_on_loopback_or_refused() {
        for (wanted, given, needed) in [
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::]:80", "[::1]:80", false),
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.8.8.8:80", "127.8.8.8:80", true),
            ("[::1]:80", "[::1]:80", true),
            ("[::ffff:0.0.0.0]:80", "127.0.0.1:80", true),
        ] {
            assert_eq!(place(PublishOn::Loopback, wanted), Ok((given.to_owned(), needed)), "{wanted}");
        }
        for wanted in [
            "192.0.2.1:80",
            "[::ffff:192.0.2.1]:80",
            "[2001:db8::1]:80",
            "255.255.255.255:80",
            "224.0.0.1:80",
        ] {
            let error = place(PublishOn::Loopback, wanted).expect_err("not loopback");
            assert!(error.to_string().contains("--publish-on all"), "{error}");
        }
    }

    #[test]
    fn with_leave_a_port_is_where_it_is_wanted() {
        for (wanted, needed) in
            [("0.0.0.0:80", true), ("[::]:80", false), ("127.0.0.1:80", true), ("192.0.2.1:80", true)]
        {
            assert_eq!(place(PublishOn::All, wanted), Ok((wanted.to_owned(), needed)), "{wanted}");
        }
    }
}
