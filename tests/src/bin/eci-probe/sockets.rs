//! Sockets that lead to the VM, to its host, or past the container's own network.

use std::fs;
use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use eci_contract::link::Reply;
use eci_contract::paths::PORTS_SOCKET;
use eci_contract::ports::{Announcement, Protocol};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, VsockAddr,
    connect, recv, sendmsg, sendto, socket,
};

use rustix::net::SendFlags;

use crate::attempt::{At, Attempt, Failure, Verb};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "vsock",
        why: "the host (2) and the VM itself (1) listen for control there, not for containers; takes CID:PORT",
        run: vsock,
    },
    Verb {
        name: "tcp-gateway",
        why: "the engine's API on an address that containers reach (CVE-2025-9074); takes a port",
        run: |port| {
            let port = port.parse().map_err(|_| Failure::NotUnderstood("the port"))?;
            Ok(TcpStream::connect_timeout(&SocketAddr::from((gateway()?, port)), PATIENCE).map(drop)?)
        },
    },
    Verb {
        name: "packet-socket",
        why: "tcpdump and DHCP in the container's own network",
        run: |_| Ok(socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).map(drop)?),
    },
    Verb { name: "audit", why: "the kernel's audit trail could be switched off or flooded", run: audit },
    Verb {
        name: "abstract-sockets",
        why: "names without a file are parted by the network namespace alone (CVE-2020-15257)",
        run: abstract_sockets,
    },
    Verb {
        name: "engine",
        why: "the engine's API, for containers that an administrator names; takes METHOD PATH BODY",
        run: ask_engine,
    },
    Verb {
        name: "store-descriptor",
        why: "PID 1 keeps descriptors for services, and passes them on; takes the path of its socket",
        run: |path| {
            let socket = UnixDatagram::unbound().at("socket")?;
            socket.connect(path).at("connect")?;
            let file = fs::File::open("/dev/null").at("open")?;
            send_with(&socket, b"FDSTORE=1\nFDNAME=socket", &file)
        },
    },
    Verb {
        name: "hold-listeners",
        why: "as many containers as one VM may have; takes the path of crun's socket, hands over 1000 and ends in a minute",
        run: |path| {
            let message = br#"{"fds": ["seccompFd"], "metadata": "{\"version\":1,\"root_device\":1}"}"#;
            let (held, _open) = rustix::pipe::pipe().at("pipe")?;
            for _ in 0..1000 {
                send_with(&UnixStream::connect(path).at("connect")?, message, &held)?;
            }
            std::thread::sleep(Duration::from_secs(60));
            Ok(())
        },
    },
    Verb {
        name: "publish",
        why: "the gate connects to what is announced, and would give the host a way to it; takes ADDRESS:PORT",
        run: publish,
    },
    Verb {
        name: "tcp-echo",
        why: "a server of connections, until it is killed, which ends each when its client has; takes a port",
        run: |port| {
            nix::unistd::alarm::cancel();
            let port = port.parse().map_err(|_| Failure::NotUnderstood("the port"))?;
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).at("bind")?;
            loop {
                let (mut connection, _) = listener.accept()?;
                // The copy ends with the client's half, and dropping the connection ends ours.
                std::thread::spawn(move || std::io::copy(&mut connection.try_clone()?, &mut connection));
            }
        },
    },
    Verb {
        name: "udp-echo",
        why: "a server of datagrams, until it is killed; takes a port",
        run: |port| {
            nix::unistd::alarm::cancel();
            let port = port.parse().map_err(|_| Failure::NotUnderstood("the port"))?;
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).at("bind")?;
            let mut buffer = vec![0; 65_536];
            loop {
                let (length, from) = socket.recv_from(&mut buffer)?;
                socket.send_to(&buffer[..length], from)?;
            }
        },
    },
    Verb {
        name: "dial",
        why: "whoever the kernel keeps a service from connecting to; takes ADDRESS:PORT",
        run: |to| Ok(TcpStream::connect_timeout(&address(to)?, PATIENCE).map(drop)?),
    },
    Verb {
        name: "dial-at-once",
        why: "the same with the first bytes in the same call (TCP Fast Open), which is another way through the kernel",
        run: |to| {
            let to = address(to)?;
            let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            let stream = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).at("socket")?;
            // `MSG_FASTOPEN`, which has no name there.
            let flags = SendFlags::from_bits_retain(0x2000_0000);
            Ok(rustix::net::sendto(&stream, b"x", flags, &to).map(drop)?)
        },
    },
    Verb {
        name: "dial-datagrams",
        why: "the same by a socket of datagrams; takes ADDRESS:PORT",
        run: |to| Ok(from_any(to)?.connect(address(to)?)?),
    },
    Verb {
        name: "send-datagram",
        why: "the same by a socket that is connected to nobody; takes ADDRESS:PORT",
        run: |to| Ok(from_any(to)?.send_to(b"x", address(to)?).map(drop)?),
    },
    Verb {
        name: "resolver",
        why: "names that nobody else has, until it is killed; takes NAME=ADDRESS,NAME=ADDRESS",
        run: |names| {
            nix::unistd::alarm::cancel();
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).at("bind")?;
            let mut buffer = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut buffer)?;
                if let Some(answer) = answer_of_names(names, &buffer[..length]) {
                    socket.send_to(&answer, from)?;
                }
            }
        },
    },
    Verb {
        name: "unix",
        why: "a socket of the VM that is mounted; takes its path",
        run: |path| Ok(UnixStream::connect(path).map(drop)?),
    },
];

