//! Against a gate in a temporary folder.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{self, JoinHandle};

use eci_contract::ports::Protocol;

use super::*;

fn announcement() -> Announcement {
    let address = |text: &str| text.parse().expect("an address");
    Announcement {
        protocol: Protocol::Udp,
        host: address("127.0.0.1:53"),
        container: address("172.17.0.2:53"),
    }
}

/// Without giving anything up, and with a signal of its own: a test's thread is not the process.
fn stay(folder: &tempfile::TempDir) -> Stay {
    let mut ending = SigSet::empty();
    ending.add(Signal::SIGUSR1);
    ending.thread_block().expect("blocked");
    let signals =
        SignalFd::with_flags(&ending, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).expect("made");
    let socket = folder.path().join("ports.sock");
    Stay { signals, socket: Box::leak(socket.into_boxed_path()) }
}

/// Raised for the thread that waits alone.
fn signal() {
    let itself = nix::sys::pthread::pthread_self();
    nix::sys::pthread::pthread_kill(itself, Signal::SIGUSR1).expect("raised");
}

/// Takes one announcement and answers it.
fn welcome(listener: &UnixListener, reply: &str) -> (UnixStream, String) {
    let (mut connection, _) = listener.accept().expect("connected");
    let mut line = String::new();
    BufReader::new(&connection).read_line(&mut line).expect("a line");
    connection.write_all(reply.as_bytes()).expect("answered");
    (connection, line)
}

fn gate(folder: &tempfile::TempDir, serve: impl FnOnce(UnixListener) + Send + 'static) -> JoinHandle<()> {
    let listener = UnixListener::bind(folder.path().join("ports.sock")).expect("bound");
    thread::spawn(move || serve(listener))
}

#[test]
fn a_port_is_announced_kept_over_a_restart_of_the_gate_and_left() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let stay = stay(&folder);
    let gate = gate(&folder, |listener| {
        let (first, line) = welcome(&listener, "\"ok\"\n");
        assert!(line.contains("\"container\":\"172.17.0.2:53\""), "{line}");
        drop(first);
        drop(welcome(&listener, "{\"error\":\"not yet\"}\n"));
        let (mut last, again) = welcome(&listener, "\"ok\"\n");
        assert_eq!(again, line);
        let mut rest = String::new();
        last.read_to_string(&mut rest).expect("the end is told");
        assert_eq!(rest, "");
    });
    let published = stay.publish(&announcement()).expect("published").expect("no signal");
    let kept = thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            // The announcement that is not answered with an error is the last one.
            let published = stay.wait(Some(&published), Duration::from_secs(5));
            assert_eq!(published.expect("waited"), Woken::Gate);
            let again = stay.publish_again(&announcement()).expect("asked").expect("no signal");
            signal();
            stay.keep(again, &announcement())
        });
        waiting.join().expect("no panic")
    });
    kept.expect("left in order");
    gate.join().expect("no panic");
}

#[test]
fn a_refusal_is_passed_on_in_its_own_words() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let stay = stay(&folder);
    let gate = gate(&folder, |listener| drop(welcome(&listener, "{\"error\":\"port 53 is taken\"}\n")));
    let error = stay.publish(&announcement()).expect_err("refused");
    assert_eq!(error.to_string(), "port 53 is taken");
    gate.join().expect("no panic");
}

#[test]
fn a_gate_that_talks_of_something_else_or_is_not_there_is_looked_for_again() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let stay = stay(&folder);
    let gate = gate(&folder, |listener| {
        for said in ["HTTP/1.1 200 OK\n", "", "{\"status\":1}\n", "\"o"] {
            drop(welcome(&listener, said));
        }
        drop(welcome(&listener, "\"ok\"\n"));
    });
    assert!(stay.publish(&announcement()).expect("published").is_some());
    gate.join().expect("no panic");
}

#[test]
fn a_signal_ends_the_wait_for_an_answer() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let stay = stay(&folder);
    signal();
    assert!(stay.publish(&announcement()).expect("no error").is_none(), "there is no gate");
    let gate = gate(&folder, |listener| {
        let (mut connection, _) = welcome(&listener, "");
        let mut rest = String::new();
        connection.read_to_string(&mut rest).expect("the end is told");
    });
    assert!(stay.publish(&announcement()).expect("no error").is_none(), "the gate does not answer");
    gate.join().expect("no panic");
}

#[test]
fn errors_are_whole_sentences_for_the_engine_s_user() {
    assert_eq!(Error::Late.to_string(), "the gate to the host did not answer within 14 s");
    assert_eq!(Error::Signals(Errno::EINVAL).to_string(), "cannot wait for signals");
}
