//! A stream of a session, whose ends are told apart: of input, and of the stream.
//!
//! What yamux calls closing a stream is not used. After it, a stream that is dropped leaves its peer waiting for ever where that has
//! more to write than fits its window, and one that is reset reads like one that ended. So each direction is chunks, with two bytes of
//! length (big-endian) in front; a chunk of length 0 is the end of input. Dropping a stream always resets it, which whoever still
//! reads or writes sees as an error; what was written before is read first.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

/// Read buffer: request lines and the start of HTTP heads.
const BUFFER_BYTES: usize = 4096;
/// Bytes of a chunk's length.
const LENGTH_BYTES: usize = 2;
/// Bytes of a chunk without its length: with it, what yamux sends as one frame (`split_send_size`).
const MAX_CHUNK: u16 = 16 * 1024 - LENGTH_BYTES as u16;

/// One end of a stream.
///
/// Invariant: one task polls both halves ([`crate::pipe()`] does). yamux keeps one waker for a stream's way out, which
/// reading uses as well as writing, so a reader in another task would take the writer's wake-ups.
#[derive(Debug)]
pub struct Stream {
    inner: BufReader<Compat<yamux::Stream>>,
    reading: Reading,
    writing: Writing,
    _permit: Option<OwnedSemaphorePermit>,
}

/// Where reading is.
#[derive(Clone, Copy, Debug)]
enum Reading {
    /// Before a chunk, with the first byte of its length when that came by itself.
    Length(Option<u8>),
    /// In a chunk of which this much is left, never 0.
    Chunk(usize),
    /// Behind the last.
    Ended,
}

/// What is on its way out.
#[derive(Debug, Default)]
struct Writing {
    /// A chunk with its length.
    chunk: Vec<u8>,
    /// How much of it is written.
    written: usize,
    /// It is the last one.
    ended: bool,
}

impl Stream {
    pub(super) fn new(stream: yamux::Stream, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            inner: BufReader::with_capacity(BUFFER_BYTES, stream.compat()),
            reading: Reading::Length(None),
            writing: Writing::default(),
            _permit: permit,
        }
    }

    /// Bytes that may be read of the current chunk; 0 at the end of input.
    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Whoever waits for an answer waits for its question to leave. That this fails, writing tells.
        drop(self.poll_out(context));
        loop {
            let first = match self.reading {
                Reading::Chunk(left) => return Poll::Ready(Ok(left)),
                Reading::Ended => return Poll::Ready(Ok(0)),
                Reading::Length(first) => first,
            };
            let byte = ready!(self.poll_byte(context))?;
            self.reading = match first {
                None => Reading::Length(Some(byte)),
                Some(first) => match u16::from_be_bytes([first, byte]) {
                    0 => Reading::Ended,
                    length => Reading::Chunk(length.into()),
                },
            };
        }
    }

    fn poll_byte(&mut self, context: &mut Context<'_>) -> Poll<io::Result<u8>> {
        let buffered = ready!(Pin::new(&mut self.inner).poll_fill_buf(context))?;
        let byte = *buffered.first().ok_or(io::ErrorKind::ConnectionReset)?;
        Pin::new(&mut self.inner).consume(1);
        Poll::Ready(Ok(byte))
    }

    /// Counts what was read of a chunk.
    fn advance(&mut self, amount: usize) {
        if let Reading::Chunk(left) = self.reading {
            let left = left.saturating_sub(amount);
            self.reading = if left == 0 { Reading::Length(None) } else { Reading::Chunk(left) };
        }
    }

    /// Writes what is on its way out.
    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Writing { chunk, written, .. } = &mut self.writing;
        while let Some(rest) = chunk.get(*written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.inner).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                amount => *written += amount,
            }
        }
        chunk.clear();
        *written = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for Stream {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        let left = ready!(this.poll_chunk(context))?;
        if left == 0 {
            return Poll::Ready(Ok(&[]));
        }
        let buffered = ready!(Pin::new(&mut this.inner).poll_fill_buf(context))?;
        if buffered.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(buffered.get(..left).unwrap_or(buffered)))
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        Pin::new(&mut self.inner).consume(amount);
        self.advance(amount);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let left = ready!(this.poll_chunk(context))?.min(buffer.remaining());
        if left == 0 {
            return Poll::Ready(Ok(()));
        }
        // Past the buffer of `inner` when that is empty.
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(left));
        ready!(Pin::new(&mut this.inner).poll_read(context, &mut part))?;
        let amount = part.filled().len();
        if amount == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        buffer.advance(amount);
        this.advance(amount);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.writing.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.poll_out(context))?;
        let length = u16::try_from(bytes.len()).unwrap_or(MAX_CHUNK).min(MAX_CHUNK);
        if length == 0 {
            return Poll::Ready(Ok(0));
        }
        let amount = usize::from(length);
        this.writing.chunk.extend(length.to_be_bytes());
        this.writing.chunk.extend_from_slice(bytes.get(..amount).unwrap_or_default());
        // All of it is taken; what does not leave at once leaves with the next call.
        if let Poll::Ready(outcome) = this.poll_out(context) {
            outcome?;
        }
        Poll::Ready(Ok(amount))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(context))?;
        Pin::new(&mut this.inner).poll_flush(context)
    }

    /// Ends this direction; the other goes on.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(context))?;
        if !this.writing.ended {
            this.writing.ended = true;
            this.writing.chunk.extend([0; LENGTH_BYTES]);
            ready!(this.poll_out(context))?;
        }
        Pin::new(&mut this.inner).poll_flush(context)
    }
}
