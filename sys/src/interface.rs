//! IPv4 set-up of a network interface by the classic socket ioctls of `netdevice(7)`.

use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A socket to configure interfaces through. It sends and receives nothing.
#[derive(Debug)]
pub struct Configurator {
    socket: OwnedFd,
}

impl Configurator {
    /// Opens the socket.
    ///
    /// # Errors
    /// When the kernel has no IPv4.
    #[expect(unsafe_code, reason = "kept beside the ioctls that it is for")]
    pub fn open() -> io::Result<Self> {
        // SAFETY: takes three integers and touches no memory of ours.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made by the kernel, is valid, and nothing else owns it.
        Ok(Self { socket: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn bring_up(&self, name: &str) -> io::Result<()> {
        let mut request = named(name)?;
        let flags = libc::IFF_UP | libc::IFF_RUNNING;
        request.ifr_ifru.ifru_flags =
            i16::try_from(flags).expect("invariant: both flags are in the low byte");
        self.call(libc::SIOCSIFFLAGS, &mut request)
    }

    /// Sets the address and its prefix length; the unspecified address takes the old one away.
    ///
    /// # Errors
    /// When the interface is missing or the kernel refuses the address.
    pub fn set_address(&self, name: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut request = named(name)?;
        request.ifr_ifru.ifru_addr = socket_address(address);
        self.call(libc::SIOCSIFADDR, &mut request)?;
        if address.is_unspecified() {
            return Ok(());
        }
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
        let mut request = named(name)?;
        request.ifr_ifru.ifru_netmask = socket_address(Ipv4Addr::from(mask));
        self.call(libc::SIOCSIFNETMASK, &mut request)
    }

    /// Sets the largest packet in bytes.
    ///
    /// # Errors
    /// When the driver does not take that size.
    pub fn set_mtu(&self, name: &str, mtu: u16) -> io::Result<()> {
        let mut request = named(name)?;
        request.ifr_ifru.ifru_mtu = i32::from(mtu);
        self.call(libc::SIOCSIFMTU, &mut request)
    }

    /// Sends what has no nearer route to `gateway`. A default route by the same gateway is no error.
    ///
    /// # Errors
    /// When the gateway is not on a network of ours.
    #[expect(unsafe_code, reason = "routes are set by ioctl")]
    pub fn add_default_route(&self, gateway: Ipv4Addr) -> io::Result<()> {
        // SAFETY: `rtentry` is a C structure of integers, addresses and a nullable pointer; all zero is valid.
        let mut route: libc::rtentry = unsafe { mem::zeroed() };
        route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_gateway = socket_address(gateway);
        route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
        // SAFETY: the kernel reads one `rtentry` at the pointer, alive until the call returns; its only pointer,
        // `rt_dev`, is null, which means "any interface". `socket` is open.
        if unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCADDRT, &raw const route) } == 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            err if err.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            err => Err(err),
        }
    }

    #[expect(unsafe_code, reason = "netdevice(7) is an ioctl interface")]
    fn call(&self, request: libc::Ioctl, argument: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: every request sent here takes a pointer to one `ifreq`, which is alive and exclusively borrowed
        // until the call returns; its name is NUL-terminated (see `named`). `socket` is open.
        match unsafe { libc::ioctl(self.socket.as_raw_fd(), request, argument) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[expect(unsafe_code, reason = "a C structure with unions has no safe constructor")]
fn named(name: &str) -> io::Result<libc::ifreq> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: `ifreq` is a C structure of integers, addresses and nullable pointers; all zero is a valid value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let family = libc::sa_family_t::try_from(libc::AF_INET).expect("invariant: AF_INET is 2");
    let mut data = [0; 14];
    // `sockaddr_in`: two bytes of port, then the address.
    for (to, from) in data.iter_mut().skip(2).zip(address.octets()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    libc::sockaddr { sa_family: family, sa_data: data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_sits_after_the_port() {
        let data = socket_address(Ipv4Addr::new(10, 0, 2, 15)).sa_data.map(|byte| byte.to_ne_bytes()[0]);
        assert_eq!(data[..6], [0, 0, 10, 0, 2, 15]);
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        assert!(named("").is_err());
        assert!(named("sixteen-letters!").is_err());
        assert!(named("eth0").is_ok());
    }
}
