//! Ports against a VM at the other end of an in-memory link.

use std::net::Ipv4Addr;
use std::sync::Arc;

use eci_contract::link::Request;
use eci_link::preamble::Nonce;
use eci_link::{Session, datagram, read_reply};
use tokio::io::{AsyncReadExt, duplex};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::*;

const SOON: Duration = Duration::from_secs(5);

/// A VM that has asked for ports, and the host that serves it.
struct Vm {
    session: Session,
    host: JoinHandle<()>,
}

impl Vm {
    async fn start(publish_on: PublishOn) -> Self {
        let (host, guest) = duplex(256 * 1024);
        let (host, guest) = tokio::join!(Session::host(host, Nonce([1; 16])), Session::guest(guest));
        let mut session = host.expect("host");
        let host = tokio::spawn(async move {
            let ports = Arc::new(Ports::new(publish_on, session.opener().clone()));
            while let Some(stream) = session.accept().await {
                let ports = Arc::clone(&ports);
                tokio::spawn(async move { ports.serve(stream).await });
            }
            ports.close().await;
        });
        Self { session: guest.expect("guest"), host }
    }

    async fn ask(&self, request: &HostRequest) -> Reply {
        let mut stream = self.session.opener().open(request).await.expect("opened");
        timeout(SOON, read_reply(&mut stream)).await.expect("in time").expect("a reply")
    }

    async fn publish(&self, id: u64, protocol: Protocol, address: &str) -> Reply {
        let address = address.parse().expect("an address");
        self.ask(&HostRequest::Publish { id, protocol, address }).await
    }

    /// Publishes a port that nobody uses; other tests may take one that was free a moment ago.
    async fn publish_free(&self, id: u64, protocol: Protocol, address: Ipv4Addr) -> u16 {
        for _ in 0..20 {
            let port = free_port().await;
            match self.publish(id, protocol, &format!("{address}:{port}")).await {
                Reply::Ok => return port,
                Reply::Error(reason) => assert!(reason.contains("is in use"), "{reason}"),
                Reply::Status(_) | Reply::Evidence(_) => panic!("an answer to another question"),
            }
        }
        panic!("no port is free")
    }

    /// The next connection to a port, by the port's number.
    async fn accept(&mut self) -> (Stream, u64) {
        let mut stream = timeout(SOON, self.session.accept()).await.expect("in time").expect("a stream");
        match read_request(&mut stream).await.expect("a request") {
            Request::Published { id } => (stream, id),
            other => panic!("{other:?}"),
        }
    }
}

/// A port of loopback that is free for both.
/// Fails unless `bind` does what it says, soon: a program that another test starts has all our sockets until it is loaded.
async fn is_free<T, F: Future<Output = std::io::Result<T>>>(bind: impl Fn() -> F) {
    let bound = async {
        while bind().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, bound).await.expect("free");
}

async fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
        let port = tcp.local_addr().expect("bound").port();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            return port;
        }
    }
}

#[tokio::test]
async fn a_connection_is_led_to_the_vm_and_ends_with_the_port() {
    let mut vm = Vm::start(PublishOn::Loopback).await;
    let port = vm.publish_free(7, Protocol::Tcp, Ipv4Addr::UNSPECIFIED).await;
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("listening");
    let (mut container, id) = vm.accept().await;
    assert_eq!(id, 7);
    write_reply(&mut container, &Reply::Ok).await.expect("joined");
    client.write_all(b"question").await.expect("written");
    client.shutdown().await.expect("half closed");
    let mut question = String::new();
    container.read_to_string(&mut question).await.expect("the end of input arrives");
    container.write_all(b"answer").await.expect("the other direction is open");
    container.flush().await.expect("flushed");
    let mut answer = [0; 6];
    client.read_exact(&mut answer).await.expect("read");
    assert_eq!((question.as_str(), &answer), ("question", b"answer"));
    assert_eq!(vm.ask(&HostRequest::Withdraw { id: 7 }).await, Reply::Ok);
    assert_eq!(timeout(SOON, client.read(&mut answer)).await.expect("in time").unwrap_or(0), 0);
    // The VM may want it again for the next container.
    is_free(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port))).await;
}

