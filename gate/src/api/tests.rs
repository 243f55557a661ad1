//! Clients that write bytes against an engine that reads them.

use std::time::Duration;

use eci_contract::socket::{CommandList, ListKind};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(5);

/// An engine whose connections are the test's, but for what the gate asks of it.
struct Engine {
    folder: TempDir,
    connections: mpsc::Receiver<(String, UnixStream)>,
    task: JoinHandle<()>,
}

impl Engine {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let listener = UnixListener::bind(folder.path().join("engine")).expect("bound");
        let (sender, connections) = mpsc::channel(8);
        let task = tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let head = head_of(&mut connection).await;
                match known(&head) {
                    Some(answer) => connection.write_all(answer.as_bytes()).await.expect("answered"),
                    None => sender.send((head, connection)).await.expect("the test waits"),
                }
            }
        });
        Self { folder, connections, task }
    }

    fn client(&self) -> UnixStream {
        self.client_by(Rules::Distro)
    }

    fn client_by(&self, rules: Rules) -> UnixStream {
        let (near, far) = UnixStream::pair().expect("a pair");
        let socket = self.folder.path().join("engine");
        tokio::spawn(async move { serve(far, &socket, rules).await });
        near
    }

    /// The next request that is not the gate's own, and its connection behind the head.
    async fn next(&mut self) -> (String, UnixStream) {
        timeout(SOON, self.connections.recv()).await.expect("in time").expect("a request")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the engine says of its containers and volumes.
fn known(head: &str) -> Option<String> {
    let path = head.split(' ').nth(1).unwrap_or_default();
    let body = match path {
        "/containers/plain/json" => {
            r#"{"Id": "aa", "Mounts": [{"Type": "volume", "Name": "own", "Source": "/v"}]}"#
        }
        "/containers/shares/json" => {
            r#"{"Id": "dd", "Mounts": [], "HostsPath": "/var/lib/docker/volumes/v/_data/d", "HostnamePath": ""}"#
        }
        "/containers/bound/json" => r#"{"Id": "bb", "Mounts": [{"Type": "bind", "Source": "/run"}]}"#,
        "/containers/odd/json" => {
            r#"{"Id": "cc", "Mounts": [{"Type": "volume", "Name": "odd", "Source": "/v"}]}"#
        }
        "/volumes/own" => r#"{"Name": "own", "Options": null}"#,
        "/volumes/odd" => r#"{"Name": "odd", "Options": {"type": "none", "o": "bind", "device": "/run"}}"#,
        path if path.starts_with("/containers/") && path.ends_with("/json") => {
            return Some("HTTP/1.0 404 Not Found\r\n\r\n".to_owned());
        }
        _ => return None,
    };
    Some(format!("HTTP/1.0 200 OK\r\n\r\n{body}\n"))
}

async fn head_of(connection: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.expect("a head"));
    }
    String::from_utf8(head).expect("text")
}

async fn read(stream: &mut UnixStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    timeout(SOON, stream.read_exact(&mut bytes)).await.expect("in time").expect("read");
    String::from_utf8(bytes).expect("text")
}

async fn rest(mut stream: UnixStream) -> String {
    let mut text = String::new();
    timeout(SOON, stream.read_to_string(&mut text)).await.expect("an end").expect("read");
    text
}