fn address(text: &str) -> Result<SocketAddr, Failure> {
    text.parse().map_err(|_| Failure::NotUnderstood("ADDRESS:PORT"))
}

/// The answer to one question for a name (RFC 1035, 4.1): its IPv4 address, or that it has none of what was asked for.
fn answer_of_names(names: &str, question: &[u8]) -> Option<Vec<u8>> {
    let (mut at, mut labels) = (12, Vec::new());
    while let Some(length) = question.get(at).copied().filter(|length| *length > 0).map(usize::from) {
        labels.push(std::str::from_utf8(question.get(at + 1..at + 1 + length)?).ok()?.to_ascii_lowercase());
        at += 1 + length;
    }
    let end = at + 5;
    let asks_for_v4 = question.get(at + 1..end)? == [0, 1, 0, 1];
    let name = labels.join(".");
    let found = names.split(',').filter_map(|entry| entry.split_once('=')).find(|(known, _)| *known == name);
    let address = found.filter(|_| asks_for_v4).and_then(|(_, address)| address.parse::<Ipv4Addr>().ok());
    let count = u8::from(address.is_some());
    // An answer, by one who has the last word; recursion was wanted and is had; one question, and so many answers.
    let code = if found.is_some() { 0x80 } else { 0x83 };
    let mut answer =
        [question.get(..2)?, &[0x85, code, 0, 1, 0, count, 0, 0, 0, 0], question.get(12..end)?].concat();
    if let Some(address) = address {
        // The question's name, an address of the internet, for no time, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

/// A socket of datagrams of the family that `to` is of.
fn from_any(to: &str) -> Result<UdpSocket, Failure> {
    let own: IpAddr =
        if address(to)?.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((own, 0)).at("bind")
}

/// Sends `text` and a descriptor beside it.
fn send_with(socket: &impl AsRawFd, text: &[u8], file: &impl AsRawFd) -> Attempt {
    let descriptors = [file.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    Ok(sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(text)], &rights, MsgFlags::empty(), None)
        .map(drop)?)
}

/// Announces a port as the engine's program does. The gate's refusal is an answer in words, shown on stderr.
fn publish(target: &str) -> Attempt {
    let container = target.parse().map_err(|_| Failure::NotUnderstood("ADDRESS:PORT"))?;
    let host = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 29_999));
    let line = serde_json::to_string(&Announcement { protocol: Protocol::Tcp, host, container });
    let line = line.map_err(|_| Failure::NotUnderstood("the announcement"))? + "\n";
    let mut gate = UnixStream::connect(PORTS_SOCKET).at("connect")?;
    gate.write_all(line.as_bytes()).at("write")?;
    let mut answer = String::new();
    BufReader::new(gate).read_line(&mut answer).at("read")?;
    match serde_json::from_str(&answer) {
        Ok(Reply::Ok) => Ok(()),
        Ok(Reply::Error(reason)) => {
            eprintln!("{reason}");
            Err(Failure::Refused(Errno::EPERM))
        }
        Ok(Reply::Status(_) | Reply::Evidence(_)) | Err(_) => {
            Err(Failure::NotUnderstood("the gate's answer"))
        }
    }
}

