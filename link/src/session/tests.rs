//! Both ends of a session over an in-memory connection.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

use eci_contract::link::{HostRequest, Request};

use super::*;
use crate::{read_request, write_request};

const WIRE_BYTES: usize = 64 * 1024;

fn nonce(byte: u8) -> Nonce {
    Nonce([byte; 16])
}

async fn connect() -> (Session, Session) {
    let (host, guest) = duplex(WIRE_BYTES);
    let (host, guest) = tokio::join!(Session::host(host, nonce(1)), Session::guest(guest));
    (host.expect("host"), guest.expect("guest"))
}

/// Serves every stream by sending back what comes, then ending it.
fn serve_echo(mut guest: Session) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(mut stream) = guest.accept().await {
            tokio::spawn(async move {
                if read_request::<_, Request>(&mut stream).await.is_err() {
                    return;
                }
                let (mut reader, mut writer) = tokio::io::split(stream);
                drop(tokio::io::copy(&mut reader, &mut writer).await);
                drop(writer.shutdown().await);
            });
        }
    })
}

async fn echo(host: &Session, text: &[u8]) -> Vec<u8> {
    let mut stream = host.opener().open(&Request::Engine {}).await.expect("opened");
    stream.write_all(text).await.expect("written");
    stream.shutdown().await.expect("half closed");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.expect("the answer outlives the half-close");
    back
}

#[tokio::test]
async fn thousands_of_streams_come_and_go() {
    let (host, guest) = connect().await;
    serve_echo(guest);
    let host = Arc::new(host);
    let mut workers = Vec::new();
    for worker in 0..50_u32 {
        let host = Arc::clone(&host);
        workers.push(tokio::spawn(async move {
            for round in 0..100_u32 {
                let text = format!("worker {worker} round {round}");
                assert_eq!(echo(&host, text.as_bytes()).await, text.as_bytes());
            }
        }));
    }
    for worker in workers {
        worker.await.expect("every stream carried its own text");
    }
}

#[tokio::test]
async fn as_many_streams_as_allowed_are_open_at_once_and_the_next_waits() {
    let (host, guest) = connect().await;
    serve_echo(guest);
    let mut open = Vec::new();
    for _ in 0..MAX_OPEN {
        open.push(host.opener().open(&Request::Engine {}).await.expect("opened"));
    }
    let waiting = timeout(Duration::from_millis(200), host.opener().open(&Request::Engine {})).await;
    assert!(waiting.is_err(), "one stream too many was opened");
    open.pop();
    host.opener().open(&Request::Engine {}).await.expect("a place became free");
    assert_eq!(echo_on(open.pop().expect("open")).await, b"still here");
}

#[tokio::test]
async fn a_stream_under_a_limit_of_its_own_takes_no_place_of_others() {
    let (host, guest) = connect().await;
    serve_echo(guest);
    let limit = Arc::new(Semaphore::new(1));
    let permit = Arc::clone(&limit).try_acquire_owned().expect("free");
    let own = host.opener().open_with(&Request::Published { id: 1 }, permit).await.expect("opened");
    let mut open = Vec::new();
    for _ in 0..MAX_OPEN {
        open.push(host.opener().open(&Request::Engine {}).await.expect("opened"));
    }
    assert_eq!(limit.available_permits(), 0);
    assert_eq!(echo_on(own).await, b"still here");
    assert_eq!(limit.available_permits(), 1, "the stream's end gives its permit back");
}

#[tokio::test]
async fn the_guest_opens_streams_as_the_host_does() {
    let (mut host, guest) = connect().await;
    let asked = HostRequest::Withdraw { id: 3 };
    let mut ours = guest.opener().open(&asked).await.expect("opened");
    let mut theirs = host.accept().await.expect("accepted");
    assert_eq!(read_request::<_, HostRequest>(&mut theirs).await.expect("read"), asked);
    theirs.write_all(b"done").await.expect("written");
    theirs.shutdown().await.expect("ended");
    let mut said = String::new();
    ours.read_to_string(&mut said).await.expect("read");
    assert_eq!(said, "done");
    drop(host);
    timeout(Duration::from_secs(5), guest.opener().closed()).await.expect("the end is seen");
}

