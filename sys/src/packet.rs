//! A packet socket on one interface that only sees what a DHCP client has to see.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Classic BPF: accept ARP replies and unfragmented IPv4 UDP to port 68, drop everything else in the kernel.
/// Offsets count from the start of the Ethernet frame.
const DHCP_ONLY: [(u16, u8, u8, u32); 14] = [
    (0x28, 0, 0, 12),      //  0 load EtherType
    (0x15, 0, 2, 0x0806),  //  1 ARP? else 4
    (0x28, 0, 0, 20),      //  2 load ARP operation
    (0x15, 8, 9, 2),       //  3 a reply? accept, else drop
    (0x15, 0, 8, 0x0800),  //  4 IPv4? else drop
    (0x30, 0, 0, 23),      //  5 load protocol
    (0x15, 0, 6, 17),      //  6 UDP? else drop
    (0x28, 0, 0, 20),      //  7 load flags and fragment offset
    (0x45, 4, 0, 0x1fff),  //  8 a later fragment? drop
    (0xb1, 0, 0, 14),      //  9 X = length of the IP header
    (0x48, 0, 0, 16),      // 10 load UDP destination port
    (0x15, 0, 1, 68),      // 11 the DHCP client's? else drop
    (0x06, 0, 0, 0x40000), // 12 accept
    (0x06, 0, 0, 0),       // 13 drop
];

/// Opens a non-blocking raw packet socket bound to interface `index`, with the DHCP filter attached before it is
/// bound, so that no other packet is ever queued.
///
/// # Errors
/// When the process may not open packet sockets, or there is no such interface.
#[expect(unsafe_code, reason = "packet sockets have no safe wrapper in rustix")]
pub fn open_dhcp(index: u32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes three integers and touches no memory of ours. Protocol 0 receives nothing until bind.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just made by the kernel, is valid, and nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    attach_filter(&socket)?;
    bind(&socket, index)?;
    Ok(socket)
}

#[expect(unsafe_code, reason = "a filter is passed by pointer")]
fn attach_filter(socket: &OwnedFd) -> io::Result<()> {
    let mut filter = DHCP_ONLY.map(|(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k });
    let length = libc::c_ushort::try_from(filter.len()).expect("invariant: the filter has 14 lines");
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    let size = socklen::<libc::sock_fprog>();
    // SAFETY: the kernel reads `size` bytes at `program`, which is one `sock_fprog`, and `len` instructions at
    // `filter`, which has that many; both are alive until the call returns and the kernel keeps a copy.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[expect(unsafe_code, reason = "rustix has no link-layer address")]
fn bind(socket: &OwnedFd, index: u32) -> io::Result<()> {
    // SAFETY: `sockaddr_ll` is a C structure of integers; all zero is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).expect("invariant: AF_PACKET is 17");
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL).expect("invariant: ETH_P_ALL is 3").to_be();
    address.sll_ifindex = i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
    let size = socklen::<libc::sockaddr_ll>();
    // SAFETY: the kernel reads `size` bytes at the pointer, which is one `sockaddr_ll`, alive until it returns.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn socklen<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(mem::size_of::<T>()).expect("invariant: socket structures are small")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter over a frame, as the kernel would; true means the frame is queued.
    fn accepts(frame: &[u8]) -> bool {
        let half = |at: usize| frame.get(at..at + 2).map(|b| u32::from(u16::from_be_bytes([b[0], b[1]])));
        let (mut a, mut x, mut at) = (0_u32, 0_usize, 0_usize);
        loop {
            let (code, jt, jf, k) = DHCP_ONLY[at];
            let position = usize::try_from(k).unwrap();
            at += 1;
            let jump = |taken: bool| usize::from(if taken { jt } else { jf });
            match code {
                0x28 => match half(position) {
                    Some(v) => a = v,
                    None => return false,
                },
                0x48 => match half(x + position) {
                    Some(v) => a = v,
                    None => return false,
                },
                0x30 => match frame.get(position) {
                    Some(v) => a = u32::from(*v),
                    None => return false,
                },
                0xb1 => match frame.get(position) {
                    Some(v) => x = usize::from(v & 0xf) * 4,
                    None => return false,
                },
                0x15 => at += jump(a == k),
                0x45 => at += jump(a & k != 0),
                _ => return k != 0,
            }
        }
    }

    fn udp(port: u16) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        frame[14] = 0x45;
        frame[23] = 17;
        frame[36..38].copy_from_slice(&port.to_be_bytes());
        frame
    }

    #[test]
    fn only_dhcp_answers_and_arp_replies_get_in() {
        let arp = |operation: u8| [&[0; 12][..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation], &[0; 20]].concat();
        assert!(accepts(&udp(68)));
        assert!(accepts(&arp(2)));
        assert!(!accepts(&udp(67)));
        assert!(!accepts(&udp(69)));
        assert!(!accepts(&arp(1)));
    }

    #[test]
    fn other_protocols_and_fragments_stay_out() {
        let mut tcp = udp(68);
        tcp[23] = 6;
        let mut fragment = udp(68);
        fragment[21] = 1;
        let mut ipv6 = udp(68);
        ipv6[12..14].copy_from_slice(&[0x86, 0xdd]);
        assert!(!accepts(&tcp) && !accepts(&fragment) && !accepts(&ipv6) && !accepts(&[0; 10]));
    }
}
