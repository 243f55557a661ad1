//! Streams against sockets in a temporary folder.

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, BufReader, DuplexStream, duplex};
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

#[tokio::test]
async fn an_engine_stream_is_raw_after_its_request_line() {
    let home = tempfile::tempdir().expect("temporary folder");
    let engine = UnixListener::bind(home.path().join("engine")).expect("bound");
    let served = serve(&home);
    let engine = tokio::spawn(async move {
        let (mut connection, _) = engine.accept().await.expect("connected");
        let mut head = String::new();
        connection.read_to_string(&mut head).await.expect("the half-close arrives");
        connection.write_all(b"200").await.expect("answered");
        head
    });
    assert_eq!(answer_to(served.peer, b"{\"stream\":\"engine\"}\nGET /_ping").await, "200");
    assert_eq!(engine.await.expect("no panic"), "GET /_ping");
    served.result.await.expect("no panic").expect("served");
}

#[tokio::test]
async fn a_registry_that_is_not_on_the_list_is_refused_in_the_engine_s_form() {
    let home = tempfile::tempdir().expect("temporary folder");
    let list = r#"{"version":1,"allowed":["registry.example.com"],"proxies":{}}"#;
    std::fs::write(home.path().join("registries"), list).expect("written");
    let engine = UnixListener::bind(home.path().join("engine")).expect("bound");
    let mut served = serve(&home);
    let engine = tokio::spawn(async move {
        let (mut connection, _) = engine.accept().await.expect("connected");
        let mut head = [0; 20];
        connection.read_exact(&mut head).await.expect("the first request");
        connection.write_all(b"first").await.expect("answered");
        let mut rest = String::new();
        connection.read_to_string(&mut rest).await.expect("the end");
        rest
    });
    served.peer.write_all(b"{\"stream\":\"engine\"}\nGET /_ping HTTP/1.1\n").await.expect("written");
    let mut first = [0; 5];
    served.peer.read_exact(&mut first).await.expect("an answer");
    let pull = b"POST /images/create?fromImage=registry.example.org%2Fx HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = answer_to(served.peer, pull).await;
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    assert!(
        answer.contains("\"message\":\"registry access to registry.example.org is not allowed ("),
        "{answer}"
    );
    assert_eq!(engine.await.expect("no panic"), "", "the engine heard of it");
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