async fn echo_on(mut stream: Stream) -> Vec<u8> {
    stream.write_all(b"still here").await.expect("written");
    stream.shutdown().await.expect("half closed");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.expect("read");
    back
}

#[tokio::test]
async fn a_hundred_megabytes_go_both_ways_while_another_stream_works() {
    static BLOCK: [u8; 1 << 20] = [0x5a; 1 << 20];
    let (host, guest) = connect().await;
    serve_echo(guest);
    let stream = host.opener().open(&Request::Engine {}).await.expect("opened");
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sent = async move {
        for _ in 0..100 {
            writer.write_all(&BLOCK).await.expect("written");
        }
        writer.shutdown().await.expect("half closed");
    };
    let received = async move {
        let mut block = vec![0; BLOCK.len()];
        for _ in 0..100 {
            reader.read_exact(&mut block).await.expect("read");
            assert!(block == BLOCK, "a byte changed");
        }
        assert_eq!(reader.read(&mut block).await.expect("the end"), 0);
    };
    let beside = async { assert_eq!(echo(&host, b"beside it").await, b"beside it") };
    tokio::join!(sent, received, beside);
}

/// A stream and what the guest accepted as that, behind its request.
async fn opened(host: &Session, guest: &mut Session) -> (Stream, Stream) {
    let stream = host.opener().open(&Request::Engine {}).await.expect("opened");
    let mut accepted = guest.accept().await.expect("accepted");
    read_request::<_, Request>(&mut accepted).await.expect("request");
    (stream, accepted)
}

#[tokio::test]
async fn a_dropped_stream_is_reset_and_the_session_lives() {
    let (host, mut guest) = connect().await;
    let (stream, mut accepted) = opened(&host, &mut guest).await;
    drop(stream);
    let mut rest = Vec::new();
    // A reset ends reading, and writing fails.
    drop(accepted.read_to_end(&mut rest).await);
    assert!(rest.is_empty());
    while accepted.write_all(b"more").await.is_ok() {
        tokio::task::yield_now().await;
    }
    serve_echo(guest);
    assert_eq!(echo(&host, b"next").await, b"next");
}

#[tokio::test]
async fn a_stream_that_is_dropped_after_its_own_end_keeps_no_writer_waiting() {
    let (host, mut guest) = connect().await;
    let (mut stream, mut accepted) = opened(&host, &mut guest).await;
    stream.write_all(b"all").await.expect("written");
    stream.shutdown().await.expect("half closed");
    drop(stream);
    let mut all = String::new();
    accepted.read_to_string(&mut all).await.expect("what was written before is whole");
    assert_eq!(all, "all");
    // Far more than fits any window.
    let refused = timeout(Duration::from_secs(5), accepted.write_all(&vec![0; 16 << 20])).await;
    refused.expect("nobody waits").expect_err("nobody takes it");
}