#[tokio::test]
async fn who_connects_to_a_container_that_does_not_listen_is_reset() {
    let mut vm = Vm::start(PublishOn::Loopback).await;
    let port = vm.publish_free(1, Protocol::Tcp, Ipv4Addr::LOCALHOST).await;
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("listening");
    let (mut container, _) = vm.accept().await;
    write_reply(&mut container, &Reply::Error("refused".to_owned())).await.expect("told");
    let read = timeout(SOON, client.read(&mut [0])).await.expect("in time");
    assert_eq!(read.expect_err("reset").kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn datagrams_of_two_senders_are_kept_apart() {
    let mut vm = Vm::start(PublishOn::Loopback).await;
    let port = vm.publish_free(3, Protocol::Udp, Ipv4Addr::UNSPECIFIED).await;
    let mut clients = Vec::new();
    for text in [&b"one"[..], b"two"] {
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
        client.connect((Ipv4Addr::LOCALHOST, port)).await.expect("connected");
        client.send(text).await.expect("sent");
        let (mut container, id) = vm.accept().await;
        assert_eq!(id, 3);
        write_reply(&mut container, &Reply::Ok).await.expect("joined");
        let mut reader = datagram::Reader::default();
        assert_eq!(reader.next(&mut container).await.expect("read").expect("one"), text);
        clients.push((client, container, text));
    }
    let mut buffer = [0; 16];
    for (client, container, text) in clients.iter_mut().rev() {
        datagram::write(container, &[b"re: ", *text].concat()).await.expect("written");
        let length = timeout(SOON, client.recv(&mut buffer)).await.expect("in time").expect("received");
        assert_eq!(&buffer[..length], [b"re: ", *text].concat());
    }
    assert_eq!(vm.ask(&HostRequest::Withdraw { id: 3 }).await, Reply::Ok);
    is_free(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, port))).await;
}

#[tokio::test]
async fn what_the_flag_does_not_allow_is_refused_and_so_is_a_number_that_is_taken() {
    let vm = Vm::start(PublishOn::Loopback).await;
    let Reply::Error(reason) = vm.publish(1, Protocol::Tcp, "192.0.2.1:80").await else { panic!("listens") };
    assert!(reason.contains("--publish-on all"), "{reason}");
    let port = vm.publish_free(1, Protocol::Tcp, Ipv4Addr::UNSPECIFIED).await;
    let again = vm.publish(1, Protocol::Udp, &format!("0.0.0.0:{port}")).await;
    assert_eq!(again, Reply::Error("the VM has published number 1 already".to_owned()));
    let Reply::Error(reason) = vm.publish(2, Protocol::Tcp, &format!("0.0.0.0:{port}")).await else {
        panic!("listens twice")
    };
    assert!(reason.starts_with(&format!("port {port}/tcp of the host is in use at 127.0.0.1")), "{reason}");
    // Nothing is wrong with what is not there.
    assert_eq!(vm.ask(&HostRequest::Withdraw { id: 99 }).await, Reply::Ok);
}

#[tokio::test]
async fn requests_that_are_for_a_vm_are_refused_by_the_host() {
    let vm = Vm::start(PublishOn::All).await;
    for request in [Request::Engine {}, Request::Shutdown {}, Request::Published { id: 1 }] {
        let mut stream = vm.session.opener().open(&request).await.expect("opened");
        let reply = timeout(SOON, read_reply(&mut stream)).await.expect("in time").expect("a reply");
        assert!(matches!(reply, Reply::Error(_)), "{reply:?}");
    }
}

#[tokio::test]
async fn ports_end_with_the_session() {
    let vm = Vm::start(PublishOn::Loopback).await;
    let port = vm.publish_free(1, Protocol::Tcp, Ipv4Addr::UNSPECIFIED).await;
    drop(vm.session);
    timeout(SOON, vm.host).await.expect("in time").expect("no panic");
    is_free(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port))).await;
}

#[tokio::test]
async fn what_is_asked_for_when_the_session_is_over_is_not_listened_for() {
    let (host, guest) = duplex(4096);
    let (host, _guest) = tokio::join!(Session::host(host, Nonce([1; 16])), Session::guest(guest));
    let ports = Ports::new(PublishOn::Loopback, host.expect("host").opener().clone());
    ports.close().await;
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().await));
    assert!(matches!(ports.publish(1, Protocol::Tcp, free), Err(Error::Ended)));
    is_free(|| TcpListener::bind(free)).await;
}

#[test]
fn errors_name_the_number() {
    assert_eq!(Error::Again { id: 3 }.to_string(), "the VM has published number 3 already");
    assert_eq!(
        Error::TooMany.to_string(),
        "the host listens on 4096 ports of containers already; remove a container that publishes some"
    );
}
