//! A socket on the host for a port, or why there is none: in words for whoever typed `docker run`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use eci_contract::ports::Protocol;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, listen as start_listening, socket_with, sockopt,
};
use tokio::net::{TcpListener, UdpSocket};

use super::place::Place;

/// Connections that wait to be accepted; more are as good as lost. What other servers have.
const BACKLOG: i32 = 1024;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else has it: a program of the host, or another instance.
    #[error(
        "port {port}/{protocol} of the host is in use at {ip}; stop what uses it, or publish another one"
    )]
    InUse {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// The address.
        ip: IpAddr,
    },
    /// The host's user may not have it.
    #[error(
        "port {port}/{protocol} of the host is for root alone; publish one from 1024 on, or allow it: \
         `sudo sysctl net.ipv4.ip_unprivileged_port_start={port}`"
    )]
    Privileged {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
    },
    /// The address belongs to another machine, or to none.
    #[error("the host has no address {ip}; leave it out, or publish on one that the host has")]
    NoAddress {
        /// The address.
        ip: IpAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address} of the host")]
    Listen {
        /// Address and port.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A socket that connections or datagrams come in by.
#[derive(Debug)]
pub enum Socket {
    /// Connections.
    Tcp(TcpListener),
    /// Datagrams.
    Udp(UdpSocket),
}

/// Listens; `None` when the host has no such address and the place is not needed.
///
/// # Errors
/// [`Error`].
pub fn listen(protocol: Protocol, place: Place) -> Result<Option<Socket>, Error> {
    match open(protocol, place.address) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if is_absent(&error) && !place.needed => Ok(None),
        Err(error) => Err(explain(error, protocol, place.address)),
    }
}

fn open(protocol: Protocol, address: SocketAddr) -> io::Result<Socket> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket: OwnedFd = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if address.is_ipv6() {
        // The engine publishes for each family by itself.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Tcp {
        // Or connections that have just ended would keep the port.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    match protocol {
        Protocol::Tcp => {
            start_listening(&socket, BACKLOG)?;
            TcpListener::from_std(socket.into()).map(Socket::Tcp)
        }
        Protocol::Udp => UdpSocket::from_std(socket.into()).map(Socket::Udp),
    }
}

/// No such address, or no such family at all.
fn is_absent(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

fn explain(error: io::Error, protocol: Protocol, address: SocketAddr) -> Error {
    let (ip, port) = (address.ip(), address.port());
    match Errno::from_io_error(&error) {
        Some(Errno::ADDRINUSE) => Error::InUse { port, protocol, ip },
        Some(Errno::ACCESS) => Error::Privileged { port, protocol },
        _ if is_absent(&error) => Error::NoAddress { ip },
        _ => Error::Listen { address, source: error },
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn place(address: &str) -> Place {
        Place { address: address.parse().expect("an address"), needed: true }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_said_to_be_so() {
        for protocol in Protocol::ALL {
            let first = listen(protocol, place("127.0.0.1:0")).expect("free").expect("needed");
            let address = match &first {
                Socket::Tcp(listener) => listener.local_addr(),
                Socket::Udp(socket) => socket.local_addr(),
            };
            let taken = Place { address: address.expect("bound"), needed: true };
            let error = listen(protocol, taken).expect_err("taken").to_string();
            let port = taken.address.port();
            assert_eq!(
                error,
                format!(
                    "port {port}/{protocol} of the host is in use at 127.0.0.1; stop what uses it, or publish another one"
                )
            );
            drop(first);
            // A program that another test starts has the socket until it is loaded.
            let end = Instant::now() + Duration::from_secs(5);
            while let Err(error) = listen(protocol, taken) {
                assert!(Instant::now() < end, "not free again: {error}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    #[tokio::test]
    async fn an_address_that_the_host_does_not_have_matters_only_where_it_is_needed() {
        let mut place = place("192.0.2.1:80");
        let error = listen(Protocol::Tcp, place).expect_err("another machine's").to_string();
        assert!(error.starts_with("the host has no address 192.0.2.1; "), "{error}");
        place.needed = false;
        assert!(listen(Protocol::Tcp, place).expect("left out").is_none());
    }

    #[test]
    fn each_reason_has_its_fix() {
        let explained = |errno: Errno| {
            explain(errno.into(), Protocol::Tcp, "127.0.0.1:80".parse().expect("an address")).to_string()
        };
        assert!(explained(Errno::ACCESS).contains("sysctl net.ipv4.ip_unprivileged_port_start=80"));
        assert_eq!(explained(Errno::NOBUFS), "cannot listen on 127.0.0.1:80 of the host");
    }
}
