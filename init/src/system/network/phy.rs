//! A network card for smoltcp: frames through the filtered packet socket.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use eci_sys::packet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, write};
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// Largest frame: 1500 bytes and the Ethernet header. DHCP and ARP are far below.
const FRAME_BYTES: usize = 1514;

/// The socket.
#[derive(Debug)]
pub struct PacketDevice {
    socket: OwnedFd,
}

impl PacketDevice {
    /// Opens it on interface `index`.
    pub fn open(index: u32) -> io::Result<Self> {
        Ok(Self { socket: packet::open_dhcp(index)? })
    }

    /// Sleeps until a frame is there, or the time is over.
    pub fn wait(&self, longest: Duration) -> io::Result<()> {
        let timeout = Timespec {
            tv_sec: i64::try_from(longest.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(longest.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(err) => Err(err.into()),
        }
    }
}

impl Device for PacketDevice {
    type RxToken<'a> = Received;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Outgoing<'_>)> {
        let mut frame = vec![0; FRAME_BYTES];
        let length = read(&self.socket, &mut frame).ok()?;
        frame.truncate(length);
        Some((Received(frame), Outgoing(&self.socket)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&self.socket))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES;
        // A server on the same host hands frames over before the card would have filled in the UDP checksum.
        capabilities.checksum = ChecksumCapabilities::default();
        capabilities.checksum.udp = Checksum::Tx;
        capabilities
    }
}

/// A frame that came.
#[derive(Debug)]
pub struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, use_frame: F) -> R {
        use_frame(&self.0)
    }
}

/// A frame to be sent.
#[derive(Debug)]
pub struct Outgoing<'a>(&'a OwnedFd);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut frame = vec![0; length];
        let result = fill(&mut frame);
        // A frame that the card does not take is lost like one on the wire; the state machine sends again.
        let _lost = write(self.0, &frame);
        result
    }
}