#[tokio::test]
async fn what_is_cut_off_does_not_read_like_what_has_ended() {
    let (host, mut guest) = connect().await;
    let (mut stream, mut accepted) = opened(&host, &mut guest).await;
    stream.write_all(b"a part").await.expect("written");
    stream.flush().await.expect("flushed");
    drop(stream);
    let mut part = Vec::new();
    let error = accepted.read_to_end(&mut part).await.expect_err("no orderly end");
    assert_eq!((part.as_slice(), error.kind()), (&b"a part"[..], io::ErrorKind::ConnectionReset));
    let (_stream, mut accepted) = opened(&host, &mut guest).await;
    drop(host);
    let error = accepted.read_to_end(&mut part).await.expect_err("nor with the session");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn nothing_is_written_behind_an_end() {
    let (host, mut guest) = connect().await;
    let (mut stream, _accepted) = opened(&host, &mut guest).await;
    stream.shutdown().await.expect("half closed");
    stream.shutdown().await.expect("it stays so");
    assert_eq!(stream.write_all(b"x").await.expect_err("refused").kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn an_endless_request_costs_its_sender_the_stream_only() {
    let (host, guest) = connect().await;
    serve_echo(guest);
    let (reply, opened) = oneshot::channel();
    host.opener().opens.send(reply).await.expect("asked");
    let mut bad = Stream::new(opened.await.expect("opened"), None);
    let endless = timeout(Duration::from_secs(20), async {
        while bad.write_all(&[b'x'; 4096]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    endless.await.expect("the stream was reset");
    assert_eq!(echo(&host, b"others").await, b"others");
}

#[tokio::test]
async fn garbage_instead_of_frames_ends_the_session_and_not_the_process() {
    let (mut wire, guest) = duplex(WIRE_BYTES);
    let host = tokio::spawn(async move {
        let mut io = BufStream::new(&mut wire);
        preamble::greet(&mut io, nonce(3)).await.expect("greeted");
        io.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
        io.flush().await.expect("flushed");
        wire
    });
    let mut session = Session::guest(guest).await.expect("a session");
    assert!(session.accept().await.is_none());
    let broken = session.ended().await;
    assert!(matches!(broken, Err(Error::Broken(_))), "{broken:?}");
    host.await.expect("no panic");
}

/// A virtio-serial port: the guest's end stays the same whatever host processes come and go.
#[tokio::test]
async fn a_new_host_gets_a_session_though_the_old_one_was_cut_in_a_frame() {
    let (wire, port) = duplex(WIRE_BYTES);
    let guest = tokio::spawn(serve_for_ever(port));
    let wire = lose_host_in_a_frame(wire).await;
    let host = timeout(Duration::from_secs(20), Session::host(wire, nonce(5))).await;
    let host = host.expect("in time").expect("a new session");
    assert_eq!(echo(&host, b"again").await, b"again");
    guest.abort();
}

/// A host that dies when the header of a frame of 16 KiB, and nothing of its body, is written.
async fn lose_host_in_a_frame(mut wire: DuplexStream) -> DuplexStream {
    let mut io = BufStream::new(&mut wire);
    preamble::greet(&mut io, nonce(4)).await.expect("greeted");
    io.write_all(&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0x40, 0]).await.expect("written");
    io.flush().await.expect("flushed");
    drop(io);
    wire
}

async fn serve_for_ever(port: DuplexStream) {
    let port = Arc::new(tokio::sync::Mutex::new(port));
    loop {
        let (near, mut far) = duplex(WIRE_BYTES);
        let relayed = Arc::clone(&port);
        let relay = tokio::spawn(async move {
            drop(tokio::io::copy_bidirectional(&mut *relayed.lock().await, &mut far).await);
        });
        let mut session = Session::guest(near).await.expect("a session");
        while let Some(mut stream) = session.accept().await {
            tokio::spawn(async move {
                drop(read_request::<_, Request>(&mut stream).await);
                let (mut reader, mut writer) = tokio::io::split(stream);
                drop(tokio::io::copy(&mut reader, &mut writer).await);
                drop(writer.shutdown().await);
            });
        }
        drop(session);
        relay.abort();
        drop(relay.await);
    }
}

#[tokio::test]
async fn a_session_that_is_dropped_ends_the_peer_and_its_streams() {
    let (host, mut guest) = connect().await;
    let mut stream = host.opener().open(&Request::Engine {}).await.expect("opened");
    write_request(&mut stream, &Request::Status {}).await.expect("written");
    drop(host);
    let ended = timeout(Duration::from_secs(5), guest.ended()).await.expect("in time");
    assert!(ended.is_ok() || matches!(ended, Err(Error::Broken(_))), "{ended:?}");
    let mut rest = Vec::new();
    let read = timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "the stream hangs");
}

#[test]
fn errors_name_the_link() {
    for error in [
        Error::Preamble(preamble::Error::Closed),
        Error::Ended,
        Error::Broken(yamux::ConnectionError::Closed),
    ] {
        assert!(error.to_string().contains("the link"), "{error}");
    }
}
