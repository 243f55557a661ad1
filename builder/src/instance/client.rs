//! What other commands ask of a running instance, through its sockets. Blocking: a command asks one thing.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use eci_contract::attest::Evidence;
use eci_contract::link::{Reply, Request};
use eci_contract::ranges::IdRange;
use eci_contract::status::{State, Status};
use eci_link::request::MAX_REPLY_BYTES;

use super::home::Home;
use super::timed::Timed;

/// How long the VM may take to answer. It answers from memory; under TCG on a busy host that still is seconds.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// How long its TPM may take for a quote. Some take seconds for each of a handful of steps.
const QUOTE_DEADLINE: Duration = Duration::from_secs(60);
/// Longest list of id ranges in bytes: some ten thousand containers.
const MAX_RANGES_BYTES: u64 = 1 << 20;

/// Why the instance did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its socket takes no connection.
    #[error("cannot connect to `{}`", .socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection failed or timed out.
    #[error("the instance did not answer")]
    Silent(#[source] io::Error),
    /// The answer is not part of the protocol.
    #[error("the instance answered with something else than a reply")]
    Malformed(#[source] serde_json::Error),
    /// The VM refused.
    #[error("the VM refused: {reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
}

/// The VM's view of itself.
///
/// # Errors
/// [`Error`].
pub fn status(home: &Home) -> Result<Status, Error> {
    match ask(home, &Request::Status {})?.1 {
        Reply::Status(status) => Ok(*status),
        Reply::Error(reason) => Err(Error::Refused { reason }),
        Reply::Ok | Reply::Evidence(_) => Err(other_question()),
    }
}

/// What its TPM says of this boot, in answer to a nonce in hexadecimal.
///
/// # Errors
/// [`Error`]; also when the machine has no TPM.
pub fn evidence(home: &Home, nonce: String) -> Result<Evidence, Error> {
    match ask_within(home, &Request::Attest { nonce }, QUOTE_DEADLINE)?.1 {
        Reply::Evidence(evidence) => Ok(*evidence),
        Reply::Error(reason) => Err(Error::Refused { reason }),
        Reply::Ok | Reply::Status(_) => Err(other_question()),
    }
}

/// Asks for an orderly shutdown; gives back when it has begun.
///
/// # Errors
/// [`Error`].
pub fn shutdown(home: &Home) -> Result<(), Error> {
    accepted(ask(home, &Request::Shutdown {})?.1)
}

/// The id ranges in use.
///
/// # Errors
/// [`Error`].
pub fn ranges(home: &Home) -> Result<Vec<IdRange>, Error> {
    let (stream, reply) = ask(home, &Request::Ranges {})?;
    accepted(reply)?;
    let mut lines = Vec::new();
    stream.take(MAX_RANGES_BYTES).read_to_end(&mut lines).map_err(Error::Silent)?;
    serde_json::Deserializer::from_slice(&lines)
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(Error::Malformed)
}

/// The VM's log as a stream of lines; it ends by itself unless `follow` is set.
///
/// # Errors
/// [`Error`].
pub fn logs(home: &Home, follow: bool) -> Result<impl Read + use<>, Error> {
    lines(home, &Request::Logs { follow })
}

/// The audit log as a stream of lines; it ends by itself unless `follow` is set.
///
/// # Errors
/// [`Error`].
pub fn audit(home: &Home, follow: bool) -> Result<impl BufRead + use<>, Error> {
    lines(home, &Request::Audit { follow })
}

fn lines(home: &Home, request: &Request) -> Result<BufReader<Timed>, Error> {
    let (mut stream, reply) = ask(home, request)?;
    accepted(reply)?;
    stream.get_mut().wait_for_ever().map_err(Error::Silent)?;
    Ok(stream)
}

/// The VM's view of itself, once it calls itself ready and the engine answers its `/_ping`.
#[must_use]
pub fn ready(home: &Home) -> Option<Status> {
    let status = status(home).ok().filter(|status| status.state == State::Ready)?;
    ping(&home.docker_socket()).unwrap_or(false).then_some(status)
}

fn ping(socket: &Path) -> io::Result<bool> {
    let mut stream = Timed::connect(socket, ANSWER_DEADLINE)?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: eci\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(stream.take(1024)).read_line(&mut line)?;
    Ok(line.split(' ').nth(1) == Some("200"))
}

fn accepted(reply: Reply) -> Result<(), Error> {
    match reply {
        Reply::Ok => Ok(()),
        Reply::Error(reason) => Err(Error::Refused { reason }),
        Reply::Status(_) | Reply::Evidence(_) => Err(other_question()),
    }
}

fn other_question() -> Error {
    Error::Refused { reason: "it answered another question".to_owned() }
}

fn ask(home: &Home, request: &Request) -> Result<(BufReader<Timed>, Reply), Error> {
    ask_within(home, request, ANSWER_DEADLINE)
}

fn ask_within(
    home: &Home,
    request: &Request,
    patience: Duration,
) -> Result<(BufReader<Timed>, Reply), Error> {
    let socket = home.link_socket();
    let connected = Timed::connect(&socket, patience);
    let mut stream = connected.map_err(|source| Error::Connect { socket, source })?;
    let mut line = serde_json::to_vec(request).map_err(Error::Malformed)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(Error::Silent)?;
    let mut stream = BufReader::new(stream);
    let mut answer = Vec::new();
    let limit = u64::try_from(MAX_REPLY_BYTES).expect("a megabyte fits");
    stream.by_ref().take(limit).read_until(b'\n', &mut answer).map_err(Error::Silent)?;
    if answer.is_empty() {
        return Err(Error::Silent(io::ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_slice(&answer).map(|reply| (stream, reply)).map_err(Error::Malformed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// An instance whose link socket gives one answer.
    fn answering(answer: &'static str) -> (tempfile::TempDir, Home, thread::JoinHandle<String>) {
        let state = tempfile::tempdir().expect("temporary folder");
        let home = Home::under(state.path(), "x").expect("legal");
        home.create().expect("made");
        let listener = UnixListener::bind(home.link_socket()).expect("bound");
        let server = thread::spawn(move || {
            let (mut connection, _) = listener.accept().expect("connected");
            let mut line = String::new();
            BufReader::new(&connection).read_line(&mut line).expect("a request");
            connection.write_all(answer.as_bytes()).expect("answered");
            line
        });
        (state, home, server)
    }

    #[test]
    fn a_refusal_carries_the_words_of_the_vm() {
        let (_state, home, server) = answering("{\"error\":\"not now\"}\n");
        assert_eq!(shutdown(&home).expect_err("refused").to_string(), "the VM refused: not now");
        assert_eq!(server.join().expect("no panic"), "{\"stream\":\"shutdown\"}\n");
    }

    #[test]
    fn log_lines_follow_the_reply() {
        let (_state, home, _server) = answering("\"ok\"\none\ntwo\n");
        let mut text = String::new();
        logs(&home, false).expect("accepted").read_to_string(&mut text).expect("read");
        assert_eq!(text, "one\ntwo\n");
    }

    #[test]
    fn ranges_are_read_and_garbage_is_none() {
        let (_state, home, server) =
            answering("\"ok\"\n{\"first\":100000,\"count\":65536,\"containers\":[\"a\"]}\n");
        let expected = IdRange { first: 100_000, count: 65_536, containers: vec!["a".to_owned()] };
        assert_eq!(ranges(&home).expect("read"), [expected]);
        assert_eq!(server.join().expect("no panic"), "{\"stream\":\"ranges\"}\n");
        let (_state, home, _server) = answering("\"ok\"\n{\"first\":-1}\n");
        assert!(matches!(ranges(&home), Err(Error::Malformed(_))));
    }

    #[test]
    fn a_closed_connection_and_garbage_are_errors() {
        let (_state, home, _server) = answering("");
        assert!(matches!(status(&home), Err(Error::Silent(_))));
        let (_state, home, _server) = answering("HTTP/1.1 200 OK\n");
        assert!(matches!(status(&home), Err(Error::Malformed(_))));
    }
}
