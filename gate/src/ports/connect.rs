//! A connection to a published port: from the host's stream to the container.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use eci_contract::errors::chain;
use eci_contract::link::Reply;
use eci_contract::ports::Protocol;
use eci_link::{datagram, pipe, refuse, write_reply};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, split};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::address::Judge;
use super::{Ports, Target};

/// How long a container may take to accept. It is on a bridge of this machine: one that does not answer by then is stopped, or
/// throws packets away.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// Joins a stream of the host to the port that has this number. That it cannot, or breaks later, is an ordinary end: the
/// peer is told. The address is judged again: networks come and go while a port is published.
pub async fn published<T>(mut stream: T, ports: &Ports, id: u64, judge: Judge)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let Some(mut target) = ports.target(id) else {
        return refuse(&mut stream, "the port is not published any more".to_owned()).await;
    };
    if let Err(error) = judge(target.address.ip()) {
        return refuse(&mut stream, chain(&error)).await;
    }
    // The reply waits for the container; before it, a blank: a stream on which nothing was said yet is one of few.
    if stream.write_all(b" ").await.is_err() || stream.flush().await.is_err() {
        return;
    }
    let mut end = target.end.clone();
    tokio::select! {
        () = join(stream, &mut target) => {}
        _ = end.changed() => {}
    }
}

async fn join<T: AsyncRead + AsyncWrite + Unpin>(mut stream: T, target: &mut Target) {
    let joined = match target.protocol {
        Protocol::Tcp => match dial(target.address).await {
            Ok(container) => join_connection(&mut stream, container).await,
            Err(error) => return refuse(&mut stream, chain(&error)).await,
        },
        Protocol::Udp => match open(target.address).await {
            Ok(container) => join_datagrams(&mut stream, &container).await,
            Err(error) => return refuse(&mut stream, chain(&error)).await,
        },
    };
    // One of the two is gone, and the other sees that.
    drop(joined);
}

async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let container = timeout(DIAL_DEADLINE, TcpStream::connect(address)).await.map_err(late)??;
    // What a client writes is to leave when it is written, as if nobody were in between.
    container.set_nodelay(true)?;
    Ok(container)
}

async fn join_connection<T>(stream: &mut T, mut container: TcpStream) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    write_reply(stream, &Reply::Ok).await.map_err(io::Error::other)?;
    let ended = pipe(stream, &mut container).await;
    if ended.is_err() {
        // The client is gone, or was reset: an orderly end would look like a whole question.
        container.set_zero_linger()?;
    }
    ended
}

/// Connected, so that it hears its container and nobody else.
async fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(address).await?;
    Ok(socket)
}

/// Until the host ends it, or nothing comes for long. Neither direction waits for the other.
async fn join_datagrams<T>(stream: &mut T, container: &UdpSocket) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    write_reply(stream, &Reply::Ok).await.map_err(io::Error::other)?;
    let (from_host, mut to_host) = split(stream);
    let seen = datagram::LastSeen::default();
    tokio::select! {
        ended = to_container(BufReader::new(from_host), container, &seen) => ended,
        failed = to_peer(&mut to_host, container, &seen) => failed,
        () = seen.parted() => Ok(()),
    }
}

async fn to_container<R>(mut from: R, container: &UdpSocket, seen: &datagram::LastSeen) -> io::Result<()>
where
    R: AsyncBufRead + Unpin,
{
    let mut reader = datagram::Reader::default();
    while let Some(datagram) = reader.next(&mut from).await? {
        seen.now();
        // A container that does not listen refuses; its user tries again, or gives up.
        drop(container.send(&datagram).await);
    }
    Ok(())
}

