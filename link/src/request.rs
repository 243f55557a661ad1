//! The line of JSON that opens a stream, and the line that answers it. Both are bounded.

use std::io;
use std::time::Duration;

use eci_contract::link::{MAX_REQUEST_BYTES, Reply};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, copy, sink};
use tokio::time::timeout;

/// Upper bound of a reply line in bytes. The longest is a status: a hundred steps, checks and services with error chains
/// stay well under it.
pub const MAX_REPLY_BYTES: usize = 1024 * 1024;

/// How long a peer may go on that has been told that nobody listens.
const FINISH_DEADLINE: Duration = Duration::from_secs(5);

/// Why a line was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream ended before the line did.
    #[error("the stream ended within a line")]
    Ended,
    /// The line is longer than its kind may be.
    #[error("the line is longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// The line is not what the protocol has.
    #[error("the line is not part of the link's protocol")]
    Malformed(#[source] serde_json::Error),
    /// Reading failed.
    #[error("cannot read a line from the link")]
    Read(#[source] io::Error),
    /// Writing failed.
    #[error("cannot write a line to the link")]
    Write(#[source] io::Error),
}

/// Reads the request that opens a stream, of the kind that this end serves; bytes after its line stay in `io`.
///
/// # Errors
/// [`Error`]; the peer is then to be cut off.
pub async fn read_request<T: AsyncBufRead + Unpin, R: DeserializeOwned>(io: &mut T) -> Result<R, Error> {
    read_line(io, MAX_REQUEST_BYTES).await
}

/// Reads the answer to a request that has one.
///
/// # Errors
/// [`Error`].
pub async fn read_reply<T: AsyncBufRead + Unpin>(io: &mut T) -> Result<Reply, Error> {
    read_line(io, MAX_REPLY_BYTES).await
}

/// Writes a request as a line and flushes it.
///
/// # Errors
/// [`Error::Write`].
pub async fn write_request<T: AsyncWrite + Unpin>(io: &mut T, request: &impl Serialize) -> Result<(), Error> {
    write_line(io, request).await
}

/// Writes a reply as a line and flushes it.
///
/// # Errors
/// [`Error::Write`].
pub async fn write_reply<T: AsyncWrite + Unpin>(io: &mut T, reply: &Reply) -> Result<(), Error> {
    write_line(io, reply).await
}

/// Replies with a reason and ends the stream: whoever asked is told, or is gone.
pub async fn refuse<T: AsyncRead + AsyncWrite + Unpin>(io: &mut T, reason: String) {
    drop(write_reply(io, &Reply::Error(reason)).await);
    finish(io).await;
}

/// Ends our direction, and takes in what the peer still says: one that writes on would be reset before it reads what was written.
pub async fn finish<T: AsyncRead + AsyncWrite + Unpin>(io: &mut T) {
    let rest = async {
        io.shutdown().await?;
        copy(io, &mut sink()).await
    };
    // Whoever goes on for longer does not listen.
    drop(timeout(FINISH_DEADLINE, rest).await);
}

async fn write_line<T: AsyncWrite + Unpin>(io: &mut T, message: &impl Serialize) -> Result<(), Error> {
    let mut line = serde_json::to_vec(message).map_err(|error| Error::Write(error.into()))?;
    line.push(b'\n');
    io.write_all(&line).await.map_err(Error::Write)?;
    io.flush().await.map_err(Error::Write)
}

async fn read_line<T: AsyncBufRead + Unpin, M: DeserializeOwned>(
    io: &mut T,
    limit: usize,
) -> Result<M, Error> {
    let mut line = Vec::new();
    loop {
        let bytes = io.fill_buf().await.map_err(Error::Read)?;
        if bytes.is_empty() {
            return Err(Error::Ended);
        }
        let (text, used, ended) = match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) => (bytes.iter().take(end), end + 1, true),
            None => (bytes.iter().take(bytes.len()), bytes.len(), false),
        };
        if line.len() + text.len() > limit {
            return Err(Error::TooLong { limit });
        }
        line.extend(text);
        io.consume(used);
        if ended {
            return serde_json::from_slice(&line).map_err(Error::Malformed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use eci_contract::link::{HostRequest, Request};
    use eci_contract::ports::Protocol;
    use tokio::io::{AsyncReadExt, BufReader};

    use super::*;

    async fn read<T: AsyncBufRead + Unpin>(io: &mut T) -> Result<Request, Error> {
        read_request(io).await
    }

    #[tokio::test]
    async fn a_request_leaves_the_bytes_after_its_line() {
        let mut io = Cursor::new(b"{\"stream\":\"engine\"}\nGET /_ping".to_vec());
        assert_eq!(read(&mut io).await.expect("a request"), Request::Engine {});
        let mut rest = String::new();
        io.read_to_string(&mut rest).await.expect("read");
        assert_eq!(rest, "GET /_ping");
    }

    #[tokio::test]
    async fn an_endless_line_is_cut_off_at_the_limit() {
        let mut endless = BufReader::new(tokio::io::repeat(b'x'));
        let refused = read(&mut endless).await;
        assert!(matches!(refused, Err(Error::TooLong { limit: MAX_REQUEST_BYTES })), "{refused:?}");
    }

    #[tokio::test]
    async fn a_line_of_exactly_the_limit_is_read_and_one_byte_more_is_not() {
        let request = br#"{"stream":"status"}"#;
        let padded = |length: usize| {
            let mut line = request.to_vec();
            line.resize(length, b' ');
            line.push(b'\n');
            Cursor::new(line)
        };
        let whole = read(&mut padded(MAX_REQUEST_BYTES)).await;
        assert_eq!(whole.expect("at the limit"), Request::Status {});
        assert!(matches!(read(&mut padded(MAX_REQUEST_BYTES + 1)).await, Err(Error::TooLong { .. })));
    }

    #[tokio::test]
    async fn what_is_not_understood_is_refused() {
        for line in [
            "{\"stream\":\"shell\"}\n",
            "{\"stream\":\"logs\",\"follow\":true,\"as\":\"root\"}\n",
            "{\"stream\":\"engine\",\"as\":\"root\"}\n",
            "{\"stream\":\"status\",\"follow\":true}\n",
            "{\"stream\":\"shutdown\",\"unix_ns\":0}\n",
            "{\"stream\":\"clock\"}\n",
            "{\"stream\":\"published\",\"id\":-1}\n",
            "{\"stream\":\"publish\",\"id\":1,\"protocol\":\"tcp\",\"address\":\"0.0.0.0:80\"}\n",
            "\n",
            "\0\n",
        ] {
            let refused = read(&mut Cursor::new(line)).await;
            assert!(matches!(refused, Err(Error::Malformed(_))), "{line:?}: {refused:?}");
        }
        assert!(matches!(read(&mut Cursor::new("{\"stream\":")).await, Err(Error::Ended)));
    }

    #[tokio::test]
    async fn the_host_serves_no_request_but_those_about_ports() {
        let read = async |line: &str| read_request::<_, HostRequest>(&mut Cursor::new(line)).await;
        let publish = HostRequest::Publish {
            id: 7,
            protocol: Protocol::Udp,
            address: "[::1]:53".parse().expect("an address"),
        };
        let line = serde_json::to_string(&publish).expect("written") + "\n";
        assert_eq!(line, "{\"stream\":\"publish\",\"id\":7,\"protocol\":\"udp\",\"address\":\"[::1]:53\"}\n");
        assert_eq!(read(&line).await.expect("read"), publish);
        for line in [
            "{\"stream\":\"engine\"}\n",
            "{\"stream\":\"publish\",\"id\":7,\"protocol\":\"udp\",\"address\":\"localhost:53\"}\n",
            "{\"stream\":\"publish\",\"id\":7,\"protocol\":\"udp\",\"address\":\"127.0.0.1:65536\"}\n",
            "{\"stream\":\"publish\",\"id\":7,\"protocol\":\"sctp\",\"address\":\"127.0.0.1:53\"}\n",
            "{\"stream\":\"publish\",\"id\":7,\"protocol\":\"tcp\",\"address\":\"127.0.0.1:53\",\"to\":1}\n",
            "{\"stream\":\"withdraw\"}\n",
        ] {
            let refused = read(line).await;
            assert!(matches!(refused, Err(Error::Malformed(_))), "{line:?}: {refused:?}");
        }
    }

    /// Mutates real requests; whatever comes out is read or refused, without a panic, and never read beyond its line.
    #[tokio::test]
    async fn mutated_requests_are_read_or_refused() {
        let seeds = [
            serde_json::to_vec(&Request::Logs { follow: true }).expect("seed"),
            serde_json::to_vec(&Request::Clock { unix_ns: i64::MIN }).expect("seed"),
            serde_json::to_vec(&Request::Published { id: u64::MAX }).expect("seed"),
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..20_000 {
            let mut line = seeds[round % seeds.len()].clone();
            for _ in 0..=random() % 4 {
                let at = usize::try_from(random()).expect("64-bit") % line.len();
                match random() % 3 {
                    0 => line[at] = random().to_le_bytes()[0],
                    1 => line.insert(at, random().to_le_bytes()[0]),
                    _ => drop(line.remove(at)),
                }
            }
            line.extend(b"\nrest");
            let mut io = Cursor::new(line);
            drop(read(&mut io).await);
            let mut rest = Vec::new();
            io.read_to_end(&mut rest).await.expect("read");
            assert!(rest.ends_with(b"rest"));
        }
    }

    #[test]
    fn errors_say_what_failed() {
        let malformed = serde_json::from_str::<Request>("x").expect_err("not JSON");
        assert_eq!(Error::TooLong { limit: 4096 }.to_string(), "the line is longer than 4096 bytes");
        for error in [Error::Ended, Error::Malformed(malformed), Error::Read(io::ErrorKind::Other.into())] {
            assert!(!error.to_string().ends_with('.'), "{error}");
        }
    }
}
