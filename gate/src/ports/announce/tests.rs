//! Announcements against a host at the other end of an in-memory link.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use eci_contract::ports::{Protocol, Reach};
use eci_link::Session;
use eci_link::preamble::Nonce;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(5);

fn announcement() -> Announcement {
    let address = |text: &str| text.parse().expect("an address");
    Announcement {
        protocol: Protocol::Tcp,
        host: address("0.0.0.0:8080"),
        container: address("[::ffff:172.17.0.2]:80"),
    }
}

/// Both ends of a session: ours, and the host's.
async fn connect() -> (Session, Session) {
    let (host, guest) = duplex(64 * 1024);
    let (host, guest) = tokio::join!(Session::host(host, Nonce([1; 16])), Session::guest(guest));
    (guest.expect("guest"), host.expect("host"))
}

/// The next thing that the host is asked, answered with this.
async fn answer(host: &mut Session, reply: &Reply) -> HostRequest {
    let mut stream = timeout(SOON, host.accept()).await.expect("in time").expect("a stream");
    let asked = read_request(&mut stream).await.expect("a request");
    write_reply(&mut stream, reply).await.expect("answered");
    stream.shutdown().await.expect("ended");
    asked
}

fn any(_: IpAddr) -> Result<(), address::Error> {
    Ok(())
}

/// `eci-publish`, connected.
struct Publisher {
    connection: DuplexStream,
    served: JoinHandle<Result<(), Error>>,
}

impl Publisher {
    async fn start(ports: &Ports, judge: fn(IpAddr) -> Result<(), address::Error>, line: &[u8]) -> Self {
        let (mut connection, far) = duplex(4096);
        let ports = ports.clone();
        let served = tokio::spawn(async move {
            let (from, to) = tokio::io::split(far);
            announced(BufReader::new(from), to, &ports, judge).await
        });
        connection.write_all(line).await.expect("written");
        Self { connection, served }
    }

    async fn announce(ports: &Ports) -> Self {
        let mut line = serde_json::to_vec(&announcement()).expect("written");
        line.push(b'\n');
        Self::start(ports, any, &line).await
    }

    async fn hears(&mut self) -> Reply {
        let mut connection = BufReader::with_capacity(1, &mut self.connection);
        timeout(SOON, read_reply(&mut connection)).await.expect("in time").expect("a reply")
    }

    /// Closes its half, and waits for the other to be closed.
    async fn end(mut self) {
        self.connection.shutdown().await.expect("half closed");
        let mut rest = Vec::new();
        timeout(SOON, self.connection.read_to_end(&mut rest)).await.expect("in time").expect("closed");
        self.served.await.expect("no panic").expect("served");
    }
}

#[tokio::test]
async fn a_port_is_published_until_its_announcer_ends_and_that_waits_for_the_host() {
    let ports = Ports::default();
    let (guest, mut host) = connect().await;
    let _connected = ports.connected(guest.opener().clone());
    let mut publisher = Publisher::announce(&ports).await;
    let asked = answer(&mut host, &Reply::Ok).await;
    let HostRequest::Publish { id, protocol, address } = asked else { panic!("{asked:?}") };
    assert_eq!((protocol, address.to_string().as_str()), (Protocol::Tcp, "0.0.0.0:8080"));
    assert_eq!(publisher.hears().await, Reply::Ok);
    assert_eq!(ports.target(id).expect("admitted").address.to_string(), "172.17.0.2:80");
    publisher.connection.shutdown().await.expect("half closed");
    let mut byte = [0];
    let early = timeout(Duration::from_millis(50), publisher.connection.read(&mut byte)).await;
    assert!(early.is_err(), "the announcer was let go before the host let go of the port");
    assert_eq!(answer(&mut host, &Reply::Ok).await, HostRequest::Withdraw { id });
    publisher.end().await;
    assert!(ports.target(id).is_none());
}

#[tokio::test]
async fn what_the_host_says_against_it_is_passed_on() {
    let ports = Ports::default();
    let (guest, mut host) = connect().await;
    let _connected = ports.connected(guest.opener().clone());
    let mut publisher = Publisher::announce(&ports).await;
    let taken = Reply::Error("port 8080 is taken".to_owned());
    answer(&mut host, &taken).await;
    assert_eq!(publisher.hears().await, taken);
    publisher.end().await;
}

#[tokio::test]
async fn without_a_host_it_waits_for_one_and_each_new_host_is_asked() {
    let ports = Ports::default();
    let mut publisher = Publisher::announce(&ports).await;
    assert_eq!(publisher.hears().await, Reply::Ok);
    for _ in 0..2 {
        let (guest, mut host) = connect().await;
        let connected = ports.connected(guest.opener().clone());
        let asked = answer(&mut host, &Reply::Ok).await;
        assert!(matches!(asked, HostRequest::Publish { .. }), "{asked:?}");
        drop(host);
        drop(connected);
    }
    publisher.end().await;
}

