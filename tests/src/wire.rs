//! The other end of a virtual machine's network cable: a DHCP server that does as a script says, and a host that asks who
//! has an address. QEMU sends and takes each Ethernet frame with its length, 4 bytes big-endian, in front.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, EthernetFrame,
    EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

/// The server's address.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SERVER_HARDWARE: EthernetAddress = EthernetAddress([0x02, 0, 0, 0, 0, 1]);
const MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
/// Seconds of a lease (option 51).
const LEASE_SECONDS: u32 = 60;
/// A client asks for its lease again when half of it is over (RFC 2131, 4.4.5).
pub const RENEWS_AFTER: Duration = Duration::from_secs(LEASE_SECONDS as u64 / 2);
/// Pause between two questions for the same address.
const ASKS_AGAIN_AFTER: Duration = Duration::from_millis(300);
/// Largest frame that is taken: Ethernet's, and room for a tag.
const FRAME_BYTES: usize = 1518;

/// What the client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its kind.
    pub kind: DhcpMessageType,
    /// Where the packet was sent from; unspecified when the client has no address.
    pub from: Ipv4Addr,
    /// Where it was sent to: the server, or everybody.
    pub to: Ipv4Addr,
    transaction: u32,
    hardware: EthernetAddress,
}

/// The end of the cable before a machine is at the other.
pub struct Socket(TcpListener);

/// The cable, with a machine at the other end.
pub struct Wire {
    stream: TcpStream,
    /// What the client sent while something else was waited for: it does not ask again for a minute.
    unheard: VecDeque<Asked>,
}

impl Socket {
    /// Listens on the loopback of this host.
    ///
    /// # Errors
    /// When there is no port to be had.
    pub fn open() -> Result<Self> {
        Ok(Self(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?))
    }

    /// QEMU's `-netdev` definition for network `net`.
    ///
    /// # Errors
    /// When the port is not known.
    pub fn netdev(&self) -> Result<String> {
        Ok(format!("socket,id=net,connect=127.0.0.1:{}", self.0.local_addr()?.port()))
    }

    /// Waits for the machine.
    ///
    /// # Errors
    /// When it does not come.
    pub fn accept(&self) -> Result<Wire> {
        Ok(Wire { stream: self.0.accept()?.0, unheard: VecDeque::new() })
    }
}

impl Wire {
    /// The next message of the client. Who asks for the server's hardware address is told on the way.
    ///
    /// # Errors
    /// When none comes within `deadline`.
    pub fn hear(&mut self, deadline: Duration) -> Result<Asked> {
        if let Some(asked) = self.unheard.pop_front() {
            return Ok(asked);
        }
        let end = Instant::now() + deadline;
        while let Some(frame) = self.receive(end)? {
            if let Some(asked) = parse_dhcp(&frame) {
                return Ok(asked);
            }
            if let Some((client, hardware)) = asks_for(&frame, SERVER) {
                self.send_arp(ArpOperation::Reply, client, hardware)?;
            }
        }
        bail!("no DHCP message within {deadline:?}")
    }

