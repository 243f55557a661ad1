//! What Testcontainers starts beside the containers of a test run, to remove them when that has ended or was killed: it speaks as
//! Ryuk does (listens on 8080, takes lines `label=KEY=VALUE&…`, answers `ACK`), for there is no package of Ryuk itself.
//!
//! It asks the engine by the socket that Testcontainers mounts into its container.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// Where Testcontainers connects to.
const PORT: u16 = 8080;
/// The engine's socket.
const SOCKET: &str = "/var/run/docker.sock";
/// How long nobody may be connected before the run is taken for ended.
const RECONNECTION: Duration = Duration::from_secs(2);
/// How long the first connection may take.
const FIRST_CONNECTION: Duration = Duration::from_secs(60);

/// What is removed, in this order: where it is listed, the list in the answer, a name in an element, and the path and query to delete it.
const KINDS: [(&str, &str, &str, &str, &str); 4] = [
    ("/containers/json?all=1&", "", "/Id", "/containers/", "?force=1&v=1"),
    ("/networks?", "", "/Id", "/networks/", ""),
    ("/volumes?", "/Volumes", "/Name", "/volumes/", "?force=1"),
    ("/images/json?", "", "/Id", "/images/", "?force=1"),
];

/// What the connections have said so far.
#[derive(Default)]
struct Told {
    filters: BTreeSet<Vec<String>>,
    connected: usize,
}

type Shared = Arc<(Mutex<Told>, Condvar)>;

fn main() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    ensure!(ask("GET", "/_ping")? == b"OK", "the engine does not answer");
    let shared = Shared::default();
    writeln!(io::stdout(), "ryuk: Started!")?;
    let accepting = Arc::clone(&shared);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shared = Arc::clone(&accepting);
            change(&shared, |told| told.connected += 1);
            thread::spawn(move || {
                // A client that is killed has said all that it will.
                drop(listen(&stream, &shared));
                change(&shared, |told| told.connected -= 1);
            });
        }
    });
    wait_for_the_end(&shared);
    let filters = shared.0.lock().unwrap_or_else(PoisonError::into_inner).filters.clone();
    for labels in filters {
        remove(&labels)?;
    }
    Ok(())
}

fn change(shared: &Shared, change: impl FnOnce(&mut Told)) {
    change(&mut shared.0.lock().unwrap_or_else(PoisonError::into_inner));
    shared.1.notify_all();
}

/// Until nobody has been connected for a while.
fn wait_for_the_end(shared: &Shared) {
    let (told, changed) = &**shared;
    let mut patience = FIRST_CONNECTION;
    let mut guard = told.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let waited = changed.wait_timeout(guard, patience).unwrap_or_else(PoisonError::into_inner);
        guard = waited.0;
        if guard.connected > 0 {
            patience = RECONNECTION;
        } else if waited.1.timed_out() {
            return;
        }
    }
}

fn listen(stream: &TcpStream, shared: &Shared) -> Result<()> {
    for line in BufReader::new(stream).lines() {
        let labels: Vec<_> =
            line?.split('&').filter_map(|part| Some(part.strip_prefix("label=")?.to_owned())).collect();
        if !labels.is_empty() {
            change(shared, |told| _ = told.filters.insert(labels));
            (&*stream).write_all(b"ACK\n")?;
        }
    }
    Ok(())
}

fn remove(labels: &[String]) -> Result<()> {
    let host = fs::read_to_string("/etc/hostname")?;
    let own = host.trim();
    ensure!(!own.is_empty(), "the container has no name");
    let filters = encoded(&json!({ "label": labels }).to_string());
    for (list, place, name, delete, query) in KINDS {
        let answer: Value = serde_json::from_slice(&ask("GET", &format!("{list}filters={filters}"))?)?;
        for element in answer.pointer(place).and_then(Value::as_array).into_iter().flatten() {
            let name = element.pointer(name).and_then(Value::as_str).context("an element with a name")?;
            // Its own container may have the label as well: that is left to who started it.
            if name.starts_with(own) {
                continue;
            }
            ask("DELETE", &format!("{delete}{name}{query}"))?;
            writeln!(io::stdout(), "ryuk: removed {delete}{name}")?;
        }
    }
    Ok(())
}

/// The engine's answer. HTTP/1.0: it ends with the connection.
fn ask(method: &str, path: &str) -> Result<Vec<u8>> {
    let mut stream = UnixStream::connect(SOCKET).with_context(|| format!("cannot connect to {SOCKET}"))?;
    stream.write_all(format!("{method} {path} HTTP/1.0\r\nHost: engine\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .context("the answer has no end of its head")?;
    let (head, body) = answer.split_at(end + 4);
    let head = String::from_utf8_lossy(head);
    let status = head.split(' ').nth(1).unwrap_or_default();
    if !status.starts_with('2') {
        bail!("{method} {path}: {status} {}", String::from_utf8_lossy(body));
    }
    Ok(body.to_vec())
}

/// A value of a query.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
