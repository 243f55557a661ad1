//! How two ends agree that a session starts, on a port that knows no connection boundaries.
//!
//! A virtio-serial port keeps bytes of a host process that is gone and of a guest process that was started again. So
//! a session starts with four lines that carry 128 random bits of the host's choice:
//!
//! ```text
//! host   ECI-LINK/2 hello NONCE     again every second until answered
//! guest  ECI-LINK/2 ready NONCE
//! host   ECI-LINK/2 start NONCE     its last bytes that are not part of the session
//! guest  ECI-LINK/2 go NONCE        its last bytes that are not part of the session
//! ```
//!
//! Whatever comes before the line an end waits for is discarded, in constant memory. A peer that still believes in an
//! old session is got out of it by [`BREAK`].

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

const MAGIC: &str = "ECI-LINK/2";
/// Pause between two hellos. The first waits in the hypervisor until the guest opens the port, so this one only matters
/// when a stale session swallowed it.
const RETRY: Duration = Duration::from_secs(1);
/// The longest line of the preamble is under 60 bytes; of a longer one only this much is kept.
const MAX_LINE: usize = 64;

/// Bytes that end any session in progress: no frame starts with 0xff, and there are enough of them to fill the rest of a
/// frame that its sender did not finish. A header cut anywhere and filled up with 0xff announces at most 64 KiB or
/// more than yamux accepts, and our own frames carry at most 16 KiB.
pub static BREAK: [u8; 80 * 1024] = [0xff; 80 * 1024];

/// 128 random bits that name a session. Only their being new matters, not their being secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce(pub [u8; 16]);

/// Why no session was agreed on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer closed the connection first.
    #[error("the other end closed the link before a session started")]
    Closed,
    /// Reading failed.
    #[error("cannot read the link's preamble")]
    Read(#[source] io::Error),
    /// Writing failed.
    #[error("cannot write the link's preamble")]
    Write(#[source] io::Error),
}

/// The host's part: greets until the guest answers. It waits as long as it takes; the caller sets the deadline.
///
/// # Errors
/// [`Error`].
pub async fn greet<T: AsyncBufRead + AsyncWrite + Unpin>(io: &mut T, nonce: Nonce) -> Result<(), Error> {
    let mut lines = Lines::default();
    send(io, Word::Hello, nonce).await?;
    loop {
        if let Ok(ready) = timeout(RETRY, lines.wait_for(io, Word::Ready, nonce)).await {
            ready?;
            break;
        }
        io.write_all(&BREAK).await.map_err(Error::Write)?;
        send(io, Word::Hello, nonce).await?;
    }
    send(io, Word::Start, nonce).await?;
    lines.wait_for(io, Word::Go, nonce).await
}

/// The guest's part: waits for a host and answers it.
///
/// # Errors
/// [`Error`].
pub async fn answer<T: AsyncBufRead + AsyncWrite + Unpin>(io: &mut T) -> Result<(), Error> {
    let mut lines = Lines::default();
    let mut offered = None;
    loop {
        match lines.next(io).await? {
            (Word::Hello, nonce) => {
                offered = Some(nonce);
                send(io, Word::Ready, nonce).await?;
            }
            (Word::Start, nonce) if offered == Some(nonce) => return send(io, Word::Go, nonce).await,
            _ => {}
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Hello,
    Ready,
    Start,
    Go,
}

impl Word {
    const ALL: [Self; 4] = [Self::Hello, Self::Ready, Self::Start, Self::Go];

    fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Ready => "ready",
            Self::Start => "start",
            Self::Go => "go",
        }
    }
}

/// A line begins with a newline of its own: what stands before it may be the rest of anything.
async fn send<T: AsyncWrite + Unpin>(io: &mut T, word: Word, nonce: Nonce) -> Result<(), Error> {
    let mut line = format!("\n{MAGIC} {} ", word.name());
    for byte in nonce.0 {
        write!(line, "{byte:02x}").expect("writing to a String cannot fail");
    }
    line.push('\n');
    io.write_all(line.as_bytes()).await.map_err(Error::Write)?;
    io.flush().await.map_err(Error::Write)
}

/// Finds the preamble's lines among other bytes. Keeps a line begun when its reader is cancelled.
#[derive(Default)]
struct Lines {
    /// At most [`MAX_LINE`] bytes and one more, which makes a longer line unparsable.
    line: Vec<u8>,
}

impl Lines {
    async fn wait_for<T: AsyncBufRead + Unpin>(
        &mut self,
        io: &mut T,
        word: Word,
        nonce: Nonce,
    ) -> Result<(), Error> {
        while self.next(io).await? != (word, nonce) {}
        Ok(())
    }

    async fn next<T: AsyncBufRead + Unpin>(&mut self, io: &mut T) -> Result<(Word, Nonce), Error> {
        loop {
            let bytes = io.fill_buf().await.map_err(Error::Read)?;
            if bytes.is_empty() {
                return Err(Error::Closed);
            }
            let (used, ended) = match bytes.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (bytes.len(), false),
            };
            let room = (MAX_LINE + 1).saturating_sub(self.line.len());
            self.line.extend(bytes.iter().take(used - usize::from(ended)).take(room));
            io.consume(used);
            if ended {
                let found = parse(&self.line);
                self.line.clear();
                if let Some(found) = found {
                    return Ok(found);
                }
            }
        }
    }
}