/// What a client is answered that asks this and nothing more; the engine is not asked it.
async fn refused(engine: &mut Engine, request: &str) -> String {
    let mut client = engine.client();
    client.write_all(request.as_bytes()).await.expect("written");
    client.shutdown().await.expect("half closed");
    let said = rest(client).await;
    assert!(engine.connections.try_recv().is_err(), "the engine was asked: {request}");
    said
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: d\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn requests_follow_each_other_on_one_connection() {
    let mut engine = Engine::start();
    let mut client = engine.client();
    client
        .write_all(b"GET /v1.45/info?a=%20b HTTP/1.1\r\nHost: d\r\nX-Odd: 1\r\n\r\n")
        .await
        .expect("written");
    let (head, mut connection) = engine.next().await;
    assert!(
        head.starts_with("GET /v1.45/info?a=%20b HTTP/1.1\r\n") && head.contains("X-Odd: 1\r\n"),
        "{head}"
    );
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nApi-Version: 1.45\r\n\r\n3\r\none\r\n";
    connection.write_all(answer).await.expect("answered");
    let said = head_of(&mut client).await;
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.contains("Api-Version: 1.45\r\n"), "{said}");
    // A part arrives when it is there, not with the end.
    assert_eq!(read(&mut client, 8).await, "3\r\none\r\n");
    connection.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.expect("answered");
    assert_eq!(read(&mut client, 13).await, "3\r\ntwo\r\n0\r\n\r\n");
    client.write_all(b"HEAD /_ping HTTP/1.1\r\nHost: d\r\n\r\n").await.expect("written");
    let head = timeout(SOON, head_of(&mut connection)).await.expect("on the same connection");
    assert!(head.starts_with("HEAD /_ping "), "{head}");
    connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").await.expect("answered");
    assert!(head_of(&mut client).await.to_lowercase().contains("content-length: 2\r\n"));
}

#[tokio::test]
async fn a_connection_that_stops_being_http_ends_each_way_by_itself() {
    let mut engine = Engine::start();
    let mut client = engine.client();
    let ask =
        b"POST /containers/c/attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly";
    client.write_all(ask).await.expect("written");
    let (head, mut connection) = engine.next().await;
    assert!(head.contains("Connection: Upgrade\r\n") && head.contains("Upgrade: tcp\r\n"), "{head}");
    let answer = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello";
    connection.write_all(answer).await.expect("answered");
    assert!(head_of(&mut client).await.starts_with("HTTP/1.1 101 "));
    assert_eq!(read(&mut client, 5).await, "hello");
    client.write_all(b" and late").await.expect("written");
    client.shutdown().await.expect("half closed");
    let mut input = String::new();
    timeout(SOON, connection.read_to_string(&mut input)).await.expect("the end arrives").expect("read");
    assert_eq!(input, "early and late");
    connection.write_all(b"the last words").await.expect("written");
    drop(connection);
    assert_eq!(rest(client).await, "the last words");
}

#[tokio::test]
async fn a_client_that_asks_and_ends_its_half_gets_its_answer_and_the_engine_knows() {
    let mut engine = Engine::start();
    let mut client = engine.client();
    client.write_all(b"GET /events HTTP/1.0\r\n\r\n").await.expect("written");
    client.shutdown().await.expect("half closed");
    let (head, mut connection) = engine.next().await;
    assert!(head.contains("host: engine\r\n"), "{head}");
    assert_eq!(timeout(SOON, connection.read(&mut [0])).await.expect("the end arrives").expect("read"), 0);
    connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast").await.expect("answered");
    let said = rest(client).await;
    assert!(said.starts_with("HTTP/1.0 200 OK\r\n") && said.ends_with("\r\n\r\nlast"), "{said}");
}

#[tokio::test]
async fn a_client_that_goes_ends_what_is_done_for_it() {
    let mut engine = Engine::start();
    let mut client = engine.client();
    client.write_all(b"GET /containers/c/logs?follow=1 HTTP/1.1\r\nHost: d\r\n\r\n").await.expect("written");
    let (_, mut connection) = engine.next().await;
    connection.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.expect("answered");
    head_of(&mut client).await;
    drop(client);
    assert_eq!(timeout(SOON, connection.read(&mut [0])).await.expect("in time").expect("read"), 0);
}

#[tokio::test]
async fn a_question_that_breaks_off_is_not_asked_as_a_whole_one() {
    for broken in [
        "PUT /containers/plain/archive?path=/ HTTP/1.1\r\nHost: d\r\nContent-Length: 10\r\n\r\n12345",
        "PUT /containers/plain/archive?path=/ HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n5",
        "POST /images/load HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    ] {
        let mut engine = Engine::start();
        let mut client = engine.client();
        client.write_all(broken.as_bytes()).await.expect("written");
        client.shutdown().await.expect("half closed");
        let (head, mut connection) = engine.next().await;
        let mut body = String::new();
        timeout(SOON, connection.read_to_string(&mut body)).await.expect("an end").expect("read");
        let is_whole = if head.to_lowercase().contains("chunked") {
            body.ends_with("0\r\n\r\n")
        } else {
            body.len() >= 10
        };
        assert!(body.contains("12345") && !is_whole, "{broken}: {body}");
        drop(connection);
        rest(client).await;
    }
    let mut engine = Engine::start();
    let said =
        refused(&mut engine, "POST /volumes/create HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\n\r\n{}").await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{said}");
}

