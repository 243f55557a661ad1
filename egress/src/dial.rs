//! Whom to connect to.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use eci_policy::rules::proxy::{Scheme, on_the_way};
use eci_policy::rules::registry::{Host, Target, misleads};

use super::Way;
use super::request::{MOST_BYTES, Request, end_of_head};
use super::response::status;

/// How long an address may take to accept: retries of a lost packet come after 1, 3 and 7 seconds.
const CONNECT: Duration = Duration::from_secs(10);
/// Addresses of a name that are tried.
const MOST_ADDRESSES: usize = 8;
/// How long another proxy may take to connect: it tries addresses, too.
const PROXY_ANSWER: Duration = Duration::from_secs(60);

/// Why somebody is not reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody knows the name.
    #[error("cannot find the address of {host}")]
    Name {
        /// The name.
        host: Host,
        /// What the resolver said.
        source: io::Error,
    },
    /// The name leads where none may.
    #[error("{host} has the address {address}, which is {what}; name the registry by one that others reach")]
    Misleads {
        /// The name.
        host: Host,
        /// Its address.
        address: IpAddr,
        /// What that is.
        what: &'static str,
    },
    /// No address accepts.
    #[error("cannot connect to {target}")]
    Connect {
        /// Who.
        target: Target,
        /// What the system said of the last address.
        source: io::Error,
    },
    /// The connection to the administrator's proxy broke.
    #[error("the proxy {proxy} gave no answer")]
    Silent {
        /// Which.
        proxy: Target,
        /// What the system said.
        source: io::Error,
    },
    /// The administrator's proxy does not connect.
    #[error("the proxy {proxy} answered {code} {reason}")]
    Proxy {
        /// Which.
        proxy: Target,
        /// The status.
        code: u16,
        /// The reason.
        reason: String,
    },
}

/// A connection that leads to the server.
#[derive(Debug)]
pub struct Reached {
    /// To the server, or to a proxy.
    pub server: TcpStream,
    /// What it is sent before anything else.
    pub first: Vec<u8>,
    /// What came from it already.
    pub came: Vec<u8>,
}

/// Connects to whom a request that may be served is for, by the administrator's proxy where there is one.
///
/// # Errors
/// [`Error`].
pub fn reach(request: &Request, way: &Way) -> Result<Reached, Error> {
    let Some(proxy) = on_the_way(&way.proxies, request.scheme, &request.target) else {
        let server = connect(&request.target)?;
        return Ok(Reached { server, first: request.to_server.clone(), came: Vec::new() });
    };
    let mut server = connect(&proxy)?;
    if request.scheme == Scheme::Http {
        return Ok(Reached { server, first: request.to_proxy.clone(), came: Vec::new() });
    }
    let asked = ask(&mut server, &request.to_proxy);
    let (code, reason, came) = asked.map_err(|source| Error::Silent { proxy: proxy.clone(), source })?;
    if (200..300).contains(&code) {
        Ok(Reached { server, first: Vec::new(), came })
    } else {
        Err(Error::Proxy { proxy, code, reason })
    }
}

fn connect(target: &Target) -> Result<TcpStream, Error> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses(target)? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(Error::Connect { target: target.clone(), source: last })
}

fn addresses(target: &Target) -> Result<Vec<SocketAddr>, Error> {
    let name = match &target.host {
        // On the list by itself.
        Host::Address(address) => return Ok(vec![SocketAddr::new(*address, target.port)]),
        Host::Name(name) => name,
    };
    let found = (name.as_str(), target.port).to_socket_addrs();
    let found = found.map_err(|source| Error::Name { host: target.host.clone(), source })?;
    let found: Vec<_> = found.take(MOST_ADDRESSES).collect();
    // One that misleads spoils the others: whoever answers for the name is not to be trusted.
    let bad = found.iter().find_map(|address| misleads(address.ip()).map(|what| (address.ip(), what)));
    match bad.filter(|_| name != "localhost") {
        Some((address, what)) => Err(Error::Misleads { host: target.host.clone(), address, what }),
        None => Ok(found),
    }
}

/// Asks a proxy for a tunnel; gives status, reason, and what came behind the head.
fn ask(proxy: &mut TcpStream, head: &[u8]) -> io::Result<(u16, String, Vec<u8>)> {
    proxy.set_read_timeout(Some(PROXY_ANSWER))?;
    proxy.write_all(head)?;
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let length = proxy.read(&mut part)?;
        if length == 0 || bytes.len() > MOST_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(part.get(..length).unwrap_or_default());
        if let Some(end) = end_of_head(&bytes) {
            let came = bytes.split_off(end);
            let (code, reason) = status(&bytes).ok_or(io::ErrorKind::InvalidData)?;
            proxy.set_read_timeout(None)?;
            return Ok((code, reason, came));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_to_the_machine_itself_is_refused() {
        // Of all names of this machine's own, the one that every machine has.
        let target = |text| Target::parse(text, None).unwrap();
        assert!(addresses(&target("localhost:5000")).is_ok());
        assert_eq!(addresses(&target("127.0.0.1:5000")).unwrap(), ["127.0.0.1:5000".parse().unwrap()]);
        let error = Error::Misleads {
            host: "registry.example.com".parse().unwrap(),
            address: "127.0.0.1".parse().unwrap(),
            what: "the VM itself",
        };
        assert_eq!(
            error.to_string(),
            "registry.example.com has the address 127.0.0.1, which is the VM itself; name the registry by one that others reach"
        );
    }
}