fn parse(line: &[u8]) -> Option<(Word, Nonce)> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.strip_prefix(MAGIC)?.strip_prefix(' ')?.split(' ');
    let (word, nonce) = (words.next()?, words.next()?);
    let word = Word::ALL.into_iter().find(|known| known.name() == word)?;
    if words.next().is_some() || nonce.len() != 32 || !nonce.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(nonce, 16).ok().map(|bits| (word, Nonce(bits.to_be_bytes())))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, BufStream, duplex};

    use super::*;

    const NONCE: Nonce = Nonce([0xa5; 16]);

    #[tokio::test]
    async fn both_ends_agree_and_no_byte_of_the_session_is_lost() {
        let (host, guest) = duplex(64);
        let (mut host, mut guest) = (BufStream::new(host), BufStream::new(guest));
        let answered = tokio::spawn(async move {
            answer(&mut guest).await.expect("answered");
            guest.write_all(b"first").await.expect("written");
            guest.flush().await.expect("flushed");
            guest
        });
        greet(&mut host, NONCE).await.expect("greeted");
        let mut first = [0; 5];
        host.read_exact(&mut first).await.expect("read");
        assert_eq!(&first, b"first");
        answered.await.expect("no panic");
    }

    #[tokio::test]
    async fn stale_bytes_on_both_sides_are_discarded() {
        let (mut host, mut guest) = duplex(1 << 20);
        // A megabyte would not fit: the scan must not wait for the junk to end before it reads.
        host.write_all(&BREAK).await.expect("junk");
        host.write_all(b"\nECI-LINK/2 hello 00\nECI-LINK/2 start a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5\nGET / ")
            .await
            .expect("junk");
        guest.write_all(b"\0\0old frames\nECI-LINK/2 go a5").await.expect("junk");
        let (mut host, mut guest) = (BufStream::new(host), BufStream::new(guest));
        let (greeted, answered) = tokio::join!(greet(&mut host, NONCE), answer(&mut guest));
        greeted.expect("greeted");
        answered.expect("answered");
    }

    #[tokio::test]
    async fn a_start_that_was_not_offered_is_no_start() {
        let (mut host, guest) = duplex(1024);
        send(&mut host, Word::Hello, Nonce([1; 16])).await.expect("written");
        send(&mut host, Word::Start, Nonce([2; 16])).await.expect("written");
        host.shutdown().await.expect("closed");
        let refused = answer(&mut BufStream::new(guest)).await;
        assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_host_greets_again_when_its_first_hello_is_swallowed() {
        let (host, mut guest) = duplex(1 << 20);
        let mut host = BufStream::new(host);
        let greeted = tokio::spawn(async move { greet(&mut host, NONCE).await });
        let mut swallowed = [0; 51];
        guest.read_exact(&mut swallowed).await.expect("the first hello");
        assert!(swallowed.ends_with(b"a5\n"), "{swallowed:?}");
        answer(&mut BufStream::new(guest)).await.expect("the second hello is answered");
        greeted.await.expect("no panic").expect("greeted");
    }

    #[test]
    fn only_exact_lines_are_taken() {
        let nonce = "a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5";
        assert_eq!(parse(format!("ECI-LINK/2 go {nonce}").as_bytes()), Some((Word::Go, NONCE)));
        for bad in [
            format!("ECI-LINK/1 go {nonce}"),
            format!("ECI-LINK/2 gone {nonce}"),
            format!("ECI-LINK/2 go {nonce} "),
            format!("ECI-LINK/2 go +{}", &nonce[1..]),
            format!("ECI-LINK/2 go {nonce}0"),
            format!(" ECI-LINK/2 go {nonce}"),
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn errors_name_the_link() {
        let failed = || io::Error::from(io::ErrorKind::TimedOut);
        for error in [Error::Closed, Error::Read(failed()), Error::Write(failed())] {
            assert!(error.to_string().contains("link"), "{error}");
        }
    }
}
