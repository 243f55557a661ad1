//! What is asked of the engine's API: which containers run, and what they use. An answer is the VM's word, and bounded.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use httparse::{Response, Status};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::home::Home;
use super::timed::Timed;

/// Longest answer in bytes. Docker tells a thousand containers in some 2 MB.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// Most headers of an answer. The engine sends eight.
const MAX_HEADERS: usize = 64;
/// Letters of a container's id.
const ID_LENGTH: usize = 64;

/// Why the engine did not answer.
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
    #[error("the engine did not answer")]
    Silent(#[source] io::Error),
    /// The answer is longer than any that is asked for.
    #[error("the engine's answer is longer than {MAX_ANSWER_BYTES} bytes")]
    TooLong,
    /// The answer is not HTTP.
    #[error("the engine answered with something else than HTTP")]
    NotHttp,
    /// The answer is not what the API has.
    #[error("the engine answered with something else than its API has")]
    Malformed(#[source] serde_json::Error),
    /// The engine refused.
    #[error("the engine refused ({code}): {message}")]
    Refused {
        /// HTTP's code.
        code: u16,
        /// Its words.
        message: String,
    },
    /// What is given as a container's id cannot be one.
    #[error("`{id}` is no container's id")]
    BadId {
        /// As given.
        id: String,
    },
}

/// A container that runs.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// Its names, each with a `/` in front.
    #[serde(default)]
    pub names: Vec<String>,
    /// The image, as it was named.
    #[serde(default)]
    pub image: String,
    /// What was started.
    #[serde(default)]
    pub command: String,
    /// State and how long, in words.
    #[serde(default)]
    pub status: String,
}

/// What a container uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Memory in bytes, without what the kernel can take back at once, as `docker stats` counts.
    pub memory_bytes: u64,
    /// Processor time since its start, in nanoseconds.
    pub cpu_ns: u64,
}

#[derive(Deserialize)]
struct Figures {
    memory_stats: Memory,
    cpu_stats: Processor,
}

#[derive(Deserialize)]
struct Memory {
    usage: u64,
    #[serde(default)]
    stats: Reclaimable,
}

#[derive(Default, Deserialize)]
struct Reclaimable {
    #[serde(default)]
    inactive_file: u64,
}

#[derive(Deserialize)]
struct Processor {
    cpu_usage: Time,
}

#[derive(Deserialize)]
struct Time {
    total_usage: u64,
}

#[derive(Deserialize)]
struct Message {
    message: String,
}

/// The containers that run, the newest first.
///
/// # Errors
/// [`Error`].
pub fn running(home: &Home, until: Instant) -> Result<Vec<Container>, Error> {
    ask(home, "/v1.41/containers/json", until)
}

/// What the container of this id uses; the engine reads it once from the kernel.
///
/// # Errors
/// [`Error`].
pub fn usage(home: &Home, id: &str, until: Instant) -> Result<Usage, Error> {
    // It becomes part of a request.
    if id.len() != ID_LENGTH || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Error::BadId { id: id.to_owned() });
    }
    let path = format!("/v1.41/containers/{id}/stats?stream=false&one-shot=true");
    let Figures { memory_stats, cpu_stats } = ask(home, &path, until)?;
    let memory_bytes = memory_stats.usage.saturating_sub(memory_stats.stats.inactive_file);
    Ok(Usage { memory_bytes, cpu_ns: cpu_stats.cpu_usage.total_usage })
}

/// One connection a question: after one of HTTP 1.0 the engine sends the body as it is, and closes.
fn ask<T: DeserializeOwned>(home: &Home, path: &str, until: Instant) -> Result<T, Error> {
    let socket = home.docker_socket();
    let patience = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let mut stream = Timed::connect(&socket, patience).map_err(|source| Error::Connect { socket, source })?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: eci\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(Error::Silent)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES as u64 + 1).read_to_end(&mut answer).map_err(Error::Silent)?;
    if answer.len() > MAX_ANSWER_BYTES {
        return Err(Error::TooLong);
    }
    read(&answer)
}

fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T, Error> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = Response::new(&mut headers);
    let Ok(Status::Complete(length)) = response.parse(answer) else { return Err(Error::NotHttp) };
    let body = answer.get(length..).unwrap_or_default();
    match response.code {
        Some(200) => serde_json::from_slice(body).map_err(Error::Malformed),
        code => {
            let message = serde_json::from_slice(body).map(|Message { message }| message);
            Err(Error::Refused { code: code.unwrap_or(0), message: message.unwrap_or_default() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_its_other_fields_are_not() {
        let answer =
            b"HTTP/1.0 200 OK\r\nApi-Version: 1.45\r\n\r\n[{\"Id\":\"a\",\"Names\":[\"/n\"],\"Labels\":{}}]";
        let containers: Vec<Container> = read(answer).expect("read");
        assert_eq!((containers[0].id.as_str(), containers[0].names[0].as_str()), ("a", "/n"));
    }

    #[test]
    fn garbage_and_refusals_are_errors() {
        let error = |answer: &[u8]| read::<Vec<Container>>(answer).expect_err("no answer");
        for answer in [&b""[..], b"HTTP/1.0 200", b"\xff\xfe\r\n\r\n", b"[]"] {
            assert!(matches!(error(answer), Error::NotHttp), "{answer:?}");
        }
        for answer in [
            &b"HTTP/1.0 200 OK\r\n\r\n"[..],
            b"HTTP/1.0 200 OK\r\n\r\n{}",
            b"HTTP/1.0 200 OK\r\n\r\n[{\"Id\":7}]",
        ] {
            assert!(matches!(error(answer), Error::Malformed(_)), "{answer:?}");
        }
        let refused = error(b"HTTP/1.1 503 Service Unavailable\r\n\r\n{\"message\":\"not yet\"}");
        assert_eq!(refused.to_string(), "the engine refused (503): not yet");
        assert_eq!(Error::TooLong.to_string(), "the engine's answer is longer than 4194304 bytes");
    }

    #[test]
    fn an_id_that_is_none_becomes_no_part_of_a_request() {
        let home = Home::under("/nothing".as_ref(), "x").expect("legal");
        for id in ["", "abc", &"g".repeat(64), &format!("{}\r\n", "a".repeat(62))] {
            assert!(matches!(usage(&home, id, Instant::now()), Err(Error::BadId { .. })), "{id:?}");
        }
        assert!(matches!(usage(&home, &"a".repeat(64), Instant::now()), Err(Error::Connect { .. })));
    }
}
