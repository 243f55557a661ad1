//! Documents of a made-up instance whose VM answers what it likes.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use eci_contract::disk::{Medium, Slot};
use eci_contract::status::{BootTimes, Check, Image, State, Step};
use serde_json::json;

use super::*;

const MARKUP: &str = "<img src=x onerror=\"alert(1)\">&'</script>";

fn status() -> Status {
    Status {
        version: 1,
        state: State::Ready,
        reason: MARKUP.to_owned(),
        image: Image {
            name: "eci".to_owned(),
            version: "0.1.0".to_owned(),
            root_hash: "ab".repeat(32),
            medium: Medium::Disk,
            slot: Slot::A,
            on_trial: false,
        },
        settings: None,
        boot_ms: BootTimes { kernel: 1400, init: 1600, engine: 7100 },
        steps: vec![Step { name: "mounts".to_owned(), ms: 12, outcome: "ok".to_owned() }],
        checks: vec![Check {
            id: "root-verity".to_owned(),
            promise: "the root is verified".to_owned(),
            holds: true,
            found: MARKUP.to_owned(),
            left_out: None,
        }],
        services: Vec::new(),
        address: None,
        shares: Vec::new(),
        measured: Vec::new(),
        memory_used_kib: 123,
    }
}

fn container(id: &str, command: &str) -> engine::Container {
    let text = json!({"Id": id, "Names": ["/web"], "Image": "busybox", "Command": command, "Status": "Up 2 minutes"});
    serde_json::from_value(text).expect("a container")
}

/// An instance that has a record and, if it is to run, somebody who holds it. What asks over the link is answered by `answer`.
struct Made {
    _state: tempfile::TempDir,
    home: Home,
    _holder: Option<Holder>,
}

/// Record locks are a process's own: what holds one has to be another process.
struct Holder(std::process::Child);

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}

impl Made {
    fn stopped() -> Self {
        let state = tempfile::tempdir().expect("temporary folder");
        let home = Home::under(state.path(), "x").expect("legal");
        home.create().expect("made");
        let record = json!({
            "version": 1, "artifacts": "/out", "data": "/data.raw", "accel": "tcg", "memory_mib": 2048, "cpus": 2, "pid": 1,
        });
        home.save(&serde_json::from_value(record).expect("a record")).expect("saved");
        Self { _state: state, home, _holder: None }
    }

    fn running(answer: fn(&str, &mut UnixStream)) -> Self {
        use std::process::{Command, Stdio};

        let made = Self::stopped();
        let script = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()";
        let mut holder = Command::new("python3");
        holder.args(["-c", script]).arg(made.home.root().join("lock.holder"));
        let mut holder =
            holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 is there");
        std::io::Read::read_exact(holder.stdout.as_mut().expect("a pipe"), &mut [0])
            .expect("it holds the lock");
        serve(made.home.link_socket(), answer);
        serve(made.home.docker_socket(), answer);
        Self { _holder: Some(Holder(holder)), ..made }
    }

    fn document(&self) -> Value {
        serde_json::from_slice(&Source::of(self.home.clone()).json()).expect("JSON")
    }
}

/// Gives the first line of each connection to `answer`.
fn serve(socket: PathBuf, answer: fn(&str, &mut UnixStream)) {
    let listener = UnixListener::bind(socket).expect("bound");
    thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut line = String::new();
            let mut reader = BufReader::new(connection.try_clone().expect("a second descriptor"));
            reader.read_line(&mut line).expect("a line");
            answer(&line, &mut connection);
        }
    });
}

fn send(connection: &mut UnixStream, text: &str) {
    // Who asked may have had enough.
    drop(connection.write_all(text.as_bytes()));
}

fn honest(line: &str, connection: &mut UnixStream) {
    let id = "0".repeat(64);
    if line.contains("\"status\"") {
        let reply = serde_json::to_string(&json!({ "status": status() })).expect("JSON");
        send(connection, &(reply + "\n"));
    } else if line.contains("\"ranges\"") {
        let range = json!({"first": 165_536, "count": 65_536, "containers": [id]});
        send(connection, &format!("\"ok\"\n{range}\n"));
    } else if line.starts_with("GET /v1.41/containers/json ") {
        let list = json!([{"Id": id, "Names": ["/web"], "Image": "busybox", "Command": MARKUP, "Status": "Up 2 minutes"}]);
        send(connection, &format!("HTTP/1.0 200 OK\r\n\r\n{list}"));
    } else if line.starts_with("GET ") {
        let figures = json!({
            "memory_stats": {"usage": 5000, "stats": {"inactive_file": 1000}}, "cpu_stats": {"cpu_usage": {"total_usage": 77}},
        });
        send(connection, &format!("HTTP/1.0 200 OK\r\n\r\n{figures}"));
    } else {
        send(connection, "{\"error\":\"not now\"}\n");
    }
}