    /// Answers with `kind`: an offer or acknowledgement of `address`, or a refusal.
    ///
    /// # Errors
    /// When the machine has gone.
    pub fn answer(&mut self, asked: &Asked, kind: DhcpMessageType, address: Ipv4Addr) -> Result<()> {
        let grants = kind != DhcpMessageType::Nak;
        let dhcp = DhcpRepr {
            message_type: kind,
            transaction_id: asked.transaction,
            secs: 0,
            client_hardware_address: asked.hardware,
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: if grants { address } else { Ipv4Addr::UNSPECIFIED },
            server_ip: SERVER,
            router: grants.then_some(SERVER),
            subnet_mask: grants.then_some(MASK),
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: false,
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(SERVER),
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: grants.then_some(LEASE_SECONDS),
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        let udp = UdpRepr { src_port: 67, dst_port: 68 };
        let ip = Ipv4Repr {
            src_addr: SERVER,
            dst_addr: Ipv4Addr::BROADCAST,
            next_header: IpProtocol::Udp,
            payload_len: udp.header_len() + dhcp.buffer_len(),
            hop_limit: 64,
        };
        let checksums = ChecksumCapabilities::default();
        let mut packet = vec![0; ip.buffer_len() + ip.payload_len];
        ip.emit(&mut Ipv4Packet::new_unchecked(&mut packet), &checksums);
        let fill = |payload: &mut [u8]| {
            dhcp.emit(&mut DhcpPacket::new_unchecked(payload))
                .expect("the buffer has the length that was asked for");
        };
        let (from, to) = (ip.src_addr.into(), ip.dst_addr.into());
        let mut datagram = UdpPacket::new_unchecked(&mut packet[ip.buffer_len()..]);
        udp.emit(&mut datagram, &from, &to, dhcp.buffer_len(), fill, &checksums);
        self.send(asked.hardware, EthernetProtocol::Ipv4, &packet)
    }

    /// Whether a machine answers for `address` within `deadline`; it is asked again and again, for it may be about to take it.
    ///
    /// # Errors
    /// When the machine has gone.
    pub fn has(&mut self, address: Ipv4Addr, deadline: Duration) -> Result<bool> {
        let end = Instant::now() + deadline;
        while Instant::now() < end {
            self.send_arp(ArpOperation::Request, address, EthernetAddress::BROADCAST)?;
            let next = end.min(Instant::now() + ASKS_AGAIN_AFTER);
            while let Some(frame) = self.receive(next)? {
                if answers_for(&frame, address) {
                    return Ok(true);
                }
                self.unheard.extend(parse_dhcp(&frame));
            }
        }
        Ok(false)
    }

    fn send_arp(&mut self, operation: ArpOperation, to: Ipv4Addr, hardware: EthernetAddress) -> Result<()> {
        let arp = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: SERVER_HARDWARE,
            source_protocol_addr: SERVER,
            target_hardware_addr: hardware,
            target_protocol_addr: to,
        };
        let mut packet = vec![0; arp.buffer_len()];
        arp.emit(&mut ArpPacket::new_unchecked(&mut packet));
        self.send(hardware, EthernetProtocol::Arp, &packet)
    }

    fn send(&mut self, to: EthernetAddress, ethertype: EthernetProtocol, payload: &[u8]) -> Result<()> {
        let header = EthernetRepr { src_addr: SERVER_HARDWARE, dst_addr: to, ethertype };
        let length = header.buffer_len() + payload.len();
        let mut message = u32::try_from(length)?.to_be_bytes().to_vec();
        message.resize(4 + length, 0);
        let mut frame = EthernetFrame::new_unchecked(&mut message[4..]);
        header.emit(&mut frame);
        frame.payload_mut().copy_from_slice(payload);
        self.stream.write_all(&message).context("the machine has gone")
    }

    /// The next frame, `None` when none comes before `end`.
    fn receive(&mut self, end: Instant) -> Result<Option<Vec<u8>>> {
        let mut length = [0; 4];
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left))?;
        match self.stream.peek(&mut length) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
        self.stream.set_read_timeout(None)?;
        self.stream.read_exact(&mut length).context("the machine has gone")?;
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length))?];
        if frame.len() > FRAME_BYTES {
            bail!("a frame of {} bytes", frame.len());
        }
        self.stream.read_exact(&mut frame).context("the machine has gone")?;
        Ok(Some(frame))
    }
}

fn parse_dhcp(frame: &[u8]) -> Option<Asked> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let ip = Ipv4Packet::new_checked(frame.payload()).ok()?;
    let is_dhcp = frame.ethertype() == EthernetProtocol::Ipv4 && ip.next_header() == IpProtocol::Udp;
    let datagram = UdpPacket::new_checked(ip.payload()).ok().filter(|udp| is_dhcp && udp.dst_port() == 67)?;
    let packet = DhcpPacket::new_checked(datagram.payload()).ok()?;
    let dhcp = DhcpRepr::parse(&packet).ok()?;
    Some(Asked {
        kind: dhcp.message_type,
        from: ip.src_addr(),
        to: ip.dst_addr(),
        transaction: dhcp.transaction_id,
        hardware: dhcp.client_hardware_address,
    })
}

fn parse_arp(frame: &[u8]) -> Option<ArpRepr> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let packet = ArpPacket::new_checked(frame.payload()).ok()?;
    ArpRepr::parse(&packet).ok().filter(|_| frame.ethertype() == EthernetProtocol::Arp)
}

/// Who asks for the hardware address of `address`.
fn asks_for(frame: &[u8], address: Ipv4Addr) -> Option<(Ipv4Addr, EthernetAddress)> {
    match parse_arp(frame)? {
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_protocol_addr,
            source_hardware_addr,
            target_protocol_addr,
            ..
        } if target_protocol_addr == address => Some((source_protocol_addr, source_hardware_addr)),
        _ => None,
    }
}

fn answers_for(frame: &[u8], address: Ipv4Addr) -> bool {
    matches!(
        parse_arp(frame),
        Some(ArpRepr::EthernetIpv4 { operation: ArpOperation::Reply, source_protocol_addr, .. })
            if source_protocol_addr == address
    )
}
