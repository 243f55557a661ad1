//! A connection to a published port: from the host's stream to the container.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use eci_contract::errors::chain;
use eci_contract::link::Reply;
use eci_contract::ports::Protocol;
use eci_link::{datagram, pipe, refuse, write_reply};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};

use super::{Ports, Target};

/// How long a container may take to accept. It is on a bridge of this machine: one that does not answer by then is stopped, or
/// throws packets away.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// Joins a stream of the host to the port that has this number. That it cannot, or breaks later, is an ordinary end: the
/// peer is told.
pub async fn published<T>(mut stream: T, ports: &Ports, id: u64)
where
    T: AsyncBufRead + AsyncWrite + Unpin,
{
    let Some(mut target) = ports.target(id) else {
        return refuse(&mut stream, "the port is not published any more".to_owned()).await;
    };
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

async fn join<T: AsyncBufRead + AsyncWrite + Unpin>(mut stream: T, target: &mut Target) {
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

/// Until the host ends it, or nothing comes for long.
async fn join_datagrams<T>(stream: &mut T, container: &UdpSocket) -> io::Result<()>
where
    T: AsyncBufRead + AsyncWrite + Unpin,
{
    write_reply(stream, &Reply::Ok).await.map_err(io::Error::other)?;
    let mut reader = datagram::Reader::default();
    let mut buffer = vec![0; datagram::MAX_BYTES];
    loop {
        tokio::select! {
            sent = reader.next(stream) => match sent? {
                // A container that does not listen refuses; its user tries again, or gives up.
                Some(datagram) => drop(container.send(&datagram).await),
                None => return Ok(()),
            },
            came = container.recv(&mut buffer) => if let Ok(length) = came {
                datagram::write(stream, buffer.get(..length).unwrap_or_default()).await?;
            },
            () = sleep(datagram::IDLE) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use eci_link::read_reply;
    use tokio::io::{AsyncReadExt, BufReader, DuplexStream, duplex};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::super::Admitted;
    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const LOCAL: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

    /// The host's end of a connection to `admitted`.
    fn reach(admitted: &Admitted<'_>) -> (BufReader<DuplexStream>, JoinHandle<()>) {
        let (near, far) = duplex(256 * 1024);
        let (ports, id) = (admitted.ports.clone(), admitted.id);
        (BufReader::new(near), tokio::spawn(async move { published(BufReader::new(far), &ports, id).await }))
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
        published(BufReader::new(far), &ports, admitted.id + 1).await;
        let reply = read_reply(&mut BufReader::new(near)).await.expect("a reply");
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