async fn to_peer<W>(to: &mut W, container: &UdpSocket, seen: &datagram::LastSeen) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; datagram::MAX_BYTES];
    loop {
        // What it says of an earlier one, as that nobody listened, is no end.
        if let Ok(length) = container.recv(&mut buffer).await {
            seen.now();
            datagram::write(to, buffer.get(..length).unwrap_or_default()).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use eci_link::read_reply;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    use super::super::{Admitted, address};
    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const LOCAL: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

    /// The host's end of a connection to `admitted`.
    fn reach(admitted: &Admitted<'_>) -> (BufReader<DuplexStream>, JoinHandle<()>) {
        let (near, far) = duplex(256 * 1024);
        let (ports, id) = (admitted.ports.clone(), admitted.id);
        (BufReader::new(near), tokio::spawn(async move { published(far, &ports, id, |_| Ok(())).await }))
    }

    /// Takes a reply and ends the stream.
    async fn last(stream: DuplexStream) -> Reply {
        read_reply(&mut BufReader::new(stream)).await.expect("a reply")
    }

    #[tokio::test]
    async fn a_connection_is_joined_both_ways_and_each_ends_by_itself() {
        let container = TcpListener::bind(LOCAL).await.expect("bound");
        let ports = Ports::default();
        let admitted = ports.admit(Protocol::Tcp, container.local_addr().expect("bound"));
        let (mut host, served) = reach(&admitted);
        let (mut accepted, _) = container.accept().await.expect("connected");
        assert_eq!(read_reply(&mut host).await.expect("a reply"), Reply::Ok);
        host.write_all(b"question").await.expect("written");
        host.shutdown().await.expect("half closed");
        let mut question = String::new();
        accepted.read_to_string(&mut question).await.expect("the end of input arrives");
        accepted.write_all(b"answer").await.expect("the other direction is open");
        drop(accepted);
        let mut answer = String::new();
        host.read_to_string(&mut answer).await.expect("read");
        assert_eq!((question.as_str(), answer.as_str()), ("question", "answer"));
        served.await.expect("no panic");
    }

    #[tokio::test]
    async fn connections_end_with_the_port() {
        let container = TcpListener::bind(LOCAL).await.expect("bound");
        let ports = Ports::default();
        let admitted = ports.admit(Protocol::Tcp, container.local_addr().expect("bound"));
        let (_host, served) = reach(&admitted);
        let (mut accepted, _) = container.accept().await.expect("connected");
        drop(admitted);
        timeout(SOON, served).await.expect("in time").expect("no panic");
        assert_eq!(accepted.read(&mut [0]).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn nobody_is_reached_by_another_number_or_behind_a_closed_port() {
        let ports = Ports::default();
        let free = TcpListener::bind(LOCAL).await.expect("bound").local_addr().expect("bound");
        let admitted = ports.admit(Protocol::Tcp, free);
        let (mut host, _served) = reach(&admitted);
        let Reply::Error(reason) = read_reply(&mut host).await.expect("a reply") else { panic!("reached") };
        assert!(reason.contains("refused"), "{reason}");
        let (near, far) = duplex(4096);
        let (reply, ()) = tokio::join!(last(near), published(far, &ports, admitted.id + 1, |_| Ok(())));
        assert_eq!(reply, Reply::Error("the port is not published any more".to_owned()));
    }

    #[tokio::test]
    async fn datagrams_go_both_ways_whole() {
        let container = UdpSocket::bind(LOCAL).await.expect("bound");
        let ports = Ports::default();
        let admitted = ports.admit(Protocol::Udp, container.local_addr().expect("bound"));
        let (mut host, served) = reach(&admitted);
        assert_eq!(read_reply(&mut host).await.expect("a reply"), Reply::Ok);
        let (mut reader, mut buffer) = (datagram::Reader::default(), vec![0; datagram::MAX_BYTES]);
        for sent in [vec![], b"one".to_vec(), vec![7; 60_000]] {
            datagram::write(&mut host, &sent).await.expect("written");
            let (length, from) = container.recv_from(&mut buffer).await.expect("received");
            assert_eq!(buffer[..length], sent);
            container.send_to(&buffer[..length], from).await.expect("sent");
            assert_eq!(reader.next(&mut host).await.expect("read").expect("one"), sent);
        }
        drop(host);
        timeout(SOON, served).await.expect("in time").expect("no panic");
    }

    #[tokio::test]
    async fn datagrams_both_ways_at_once_keep_neither_waiting() {
        const MANY: usize = 200;
        let container = UdpSocket::bind(LOCAL).await.expect("bound");
        let ports = Ports::default();
        let admitted = ports.admit(Protocol::Udp, container.local_addr().expect("bound"));
        // Less than a datagram fits: each direction is nearly always full.
        let (near, far) = duplex(1024);
        let id = admitted.id;
        let served = ports.clone();
        tokio::spawn(async move { published(far, &served, id, |_| Ok(())).await });
        let mut host = BufReader::new(near);
        assert_eq!(read_reply(&mut host).await.expect("a reply"), Reply::Ok);
        let (from_gate, mut to_gate) = split(host);
        let echo = tokio::spawn(async move {
            let mut buffer = vec![0; datagram::MAX_BYTES];
            loop {
                let (length, from) = container.recv_from(&mut buffer).await.expect("received");
                container.send_to(&buffer[..length], from).await.expect("sent");
            }
        });
        let sending = async {
            for _ in 0..MANY {
                datagram::write(&mut to_gate, &[7; 8_000]).await.expect("written");
            }
        };
        let receiving = async {
            let (mut from_gate, mut reader) = (BufReader::new(from_gate), datagram::Reader::default());
            // The kernel's own queue of the container may lose some.
            for _ in 0..MANY / 4 {
                reader.next(&mut from_gate).await.expect("read").expect("one");
            }
        };
        let both = async { tokio::join!(sending, receiving) };
        timeout(SOON, both).await.expect("neither waits for the other");
        echo.abort();
    }

    #[tokio::test]
    async fn an_address_that_is_a_container_s_no_more_is_not_reached() {
        let container = TcpListener::bind(LOCAL).await.expect("bound");
        let ports = Ports::default();
        let admitted = ports.admit(Protocol::Tcp, container.local_addr().expect("bound"));
        let (near, far) = duplex(4096);
        let (reply, ()) = tokio::join!(last(near), published(far, &ports, admitted.id, address::judge));
        let reason = "`127.0.0.1` is no address of a container: it is not one host's own";
        assert_eq!(reply, Reply::Error(reason.to_owned()));
    }

    #[tokio::test]
    async fn a_container_that_does_not_hear_datagrams_ends_nothing() {
        let free = UdpSocket::bind(LOCAL).await.expect("bound").local_addr().expect("bound");
        let ports = Ports::default();
        let admitted = ports.admit(Protocol::Udp, free);
        let (mut host, _served) = reach(&admitted);
        assert_eq!(read_reply(&mut host).await.expect("a reply"), Reply::Ok);
        for _ in 0..3 {
            datagram::write(&mut host, b"lost").await.expect("written");
            sleep(Duration::from_millis(10)).await;
        }
        let container = UdpSocket::bind(free).await.expect("bound");
        datagram::write(&mut host, b"heard").await.expect("written");
        let mut buffer = [0; 16];
        let length = timeout(SOON, container.recv(&mut buffer)).await.expect("in time").expect("received");
        assert_eq!(&buffer[..length], b"heard");
    }
}