/// Where images expect the engine's socket.
const ENGINE: &str = "/var/run/docker.sock";
/// How the gate's refusals begin.
const BLOCKED: &str = "{\"message\":\"enhanced container isolation: ";

/// Refused by the gate is EPERM; what the engine itself does not like is not understood.
fn ask_engine(request: &str) -> Attempt {
    let mut parts = request.splitn(3, ' ');
    let (method, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let body = parts.next().unwrap_or_default();
    let mut engine = UnixStream::connect(ENGINE).at("connect")?;
    write!(
        engine,
        "{method} {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .at("write")?;
    let mut answer = Vec::new();
    engine.read_to_end(&mut answer).at("read")?;
    let answer = String::from_utf8_lossy(&answer);
    match answer.split(' ').nth(1) {
        Some(status) if status.starts_with('2') => Ok(()),
        Some("403") if answer.contains(BLOCKED) => Err(Failure::Refused(Errno::EPERM)),
        _ => {
            eprintln!("{method} {path}: {answer}");
            Err(Failure::NotUnderstood("the engine's answer"))
        }
    }
}

fn vsock(target: &str) -> Attempt {
    let numbers =
        target.split_once(':').and_then(|(cid, port)| Some((cid.parse().ok()?, port.parse().ok()?)));
    let (cid, port) = numbers.ok_or(Failure::NotUnderstood("CID:PORT"))?;
    let socket = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).at("socket")?;
    Ok(connect(socket.as_raw_fd(), &VsockAddr::new(cid, port))?)
}

/// The default route's, from the kernel's table: addresses in hexadecimal, in the machine's order.
fn gateway() -> Result<Ipv4Addr, Failure> {
    let routes = fs::read_to_string("/proc/net/route").at("open")?;
    let gateway = routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        (fields.next()? == "00000000").then(|| fields.next())?
    });
    let gateway = gateway.and_then(|text| u32::from_str_radix(text, 16).ok()).ok_or(Failure::NothingThere)?;
    Ok(Ipv4Addr::from(gateway.to_ne_bytes()))
}

/// Asks for the state of the audit system. The answer, also a refusal, is a message.
fn audit(_: &str) -> Attempt {
    const GET: u16 = 1000;
    const REQUEST_WITH_ACKNOWLEDGEMENT: u16 = 5;
    const ERROR: u16 = 2;
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkAudit)
            .at("socket")?;
    let mut message = Vec::new();
    message.extend(16_u32.to_ne_bytes());
    message.extend(GET.to_ne_bytes());
    message.extend(REQUEST_WITH_ACKNOWLEDGEMENT.to_ne_bytes());
    message.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    sendto(socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0_u8; 256];
    recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).at("recv")?;
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    let error = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    match (kind, error) {
        (ERROR, error) if error != 0 => Err(Failure::Refused(Errno::from_raw(-error))),
        _ => Ok(()),
    }
}

fn abstract_sockets(_: &str) -> Attempt {
    let table = fs::read_to_string("/proc/net/unix").at("open")?;
    let mut outcome = Err(Failure::NothingThere);
    for name in table.lines().filter_map(|line| line.split_whitespace().last()?.strip_prefix('@')) {
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name).at("name")?;
        outcome = UnixStream::connect_addr(&address).map(drop).map_err(Failure::from);
        if outcome.is_ok() {
            eprintln!("connected to @{name}");
            break;
        }
    }
    outcome
}