#[tokio::test]
async fn a_body_of_megabytes_goes_through_as_it_comes() {
    const MUCH: usize = 8 << 20;
    let mut engine = Engine::start();
    let client = engine.client();
    let (mut from_gate, mut to_gate) = client.into_split();
    let sending = tokio::spawn(async move {
        let head = format!("POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: {MUCH}\r\n\r\n");
        to_gate.write_all(head.as_bytes()).await.expect("written");
        to_gate.write_all(&vec![7; MUCH]).await.expect("written");
        // The question is whole, the engine still reads it.
        to_gate.shutdown().await.expect("half closed");
    });
    let (_, mut connection) = engine.next().await;
    let mut body = Vec::new();
    timeout(SOON, connection.read_to_end(&mut body)).await.expect("in time").expect("read");
    assert!(body.len() == MUCH && body.iter().all(|byte| *byte == 7), "{} bytes", body.len());
    connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.expect("answered");
    sending.await.expect("no panic");
    let mut said = String::new();
    timeout(SOON, from_gate.read_to_string(&mut said)).await.expect("in time").expect("read");
    assert!(said.starts_with("HTTP/1.1 200 OK"), "{said}");
}

#[tokio::test]
async fn a_container_is_looked_into_by_its_id_if_it_mounts_nothing_of_the_system() {
    let mut engine = Engine::start();
    for path in ["/v1.45/containers/plain/archive", "/v1.45/containers/pl%61in/archive"] {
        let mut client = engine.client();
        let ask = format!("GET {path}?path=%2Fx HTTP/1.1\r\nHost: d\r\n\r\n");
        client.write_all(ask.as_bytes()).await.expect("written");
        let (head, _connection) = engine.next().await;
        assert!(head.starts_with("GET /v1.45/containers/aa/archive?path=%2Fx HTTP/1.1\r\n"), "{head}");
    }
    for name in ["bound", "odd", "shares"] {
        for method in ["GET", "HEAD", "PUT"] {
            let ask =
                format!("{method} /v1.45/containers/{name}/archive?path=/x HTTP/1.1\r\nHost: d\r\n\r\n");
            let said = refused(&mut engine, &ask).await;
            assert!(said.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{said}");
            assert!(method == "HEAD" || said.contains("enhanced container isolation: can't "), "{said}");
        }
    }
    let said = refused(&mut engine, "GET /containers/none/archive?path=/ HTTP/1.1\r\nHost: d\r\n\r\n").await;
    assert!(
        said.starts_with("HTTP/1.1 404 ") && said.ends_with(r#"{"message":"No such container: none"}"#),
        "{said}"
    );
}

#[tokio::test]
async fn a_volume_is_made_without_options_and_its_request_is_what_it_was() {
    let mut engine = Engine::start();
    let body = r#"{"Name": "v",  "DriverOpts": {}}"#;
    let chunked = format!(
        "POST /volumes/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    for ask in [post("/v1.45/volumes/create", body), chunked] {
        let mut client = engine.client();
        client.write_all(ask.as_bytes()).await.expect("written");
        let (head, mut connection) = engine.next().await;
        assert!(head.to_lowercase().contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
        assert_eq!(read(&mut connection, body.len()).await, body);
    }
    let bad = r#"{"DriverOpts": {"type": "none", "o": "bind", "device": "/run"}}"#;
    let chunked = format!(
        "POST /volumes/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{bad}\r\n0\r\n\r\n",
        bad.len()
    );
    let with_options =
        r#"{"HostConfig": {"Mounts": [{"VolumeOptions": {"DriverConfig": {"Options": {"device": "/"}}}}]}}"#;
    for ask in [
        post("/v1.45/volumes/create", bad),
        post("/volumes/%63reate", bad),
        post("/volumes/create?x=/", bad),
        chunked,
        post("http://d/volumes/create", bad),
        post("/v1.45/containers/create?name=x", with_options),
        post(
            "/containers/create",
            r#"{"Image": "x", "Mounts": [{"VolumeOptions": {"DriverConfig": {"Options": {"o": "bind"}}}}]}"#,
        ),
        post(&format!("/v1.45/containers/create?name=a&n%61me={}", "0a".repeat(32)), "{}"),
        post(&format!("/containers/x/rename?name=%2F{}", "0a".repeat(32)), ""),
        post("/v1.45/plugins/pull", "{}"),
        post("/services/create", "{}"),
    ] {
        let said = refused(&mut engine, &ask).await;
        assert!(said.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{ask}: {said}");
    }
}

#[tokio::test]
async fn a_name_is_in_the_query_alone() {
    let mut engine = Engine::start();
    let mut client = engine.client();
    let form = format!("name={}", "0a".repeat(32));
    let ask = format!(
        "POST /containers/x/rename?name=y HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{form}",
        form.len()
    );
    client.write_all(ask.as_bytes()).await.expect("written");
    let (head, _connection) = engine.next().await;
    assert!(head.starts_with("POST /containers/x/rename?name=y ") && !head.contains("form"), "{head}");
}

#[tokio::test]
async fn who_is_refused_while_it_sends_hears_of_it() {
    const MUCH: usize = 4 << 20;
    let engine = Engine::start();
    // By its path, and by a body that is longer than any that is judged.
    for (asked, status) in [("PUT /containers/bound/archive?path=/x", 403), ("POST /volumes/create", 400)] {
        let (mut from_gate, mut to_gate) = engine.client().into_split();
        let head = format!("{asked} HTTP/1.1\r\nHost: d\r\nContent-Length: {MUCH}\r\n\r\n");
        to_gate.write_all(head.as_bytes()).await.expect("written");
        to_gate.write_all(&vec![7; MUCH]).await.expect("all of it is taken");
        to_gate.shutdown().await.expect("half closed");
        let mut said = String::new();
        timeout(SOON, from_gate.read_to_string(&mut said)).await.expect("in time").expect("read");
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
    }
}

#[tokio::test]
async fn a_client_that_goes_within_a_body_is_told_so() {
    let mut engine = Engine::start();
    let mut client = engine.client();
    let ask = b"POST /containers/x/exec HTTP/1.1\r\nHost: d\r\nContent-Length: 9\r\n\r\n{\"C";
    client.write_all(ask).await.expect("written");
    let (_, mut connection) = engine.next().await;
    client.shutdown().await.expect("half closed");
    let said = rest(client).await;
    assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("the request broke off"), "{said}");
    // The engine has what came, and no end of it.
    let mut body = Vec::new();
    timeout(SOON, connection.read_to_end(&mut body)).await.expect("in time").expect("read");
    assert_eq!(body, b"{\"C");
}

#[tokio::test]
async fn a_client_that_goes_after_trailers_is_seen_to_go() {
    let mut engine = Engine::start();
    let mut client = engine.client();
    let ask = b"POST /build HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n1\r\na\r\n0\r\nx: y\r\n\r\n";
    client.write_all(ask).await.expect("written");
    let (_, mut connection) = engine.next().await;
    drop(client);
    let mut body = Vec::new();
    timeout(SOON, connection.read_to_end(&mut body)).await.expect("in time").expect("read");
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_not_passed_on() {
    let mut engine = Engine::start();
    for ask in [
        // Two lengths, a length and chunks that end earlier, a folded header, a bare line feed in a chunk.
        "POST /volumes/create HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\nContent-Length: 30\r\n\r\n{}",
        "POST /volumes/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: d\r\nA: b\r\n\tcontinued\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: d\r\nTransfer-Encoding : chunked\r\n\r\n",
        "GET /x\r\n\r\n",
        "CONNECT d:80 HTTP/1.1\r\nHost: d\r\n\r\n",
    ] {
        let said = refused(&mut engine, ask).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{ask}: {said}");
    }
    // A length beside chunks: the chunks count, and the engine is told of no length.
    let both = "POST /volumes/create HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    let mut client = engine.client();
    client.write_all(both.as_bytes()).await.expect("written");
    let (head, mut connection) = engine.next().await;
    assert!(head.to_lowercase().contains("content-length: 2\r\n"), "{head}");
    assert_eq!(read(&mut connection, 2).await, "{}");
}

#[tokio::test]
async fn without_an_engine_a_client_is_told_so() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (mut client, far) = UnixStream::pair().expect("a pair");
    let socket = folder.path().join("none");
    tokio::spawn(async move { serve(far, &socket, Rules::Distro).await });
    client.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").await.expect("written");
    let said = rest(client).await;
    assert!(
        said.starts_with("HTTP/1.1 503 ") && said.contains("the engine in the VM is not running"),
        "{said}"
    );
}

/// Rules of a container that may not push, or with `allow` one that may list and nothing else.
fn container(kind: ListKind, names: &[&str]) -> Rules {
    let list = CommandList { kind, commands: names.iter().map(|name| (*name).to_owned()).collect() };
    Rules::Container { commands: Arc::new(Commands::new(&list)), place: Arc::new(Place::default()) }
}

#[test]
fn what_is_told_of_a_refusal_is_no_longer_than_a_line() {
    let Rules::Container { commands, .. } = container(ListKind::Deny, &["push"]) else {
        panic!("a container's")
    };
    let uri: Uri = format!("/images/{}/push", "a".repeat(60_000)).parse().expect("a path");
    let refusal = judge::command(&"X".repeat(60_000), &uri, &commands).err().expect("it pushes");
    let refused = refusal.refused.expect("by a rule");
    assert!(refused.action.len() < 300, "{}", refused.action.len());
    assert!(
        refused.action.starts_with("XXX") && refused.action.contains(" /images/aaa"),
        "{}",
        refused.action
    );
    assert!(refused.message.len() < 1000);
}

#[tokio::test]
async fn a_container_s_list_is_asked_about_each_request_however_it_is_written() {
    let mut engine = Engine::start();
    for request in [
        "POST /v1.45/images/a/push HTTP/1.1\r\nHost: d\r\n\r\n",
        "POST /v1.45/images/a/push?tag=latest HTTP/1.1\r\nHost: d\r\n\r\n",
        "POST /images/host:5000/a/b/push HTTP/1.1\r\nHost: d\r\n\r\n",
        "POST /images/a%2fb/%70ush HTTP/1.1\r\nHost: d\r\n\r\n",
        "POST http://elsewhere/images/a/push HTTP/1.1\r\nHost: d\r\n\r\n",
        "POST /v1.45//images/a/push HTTP/1.1\r\nHost: d\r\n\r\n",
        "POST /v1.45/./images/a/push HTTP/1.1\r\nHost: d\r\n\r\n",
        "POST /x/..%2fimages/a/push HTTP/1.1\r\nHost: d\r\n\r\n",
        "POST /images/a/push/ HTTP/1.1\r\nHost: d\r\n\r\n",
        "GET /debug/vars HTTP/1.1\r\nHost: d\r\n\r\n",
    ] {
        let mut client = engine.client_by(container(ListKind::Deny, &["push"]));
        client.write_all(request.as_bytes()).await.expect("written");
        client.shutdown().await.expect("half closed");
        let said = rest(client).await;
        assert!(
            said.starts_with("HTTP/1.1 403 ") && said.contains("is blocked; if you wish to allow it"),
            "{said}"
        );
        assert!(engine.connections.try_recv().is_err(), "the engine was asked: {request}");
    }
    // On one connection: what may go on does, and what follows is judged by itself.
    let mut client = engine.client_by(container(ListKind::Allow, &["ps"]));
    client.write_all(b"GET /v1.45/containers/json HTTP/1.1\r\nHost: d\r\n\r\n").await.expect("written");
    let (head, mut connection) = engine.next().await;
    assert!(head.starts_with("GET /v1.45/containers/json "), "{head}");
    connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]").await.expect("answered");
    assert!(head_of(&mut client).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(read(&mut client, 2).await, "[]");
    client
        .write_all(b"POST /v1.45/containers/prune HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
        .await
        .expect("written");
    assert!(head_of(&mut client).await.starts_with("HTTP/1.1 403 "));
}