#[test]
fn the_document_has_what_the_page_draws() {
    let document = Made::running(honest).document();
    assert_eq!(document["version"], 1);
    assert_eq!(document["name"], "x");
    let machine =
        json!({"architecture": "x86_64", "accelerator": "tcg", "memory_mib": 2048, "processors": 2});
    assert_eq!(document["machine"]["found"], machine);
    assert_eq!(document["status"]["found"], serde_json::to_value(status()).expect("JSON"));
    let container = json!({
        "id": "0".repeat(64), "name": "web", "image": "busybox", "command": MARKUP, "state": "Up 2 minutes",
        "ids": {"first": 165_536, "last": 231_071}, "usage": {"memory_bytes": 4000, "cpu_ns": 77},
    });
    let containers = json!({"running": [container], "left_out": 0, "ranges_missing": null});
    assert_eq!(document["containers"]["found"], containers);
    assert!(document["denials"]["missing"].is_string(), "{}", document["denials"]);
}

#[test]
fn an_instance_that_is_stopped_or_gone_is_said_to_be() {
    let made = Made::stopped();
    let document = made.document();
    let told = document["status"]["missing"].as_str().expect("a reason").to_owned();
    assert!(told.contains("is stopped") && told.contains("eci-builder run"), "{told}");
    assert_eq!(document["machine"]["found"]["memory_mib"], 2048);
    std::fs::remove_file(made.home.root().join("instance.json")).expect("removed");
    let document = made.document();
    for part in ["machine", "status"] {
        assert_eq!(document[part]["missing"], "there is no instance `x`", "{part}");
    }
}

#[test]
fn garbage_of_the_vm_is_a_reason_and_no_panic() {
    for (answer, words) in [
        (
            (|_, connection| send(connection, "\u{0}\u{1}\n")) as fn(&str, &mut UnixStream),
            "something else than a reply",
        ),
        (|_, connection| send(connection, &"[".repeat(3 << 20)), "something else than a reply"),
        (|_, connection| send(connection, "{\"status\":{\"version\":1}}\n"), "missing field"),
        (|_, connection| send(connection, "{\"error\":\"<b>no</b>\"}\n"), "the VM refused: <b>no</b>"),
        (|_, _| (), "did not answer"),
    ] {
        let document = Made::running(answer).document();
        let told = document["status"]["missing"].as_str().expect("a reason");
        assert!(told.contains(words), "{told}");
        assert_eq!(document["containers"]["missing"], "the VM does not answer");
    }
}

#[test]
fn an_engine_that_answers_garbage_leaves_the_rest_of_the_page() {
    let document = Made::running(|line, connection| match line.starts_with("GET ") {
        true => send(connection, "HTTP/1.0 200 OK\r\n\r\n<html>"),
        false => honest(line, connection),
    })
    .document();
    let told = document["containers"]["missing"].as_str().expect("a reason");
    assert!(told.contains("something else than its API has"), "{told}");
    assert_eq!(document["status"]["found"]["state"], "ready");
}

#[test]
fn ranges_and_figures_that_are_not_known_are_left_open() {
    let containers = vec![container("one", "sh"), container("two", "sh")];
    let range = IdRange { first: u32::MAX, count: 65_536, containers: vec!["one".to_owned()] };
    let told = listed(containers, Part::Found(vec![range]), |_| None);
    assert!(told.running.iter().all(|row| row.ids.is_none() && row.usage.is_none()), "{told:?}");
    let told = listed(vec![container("one", "sh")], Part::Missing("not understood".to_owned()), |_| None);
    assert_eq!(told.ranges_missing.as_deref(), Some("not understood"));
}

#[test]
fn whatever_an_engine_makes_up_has_bounds() {
    let containers = (0..1000).map(|_| container(&"0".repeat(64), &"é".repeat(100_000))).collect();
    let asked = std::cell::Cell::new(0);
    let told = listed(containers, Part::Found(Vec::new()), |_| {
        asked.set(asked.get() + 1);
        None
    });
    assert_eq!((told.running.len(), told.left_out, asked.get()), (MOST_CONTAINERS, 800, MOST_MEASURED));
    assert!(told.running.iter().all(|row| row.command.chars().count() == MOST_CHARS));
    let mut long = status();
    long.steps = vec![long.steps[0].clone(); 10_000];
    assert_eq!(bounded(long).steps.len(), MOST_ROWS);
}

#[test]
fn who_asks_while_one_is_gathered_shares_the_next_and_nobody_gets_an_old_one() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let made = Made::running(|line, connection| {
        if line.contains("\"status\"") {
            ASKED.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(300));
        }
        honest(line, connection);
    });
    let source = Source::of(made.home.clone());
    thread::scope(|scope| {
        scope.spawn(|| source.json());
        thread::sleep(Duration::from_millis(100));
        for _ in 0..5 {
            scope.spawn(|| source.json());
        }
    });
    assert_eq!(ASKED.load(Ordering::Relaxed), 2);
    drop(source.json());
    assert_eq!(ASKED.load(Ordering::Relaxed), 3);
}
