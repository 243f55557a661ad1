//! Streams against sockets in a temporary folder.

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, DuplexStream, duplex};
use tokio::net::UnixListener;

use super::*;

/// A stream being served against sockets that may or may not be there.
struct Served {
    peer: DuplexStream,
    result: tokio::task::JoinHandle<Result<(), Error>>,
}

fn serve(home: &TempDir) -> Served {
    let (peer, stream) = duplex(64 * 1024);
    let [engine, init, audit, ranges, registries] =
        ["engine", "init", "audit", "ranges", "registries"].map(|name| home.path().join(name));
    let result = tokio::spawn(async move {
        let sockets =
            Sockets { engine: &engine, init: &init, audit: &audit, ranges: &ranges, registries: &registries };
        stream_on(BufReader::new(stream), sockets, &Ports::default()).await
    });
    Served { peer, result }
}

async fn answer_to(mut peer: DuplexStream, text: &[u8]) -> String {
    peer.write_all(text).await.expect("written");
    peer.shutdown().await.expect("half closed");
    let mut answer = String::new();
    peer.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test]
async fn the_audit_log_is_read_here_and_its_writer_s_lines_follow_the_reply() {
    let home = tempfile::tempdir().expect("temporary folder");
    std::fs::write(home.path().join("audit"), "one\n").expect("written");
    let answer = answer_to(serve(&home).peer, b"{\"stream\":\"audit\",\"follow\":false}\n").await;
    assert_eq!(answer, "\"ok\"\none\n");
}

#[tokio::test]
async fn the_id_ranges_are_read_here() {
    let home = tempfile::tempdir().expect("temporary folder");
    std::fs::create_dir(home.path().join("ranges")).expect("made");
    std::fs::write(home.path().join("ranges/100000"), "one").expect("written");
    let answer = answer_to(serve(&home).peer, b"{\"stream\":\"ranges\"}\n").await;
    assert_eq!(answer, "\"ok\"\n{\"first\":100000,\"count\":65536,\"containers\":[\"one\"]}\n");
}

/// An engine that answers so many requests, and gives what it was asked.
fn engine(home: &TempDir, count: usize) -> tokio::task::JoinHandle<Vec<String>> {
    let engine = UnixListener::bind(home.path().join("engine")).expect("bound");
    tokio::spawn(async move {
        // Whether it is there.
        drop(engine.accept().await.expect("connected"));
        let mut asked = Vec::new();
        if count > 0 {
            let (connection, _) = engine.accept().await.expect("connected");
            let mut connection = BufReader::new(connection);
            for _ in 0..count {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    let line = connection.read_line(&mut head).await.expect("a line");
                    assert!(line > 0, "{head}");
                }
                asked.push(head.lines().next().unwrap_or_default().to_owned());
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";
                connection.write_all(answer).await.expect("answered");
            }
        }
        asked
    })
}

const PING: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn an_engine_stream_has_the_engine_s_answers() {
    let home = tempfile::tempdir().expect("temporary folder");
    let engine = engine(&home, 2);
    let served = serve(&home);
    let asked = [b"{\"stream\":\"engine\"}\n", PING, PING].concat();
    let answer = answer_to(served.peer, &asked).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{answer}");
    assert_eq!(engine.await.expect("no panic"), ["GET /_ping HTTP/1.1"; 2]);
    served.result.await.expect("no panic").expect("served");
}

#[tokio::test]
async fn a_driver_that_is_named_by_a_way_out_is_refused_in_the_engine_s_form() {
    let home = tempfile::tempdir().expect("temporary folder");
    let engine = engine(&home, 0);
    let body = "{\"Name\":\"v\",\"Driver\":\"../v/_data/x\"}";
    let head =
        format!("POST /v1.45/volumes/create HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    let asked = [b"{\"stream\":\"engine\"}\n", head.as_bytes(), body.as_bytes()].concat();
    let answer = answer_to(serve(&home).peer, &asked).await;
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    assert!(answer.contains("can't have the driver `../v/_data/x`"), "{answer}");
    assert!(engine.await.expect("no panic").is_empty());
}

#[tokio::test]
async fn a_registry_that_is_not_on_the_list_is_refused_in_the_engine_s_form() {
    let home = tempfile::tempdir().expect("temporary folder");
    let list = r#"{"version":1,"allowed":["registry.example.com"],"proxies":{}}"#;
    std::fs::write(home.path().join("registries"), list).expect("written");
    let engine = engine(&home, 1);
    let mut served = serve(&home);
    served.peer.write_all(&[b"{\"stream\":\"engine\"}\n", PING].concat()).await.expect("written");
    let mut first = [0; 17];
    served.peer.read_exact(&mut first).await.expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200 OK\r\n");
    let pull = b"POST /images/create?fromImage=registry.example.org%2Fx HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = answer_to(served.peer, pull).await;
    let refused = "\"message\":\"registry access to registry.example.org is not allowed (";
    assert!(answer.contains("HTTP/1.1 403 Forbidden\r\n") && answer.contains(refused), "{answer}");
    assert_eq!(engine.await.expect("no panic"), ["GET /_ping HTTP/1.1"], "the engine heard of it");
}

#[tokio::test]
async fn other_requests_reach_pid_1_with_their_line() {
    let home = tempfile::tempdir().expect("temporary folder");
    let init = UnixListener::bind(home.path().join("init")).expect("bound");
    let served = serve(&home);
    let init = tokio::spawn(async move {
        let (mut connection, _) = init.accept().await.expect("connected");
        let mut line = String::new();
        connection.read_to_string(&mut line).await.expect("read");
        connection.write_all(b"\"ok\"\n").await.expect("answered");
        line
    });
    assert_eq!(answer_to(served.peer, b"{\"stream\":\"clock\",\"unix_ns\":5}\n").await, "\"ok\"\n");
    assert_eq!(init.await.expect("no panic"), "{\"stream\":\"clock\",\"unix_ns\":5}\n");
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_an_http_answer() {
    let home = tempfile::tempdir().expect("temporary folder");
    let served = serve(&home);
    let answer = answer_to(served.peer, b"{\"stream\":\"engine\"}\n").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"message\":"), "{answer}");
    assert!(matches!(served.result.await.expect("no panic"), Err(Error::Connect { .. })));
}

#[tokio::test]
async fn what_is_no_request_is_refused_in_words() {
    let home = tempfile::tempdir().expect("temporary folder");
    for bad in [&b"{\"stream\":\"shell\"}\n"[..], &[b'x'; 5000]] {
        let served = serve(&home);
        let answer = answer_to(served.peer, bad).await;
        assert!(answer.starts_with("{\"error\":\""), "{answer}");
        assert!(matches!(served.result.await.expect("no panic"), Err(Error::Request(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_cut_off() {
    let home = tempfile::tempdir().expect("temporary folder");
    let served = serve(&home);
    assert!(matches!(served.result.await.expect("no panic"), Err(Error::Silent)));
}

#[test]
fn errors_name_their_object() {
    let missing = io::Error::from(io::ErrorKind::NotFound);
    let error = Error::Connect { socket: "/run/x.sock".into(), source: missing };
    assert_eq!(error.to_string(), "cannot connect to `/run/x.sock`");
    assert_eq!(Error::Silent.to_string(), "a stream without a request was cut off");
}
