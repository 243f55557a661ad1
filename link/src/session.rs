//! A session: streams multiplexed by yamux over a connection that the preamble opened.
//!
//! The host opens streams, the guest accepts them. A task of the session's own moves the frames; it ends with the
//! connection, at the first broken rule, or when the [`Session`] is dropped, and every stream ends with it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use eci_contract::link::Request;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, BufReader, BufStream, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

use crate::preamble::{self, Nonce};
use crate::request;

/// Streams that the host has open at once; one more waits. A busy `docker compose` has tens. yamux itself stops at 256
/// streams on which the guest has not yet said anything; this stays clear of that.
pub const MAX_OPEN: usize = 192;
/// Streams that the guest accepts at once before it ends the session. Above [`MAX_OPEN`] by more than can be on
/// their way to being closed.
const MAX_ACCEPTED: usize = 1024;
/// Buffer on the connection in each direction: yamux reads and writes headers by themselves, and each write to a
/// virtio port is an exit from the VM.
const BUFFER_BYTES: usize = 32 * 1024;
/// Read buffer of a stream: request lines and the start of HTTP heads.
const STREAM_BUFFER_BYTES: usize = 4096;

/// Why a session or a stream of it is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No session was agreed on.
    #[error("cannot start a session on the link")]
    Preamble(#[from] preamble::Error),
    /// The session has ended.
    #[error("the session on the link has ended")]
    Ended,
    /// The stream's request could not be written.
    #[error("cannot open a stream on the link")]
    Open(#[source] request::Error),
    /// The peer broke the rules of the protocol, or the connection failed.
    #[error("the session on the link broke")]
    Broken(#[source] yamux::ConnectionError),
}

/// One end of a running session.
#[derive(Debug)]
pub struct Session {
    opens: mpsc::Sender<oneshot::Sender<yamux::Stream>>,
    accepted: mpsc::Receiver<yamux::Stream>,
    open_limit: Arc<Semaphore>,
    driver: JoinHandle<Result<(), yamux::ConnectionError>>,
}

impl Session {
    /// Starts a session as the host, waiting for the guest as long as it takes.
    ///
    /// # Errors
    /// [`Error::Preamble`].
    pub async fn host<T>(io: T, nonce: Nonce) -> Result<Self, Error>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut io = BufStream::with_capacity(BUFFER_BYTES, BUFFER_BYTES, io);
        preamble::greet(&mut io, nonce).await?;
        Ok(Self::start(io, yamux::Mode::Client))
    }

    /// Starts a session as the guest, waiting for a host as long as it takes.
    ///
    /// # Errors
    /// [`Error::Preamble`].
    pub async fn guest<T>(io: T) -> Result<Self, Error>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut io = BufStream::with_capacity(BUFFER_BYTES, BUFFER_BYTES, io);
        preamble::answer(&mut io).await?;
        Ok(Self::start(io, yamux::Mode::Server))
    }

    /// Opens a stream for a request; waits while [`MAX_OPEN`] are open.
    ///
    /// # Errors
    /// [`Error::Ended`] and [`Error::Open`].
    pub async fn open(&self, request: &Request) -> Result<Stream, Error> {
        let permit = Arc::clone(&self.open_limit).acquire_owned().await.map_err(|_| Error::Ended)?;
        let (reply, opened) = oneshot::channel();
        self.opens.send(reply).await.map_err(|_| Error::Ended)?;
        let mut stream = Stream::new(opened.await.map_err(|_| Error::Ended)?, Some(permit));
        request::write_request(&mut stream, request).await.map_err(Error::Open)?;
        Ok(stream)
    }

    /// The next stream that the peer opened; `None` when the session has ended. Its request is still to be read, by
    /// the task that serves it, so that a peer that sends none holds up nobody.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.accepted.recv().await.map(|stream| Stream::new(stream, None))
    }

    /// Waits for the session's end, for whoever shares it.
    pub async fn closed(&self) {
        self.opens.closed().await;
    }

    /// Waits for the session's end, and says how it ended.
    ///
    /// # Errors
    /// [`Error::Broken`] when it was not an orderly one.
    pub async fn ended(&mut self) -> Result<(), Error> {
        match (&mut self.driver).await {
            Ok(result) => result.map_err(Error::Broken),
            // Only dropping the session aborts its driver, and a driver that panicked took the session with it.
            Err(_) => Err(Error::Ended),
        }
    }

    fn start<T>(io: BufStream<T>, mode: yamux::Mode) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(MAX_ACCEPTED);
        let connection = yamux::Connection::new(io.compat(), config, mode);
        let (opens, asked) = mpsc::channel(1);
        let (accept, accepted) = mpsc::channel(MAX_ACCEPTED);
        let driver = tokio::spawn(Driver { connection, asked, waiting: None, accept }.run());
        Self { opens, accepted, open_limit: Arc::new(Semaphore::new(MAX_OPEN)), driver }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Moves a session's frames.
struct Driver<T> {
    connection: yamux::Connection<Compat<BufStream<T>>>,
    asked: mpsc::Receiver<oneshot::Sender<yamux::Stream>>,
    waiting: Option<oneshot::Sender<yamux::Stream>>,
    accept: mpsc::Sender<yamux::Stream>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    async fn run(mut self) -> Result<(), yamux::ConnectionError> {
        poll_fn(|context| self.poll(context)).await
    }

    /// Takes in what came, dropped streams included, before it opens any: yamux counts those that it has not yet
    /// seen dropped, and does not say when that count falls.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), yamux::ConnectionError>> {
        loop {
            match self.connection.poll_next_inbound(context) {
                // The channel holds as many streams as yamux lets the peer open; one that nobody takes is dropped,
                // which resets it.
                Poll::Ready(Some(stream)) => drop(self.accept.try_send(stream?)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    if !self.poll_open(context)? {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Opens one stream if one is asked for and can be had now.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Result<bool, yamux::ConnectionError> {
        if self.waiting.is_none() {
            let Poll::Ready(Some(reply)) = self.asked.poll_recv(context) else { return Ok(false) };
            self.waiting = Some(reply);
        }
        let Poll::Ready(stream) = self.connection.poll_new_outbound(context) else { return Ok(false) };
        if let Some(reply) = self.waiting.take() {
            // Whoever asked may have gone; the stream is then dropped, which resets it.
            drop(reply.send(stream?));
        }
        Ok(true)
    }
}

/// A stream of a session. Dropping it before its end resets it for the peer.
///
/// Invariant: one task polls both halves ([`crate::pipe()`] does). yamux keeps one waker for a stream's way out, which
/// reading uses as well as writing, so a reader in another task would take the writer's wake-ups.
#[derive(Debug)]
pub struct Stream {
    inner: BufReader<Compat<yamux::Stream>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Stream {
    fn new(stream: yamux::Stream, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self { inner: BufReader::with_capacity(STREAM_BUFFER_BYTES, stream.compat()), _permit: permit }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncBufRead for Stream {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Pin::new(&mut self.get_mut().inner).poll_fill_buf(context)
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        Pin::new(&mut self.inner).consume(amount);
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
