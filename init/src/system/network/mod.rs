//! The network: host name and loopback by PID 1, the address by a DHCP client that is a service of its own.
//!
//! The client is smoltcp's DHCPv4 state machine over a packet socket (`phy`): no port is open, and the kernel's
//! filter lets nothing but DHCP and ARP answers in. What it learns is applied in [`lease`]. It is its own process so
//! that whatever a hostile network sends, PID 1 does not parse it.

pub mod lease;
mod phy;

use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use eci_sys::interface::Configurator;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::socket::dhcpv4;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use self::lease::Lease;
use self::phy::PacketDevice;
use super::notify;
use crate::clock;

/// Name of the client in the service table.
pub const SERVICE: &str = "network";

const LOOPBACK: &str = "lo";
/// `ARPHRD_ETHER`: virtio and Hyper-V network cards are of this type.
const ETHERNET: &str = "1";
/// How often the client looks for a card that is not there yet.
const CARD_POLL: Duration = Duration::from_millis(50);
/// The longest sleep of the client, so that a clock step of the state machine is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Why the network is not set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name could not be set.
    #[error("cannot set the host name from `/etc/hostname`")]
    Hostname(#[source] io::Error),
    /// An interface could not be set up.
    #[error("cannot {operation} {interface}")]
    Interface {
        /// What was tried.
        operation: &'static str,
        /// Which.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The resolver configuration could not be written.
    #[error("cannot write `{path}`")]
    Resolver {
        /// Its path.
        path: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Names the machine.
///
/// # Errors
/// When the image has no name.
pub fn set_hostname() -> Result<(), Error> {
    let name = fs::read_to_string("/etc/hostname").map_err(Error::Hostname)?;
    rustix::system::sethostname(name.trim().as_bytes()).map_err(|err| Error::Hostname(err.into()))
}

/// Brings up the loopback interface; the kernel gives it its addresses.
///
/// # Errors
/// When there is no IPv4 in the kernel.
pub fn bring_loopback_up() -> Result<(), Error> {
    let failed = |source| Error::Interface { operation: "bring up", interface: LOOPBACK.into(), source };
    Configurator::open().map_err(failed)?.bring_up(LOOPBACK).map_err(failed)
}

/// Runs the DHCP client. PID 1 starts it again when it ends.
pub fn run() -> ! {
    let code = match set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(io::Error::from) {
        Ok(()) => serve().map_or_else(|err| report(&err), |never| match never {}),
        Err(err) => {
            report(&Error::Interface { operation: "protect", interface: SERVICE.into(), source: err })
        }
    };
    std::process::exit(code)
}

/// Standard error is a pipe into PID 1's log.
fn report(err: &Error) -> i32 {
    use std::io::Write;
    drop(writeln!(io::stderr(), "{}", crate::kmsg::chain(err)));
    1
}

/// A network card.
struct Card {
    name: String,
    index: u32,
    address: EthernetAddress,
}

fn serve() -> Result<std::convert::Infallible, Error> {
    let card = wait_for_card();
    let failed = |operation| {
        let interface = card.name.clone();
        move |source| Error::Interface { operation, interface, source }
    };
    let configurator = Configurator::open().map_err(failed("configure"))?;
    configurator.bring_up(&card.name).map_err(failed("bring up"))?;
    let mut device = PacketDevice::open(card.index).map_err(failed("listen on"))?;
    let mut config = Config::new(HardwareAddress::Ethernet(card.address));
    config.random_seed = random_seed().map_err(failed("choose a transaction for"))?;
    let mut interface = Interface::new(config, &mut device, now());
    // The largest DHCP answer that a server may send without being asked for more is 576 bytes (RFC 2131).
    let mut packet = [0; 1536];
    let mut socket = dhcpv4::Socket::new();
    socket.set_receive_packet_buffer(&mut packet);
    socket.set_parameter_request_list(&lease::REQUESTED_OPTIONS);
    let mut storage = [smoltcp::iface::SocketStorage::EMPTY];
    let mut sockets = SocketSet::new(&mut storage[..]);
    let handle = sockets.add(socket);
    loop {
        interface.poll(now(), &mut device, &mut sockets);
        let lease = sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll().map(|event| match event {
            dhcpv4::Event::Configured(config) => Some(Lease::from(&config)),
            dhcpv4::Event::Deconfigured => None,
        });
        if let Some(lease) = lease {
            follow(&mut interface, lease.as_ref());
            lease::apply(&configurator, &card.name, lease.as_ref())?;
            announce(lease.as_ref());
            continue;
        }
        let delay = interface.poll_delay(now(), &sockets).map_or(LONGEST_SLEEP, Duration::from);
        device.wait(delay.min(LONGEST_SLEEP)).map_err(failed("wait for"))?;
    }
}

/// The address in smoltcp's own view: it needs one to ask for the server's hardware address when it renews.
fn follow(interface: &mut Interface, lease: Option<&Lease>) {
    interface.update_ip_addrs(|addresses| {
        addresses.clear();
        if let Some(lease) = lease {
            let cidr = smoltcp::wire::Ipv4Cidr::new(lease.address, lease.prefix);
            addresses.push(IpCidr::Ipv4(cidr)).expect("invariant: the list was just cleared");
        }
    });
    interface.routes_mut().remove_default_ipv4_route();
    if let Some(router) = lease.and_then(|lease| lease.router) {
        let routes = interface.routes_mut();
        routes.add_default_ipv4_route(router).expect("invariant: the only route was just removed");
    }
}

fn announce(lease: Option<&Lease>) {
    let address = lease.map(Lease::to_string).unwrap_or_default();
    let ready = if lease.is_some() { "READY=1\n" } else { "" };
    let message = format!("{ready}X_ECI_ADDRESS={address}\n");
    if let Ok(socket) = UnixDatagram::unbound() {
        drop(socket.send_to(message.as_bytes(), notify::PATH));
    }
}

fn wait_for_card() -> Card {
    loop {
        if let Some(card) = find_card() {
            return card;
        }
        std::thread::sleep(CARD_POLL);
    }
}

/// The first Ethernet card by name. Bridges and virtual pairs have no `device` behind them.
fn find_card() -> Option<Card> {
    let entries = fs::read_dir("/sys/class/net").ok()?;
    let mut names: Vec<_> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names.into_iter().find_map(|name| {
        let folder = std::path::Path::new("/sys/class/net").join(&name);
        let read = |file: &str| fs::read_to_string(folder.join(file)).ok().map(|text| text.trim().to_owned());
        let real = read("type")? == ETHERNET && folder.join("device").exists();
        let index = read("ifindex")?.parse().ok()?;
        real.then_some(Card { address: parse_hardware_address(&read("address")?)?, index, name })
    })
}

fn parse_hardware_address(text: &str) -> Option<EthernetAddress> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
    Some(EthernetAddress(bytes?.try_into().ok()?))
}

/// Transaction ids must not be guessable by others on the network.
fn random_seed() -> io::Result<u64> {
    let mut seed = [0; 8];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(seed))
}

fn now() -> Instant {
    Instant::from_millis(i64::try_from(clock::boot_ms()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_six_bytes() {
        let address = parse_hardware_address("52:54:00:12:34:56").unwrap();
        assert_eq!(address.0, [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        assert_eq!(parse_hardware_address("52:54:00"), None);
        assert_eq!(parse_hardware_address("not one"), None);
    }

    #[test]
    fn errors_name_the_interface() {
        let source = io::ErrorKind::NotFound.into();
        let error = Error::Interface { operation: "bring up", interface: "eth0".into(), source };
        assert_eq!(error.to_string(), "cannot bring up eth0");
    }
}