#[tokio::test]
async fn a_new_host_that_cannot_listen_yet_is_asked_again() {
    let ports = Ports::default();
    let publisher = Publisher::announce(&ports).await;
    let (guest, mut host) = connect().await;
    let _connected = ports.connected(guest.opener().clone());
    answer(&mut host, &Reply::Error("port 8080 is taken".to_owned())).await;
    // Should it have listened after all.
    assert!(matches!(answer(&mut host, &Reply::Ok).await, HostRequest::Withdraw { .. }));
    let asked = answer(&mut host, &Reply::Ok).await;
    assert!(matches!(asked, HostRequest::Publish { .. }), "{asked:?}");
    let ended = tokio::spawn(publisher.end());
    assert!(matches!(answer(&mut host, &Reply::Ok).await, HostRequest::Withdraw { .. }));
    ended.await.expect("ended");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_never_answers_is_given_up_in_time_for_the_engine() {
    let ports = Ports::default();
    let (guest, _silent) = connect().await;
    let _connected = ports.connected(guest.opener().clone());
    let mut publisher = Publisher::announce(&ports).await;
    let mut connection = BufReader::with_capacity(1, &mut publisher.connection);
    let reply = timeout(Duration::from_secs(15), read_reply(&mut connection)).await;
    let Reply::Error(reason) = reply.expect("in time").expect("a reply") else { panic!("no error") };
    assert!(reason.starts_with("the host did not answer within 10 s"), "{reason}");
}

#[tokio::test]
async fn addresses_of_others_and_what_is_no_announcement_are_refused_before_the_host_hears_of_it() {
    let ports = Ports::default();
    let (guest, mut host) = connect().await;
    let _connected = ports.connected(guest.opener().clone());
    let no = |address| Err(address::Error::Elsewhere { address });
    let line = serde_json::to_string(&announcement()).expect("written") + "\n";
    let mut publisher = Publisher::start(&ports, no, line.as_bytes()).await;
    let Reply::Error(reason) = publisher.hears().await else { panic!("no error") };
    assert!(reason.contains("`172.17.0.2` is no address of a container"), "{reason}");
    assert!(matches!(publisher.served.await.expect("no panic"), Err(Error::Address(_))));
    for line in [
        &b"\n"[..],
        b"{}\n",
        b"{\"stream\":\"engine\"}\n",
        b"{\"protocol\":\"sctp\",\"host\":\"0.0.0.0:1\",\"container\":\"172.17.0.2:1\"}\n",
        b"{\"protocol\":\"tcp\",\"host\":\"0.0.0.0:1\",\"container\":\"172.17.0.2\"}\n",
        b"{\"protocol\":\"tcp\",\"host\":\"0.0.0.0:1\",\"container\":\"172.17.0.2:1\",\"id\":0}\n",
        &[b'x'; 5000],
    ] {
        let mut publisher = Publisher::start(&ports, any, line).await;
        assert!(matches!(publisher.hears().await, Reply::Error(_)));
        assert!(matches!(publisher.served.await.expect("no panic"), Err(Error::Request(_))));
    }
    let asked = timeout(Duration::from_millis(50), host.accept()).await;
    assert!(asked.is_err(), "the host was asked");
}

#[tokio::test]
async fn the_socket_is_for_root_alone_and_an_old_one_is_replaced() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("ports.sock");
    drop(listen(&path).expect("bound"));
    let listener = listen(&path).expect("bound again");
    assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, MODE);
    let served = tokio::spawn(serve(listener, Ports::default()));
    // The judge of the image: the address is not on a bridge of this machine.
    let mut connection = BufReader::new(UnixStream::connect(&path).await.expect("connected"));
    let mut wanted = announcement();
    wanted.container.set_ip(Ipv4Addr::LOCALHOST.into());
    request::write_request(&mut connection, &wanted).await.expect("written");
    let Reply::Error(reason) = read_reply(&mut connection).await.expect("a reply") else {
        panic!("no error")
    };
    assert!(reason.contains("`127.0.0.1` is no address of a container"), "{reason}");
    served.abort();
}

#[test]
fn errors_say_what_is_not_published_and_why() {
    assert_eq!(Error::Stranger { user: 1000 }.to_string(), "user 1000 may not publish ports");
    let missing = io::Error::from(io::ErrorKind::NotFound);
    let error = Error::Listen { path: "/run/x.sock".into(), source: missing };
    assert_eq!(error.to_string(), "cannot listen on `/run/x.sock`");
    assert_eq!(Error::Silent.to_string(), "no port was announced in time");
}

#[tokio::test]
async fn an_administrator_keeps_ports_on_loopback_or_publishes_none() {
    let (guest, mut host) = connect().await;
    let ports = Ports::within(Reach::Loopback);
    let _connected = ports.connected(guest.opener().clone());
    let _publisher = Publisher::announce(&ports).await;
    let asked = answer(&mut host, &Reply::Ok).await;
    let HostRequest::Publish { address, .. } = asked else { panic!("{asked:?}") };
    assert_eq!(address.to_string(), "127.0.0.1:8080", "wherever the container wants it");
    let mut refused = Publisher::announce(&Ports::within(Reach::Nothing)).await;
    let mut said = String::new();
    refused.connection.read_to_string(&mut said).await.expect("an answer");
    assert!(said.contains("port 0.0.0.0:8080 can't be published"), "{said}");
    assert!(matches!(refused.served.await.expect("ended"), Err(Error::Denied(_))));
}
