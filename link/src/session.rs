//! A session: streams multiplexed by yamux over a connection that the preamble opened.
//!
//! Both ends open streams and accept them. A task of the session's own moves the frames; it ends with the
//! connection, at the first broken rule, or when the [`Session`] is dropped, and every stream ends with it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite, BufStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use crate::preamble::{self, Nonce};
use crate::request;

pub mod stream;

pub use stream::Stream;

/// Streams that an end has open at once; one more waits. A busy `docker compose` has tens. yamux itself stops at 256
/// streams on which the peer has not yet said anything; this stays clear of that.
pub const MAX_OPEN: usize = 192;
/// Streams with limits of their own ([`Opener::open_with`]) that an end has open at once: connections to published ports.
/// Load generators and pools of connections are in the hundreds.
pub const MAX_CONNECTIONS: usize = 1024;
/// The same for senders of datagrams to published ports.
pub const MAX_SENDERS: usize = 256;
/// Those of them on which the peer has not yet said anything: with [`MAX_OPEN`] they stay clear of yamux's 256.
pub const MAX_UNANSWERED: usize = 48;
/// Streams that an end has at once, whoever opened them, before it ends the session. Above [`MAX_OPEN`], [`MAX_CONNECTIONS`] and
/// [`MAX_SENDERS`] by more than can be on their way to being closed.
const MAX_STREAMS: usize = 2048;
/// Bytes of a session that may wait to be read, in all: yamux grants each stream 256 KiB, and those that carry much share the rest.
const MAX_WAITING_BYTES: usize = MAX_STREAMS * 256 * 1024 + 64 * 1024 * 1024;
/// Buffer on the connection in each direction: yamux reads and writes headers by themselves, and each write to a
/// virtio port is an exit from the VM.
const BUFFER_BYTES: usize = 32 * 1024;
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
    opener: Opener,
    accepted: mpsc::Receiver<yamux::Stream>,
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

    /// What opens streams of this session.
    #[must_use]
    pub fn opener(&self) -> &Opener {
        &self.opener
    }

    /// The next stream that the peer opened; `None` when the session has ended. Its request is still to be read, by
    /// the task that serves it, so that a peer that sends none holds up nobody.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.accepted.recv().await.map(|stream| Stream::new(stream, None))
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
        config.set_max_num_streams(MAX_STREAMS).set_max_connection_receive_window(Some(MAX_WAITING_BYTES));
        let connection = yamux::Connection::new(io.compat(), config, mode);
        let (opens, asked) = mpsc::channel(1);
        let (accept, accepted) = mpsc::channel(MAX_STREAMS);
        let driver = tokio::spawn(Driver { connection, asked, waiting: None, accept }.run());
        let opener = Opener { opens, limit: Arc::new(Semaphore::new(MAX_OPEN)) };
        Self { opener, accepted, driver }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Opens streams of a session for whoever shares it. It does not keep the session from ending.
#[derive(Clone, Debug)]
pub struct Opener {
    opens: mpsc::Sender<oneshot::Sender<yamux::Stream>>,
    limit: Arc<Semaphore>,
}

impl Opener {
    /// Opens a stream for a request; waits while [`MAX_OPEN`] are open.
    ///
    /// # Errors
    /// [`Error::Ended`] and [`Error::Open`].
    pub async fn open(&self, request: &impl Serialize) -> Result<Stream, Error> {
        let permit = Arc::clone(&self.limit).acquire_owned().await.map_err(|_| Error::Ended)?;
        self.open_with(request, permit).await
    }

    /// The same under a limit of the caller's, whose permit the stream keeps.
    ///
    /// # Errors
    /// As [`Opener::open`].
    pub async fn open_with(
        &self,
        request: &impl Serialize,
        permit: OwnedSemaphorePermit,
    ) -> Result<Stream, Error> {
        let (reply, opened) = oneshot::channel();
        self.opens.send(reply).await.map_err(|_| Error::Ended)?;
        let mut stream = Stream::new(opened.await.map_err(|_| Error::Ended)?, Some(permit));
        request::write_request(&mut stream, request).await.map_err(Error::Open)?;
        Ok(stream)
    }

    /// Waits for the session's end.
    pub async fn closed(&self) {
        self.opens.closed().await;
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

#[cfg(test)]
mod tests;
