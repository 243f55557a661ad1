//! Messages on a stream of bytes: each with its length before it, in two bytes, the high one first.
//!
//! A datagram may be lost anywhere, so none is waited for long: a stream that does not take one in time has failed.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

/// The longest datagram that two bytes can tell of; IP has none that is longer.
pub const MAX_BYTES: usize = 65_535;
/// How long a stream may take to accept a datagram. What is older is of no use to anybody.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
/// After so long without a datagram either way, two peers are taken to have parted, as by Docker's own proxy.
const IDLE: Duration = Duration::from_secs(90);

/// When the last datagram went by, either way.
#[derive(Debug)]
pub struct LastSeen(Mutex<Instant>);

impl Default for LastSeen {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl LastSeen {
    /// One goes by.
    pub fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits until none has for so long that the peers are taken to have parted.
    pub async fn parted(&self) {
        loop {
            let end = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + IDLE;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// Writes one and flushes it.
///
/// # Errors
/// When it is too long, when the stream has failed, or does not take it in time.
pub async fn write<T: AsyncWrite + Unpin>(io: &mut T, datagram: &[u8]) -> io::Result<()> {
    let length = u16::try_from(datagram.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let frame = [&length.to_be_bytes()[..], datagram].concat();
    let written = timeout(WRITE_DEADLINE, async {
        io.write_all(&frame).await?;
        io.flush().await
    });
    written.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Reads datagrams. Keeps one begun when its reader is cancelled.
#[derive(Debug, Default)]
pub struct Reader {
    /// What came of a frame: less than one.
    begun: Vec<u8>,
}

impl Reader {
    /// The next one; `None` at the end of the stream.
    ///
    /// # Errors
    /// What reading gave, and an end within a datagram.
    pub async fn next<T: AsyncBufRead + Unpin>(&mut self, io: &mut T) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(datagram) = self.take_whole() {
                return Ok(Some(datagram));
            }
            let bytes = io.fill_buf().await?;
            if bytes.is_empty() {
                let whole = self.begun.is_empty();
                return if whole { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            let used = self.missing().min(bytes.len());
            self.begun.extend(bytes.iter().take(used));
            io.consume(used);
        }
    }

    /// The length of the frame that was begun, once that is known.
    fn length(&self) -> Option<usize> {
        let length = self.begun.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
        length.map(|length| 2 + usize::from(length))
    }

    /// How many bytes to take next: those of the length, then those of the datagram.
    fn missing(&self) -> usize {
        self.length().unwrap_or(2).saturating_sub(self.begun.len())
    }

    fn take_whole(&mut self) -> Option<Vec<u8>> {
        let whole = self.length() == Some(self.begun.len());
        whole.then(|| std::mem::take(&mut self.begun).split_off(2))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tokio::io::duplex;

    use super::*;

    async fn all(bytes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let (mut reader, mut io, mut found) = (Reader::default(), Cursor::new(bytes), Vec::new());
        while let Some(datagram) = reader.next(&mut io).await? {
            found.push(datagram);
        }
        Ok(found)
    }

    #[tokio::test]
    async fn what_was_written_is_read_empty_and_longest_datagrams_included() {
        let sent = [vec![], b"one".to_vec(), vec![7; MAX_BYTES], vec![], b"two".to_vec()];
        let mut bytes = Vec::new();
        for datagram in &sent {
            write(&mut bytes, datagram).await.expect("written");
        }
        assert_eq!(all(&bytes).await.expect("read"), sent);
        let error = write(&mut bytes, &[0; MAX_BYTES + 1]).await.expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[tokio::test]
    async fn a_stream_that_ends_within_a_datagram_is_an_error_wherever_it_is_cut() {
        let mut bytes = Vec::new();
        write(&mut bytes, b"one").await.expect("written");
        for cut in 1..bytes.len() {
            let error = all(&bytes[..cut]).await.expect_err("cut");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
        assert_eq!(all(&[]).await.expect("an orderly end").len(), 0);
    }

    /// Any bytes are datagrams, or end within one: nothing else is in them, and nothing is made up.
    #[tokio::test]
    async fn any_bytes_are_read_as_they_were_framed() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..2_000 {
            let mut bytes = Vec::new();
            while state % 41 != 0 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                bytes.push(state.to_le_bytes()[3] % 5);
            }
            state = state.wrapping_add(1);
            let Ok(found) = all(&bytes).await else { continue };
            let mut again = Vec::new();
            for datagram in &found {
                write(&mut again, datagram).await.expect("written");
            }
            assert_eq!(again, bytes);
        }
    }

    #[tokio::test]
    async fn a_reader_that_was_cancelled_goes_on_where_it_was() {
        let (near, far) = duplex(64);
        let (mut reader, mut far) = (Reader::default(), tokio::io::BufReader::new(far));
        let mut near = near;
        for byte in [0, 2, b'o'] {
            near.write_all(&[byte]).await.expect("written");
            let waited = timeout(Duration::from_millis(5), reader.next(&mut far)).await;
            assert!(waited.is_err(), "half a datagram was read");
        }
        near.write_all(b"k").await.expect("written");
        assert_eq!(reader.next(&mut far).await.expect("read").expect("one"), b"ok");
    }

    #[tokio::test(start_paused = true)]
    async fn peers_have_parted_when_nothing_went_by_for_long() {
        let (seen, begun) = (LastSeen::default(), Instant::now());
        for _ in 0..3 {
            assert!(timeout(IDLE - Duration::from_secs(1), seen.parted()).await.is_err(), "too early");
            seen.now();
        }
        seen.parted().await;
        assert_eq!(begun.elapsed().as_secs(), 3 * (IDLE.as_secs() - 1) + IDLE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_takes_nothing_fails_in_time() {
        let (mut near, _far) = duplex(4);
        let error = write(&mut near, b"more than fits").await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
