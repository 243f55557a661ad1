//! A client that has ended its half: to the engine that means that the client is gone, as it does without a gate in between.
//!
//! hyper gives an answer up when its client ends, or does not look. Here the end is kept from hyper for as long as an answer is on its
//! way, and passed on to the engine as what it is, once the question is there whole: a client that has just asked its last question
//! gets its answer, and one that follows a log and goes ends the engine's work for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use rustix::net::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// So often who takes a question in finds nothing before it has broken off: hyper may have read some that it has not handed on, does so
/// when it is asked, and is asked once for certain between the first time and this.
const ENOUGH: u8 = 3;

/// What is known of both ends of one client's connection.
#[derive(Debug, Default)]
pub struct Ends(Mutex<State>);

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct State {
    /// A question was read, and its answer is not yet written.
    busy: bool,
    /// All of the question was taken in.
    question_ended: bool,
    /// How often whoever takes it in has found nothing since the client's end.
    lacks: u8,
    /// Some of it was written to the engine.
    begun: bool,
    /// The engine does not take what is to be written.
    blocked: bool,
    /// This is no HTTP any more.
    upgraded: bool,
    /// The client has ended its half.
    client_ended: bool,
    /// The engine's connection, until it was told.
    engine: Option<OwnedFd>,
    /// Wants to know of the client's end when the answer is written, or when there is a lack of the question.
    reader: Option<Waker>,
    /// Takes the question in.
    taker: Option<Waker>,
}

impl Ends {
    /// A question is there, to its end or not.
    pub fn begin(&self, question_ended: bool) {
        let mut state = self.state();
        (state.busy, state.question_ended, state.lacks, state.begun) = (true, question_ended, 0, false);
    }

    /// There is no more of the question to take in, for now or for good.
    fn taken(&self, ended: bool, taker: &Waker) {
        let mut state = self.state();
        state.question_ended |= ended;
        state.taker = Some(taker.clone());
        if state.client_ended && !ended {
            state.lacks = state.lacks.saturating_add(1);
            state.wake_reader();
        }
    }

    /// The answer is written, or nobody wants it any more.
    fn answered(&self) {
        let mut state = self.state();
        state.busy = false;
        state.wake_reader();
    }

    /// From here on each direction ends by itself.
    pub fn upgraded(&self) {
        self.state().upgraded = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Tells the engine of the client's end, when that is due.
    fn settle(&mut self) {
        let due = self.client_ended && self.busy && self.question_ended && self.begun;
        if due && !self.blocked && !self.upgraded {
            if let Some(engine) = self.engine.take() {
                // An engine that is gone needs not be told.
                let _gone = shutdown(engine, Shutdown::Write);
            }
        }
    }
}

/// A client's connection.
#[derive(Debug)]
pub struct ClientEnd<T> {
    io: T,
    ends: Arc<Ends>,
}

impl<T> ClientEnd<T> {
    /// Watched by `ends`.
    pub fn new(io: T, ends: Arc<Ends>) -> Self {
        Self { io, ends }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ClientEnd<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        let mut state = self.ends.state();
        if buffer.filled().len() > before || buffer.capacity() == before {
            state.lacks = 0;
            return Poll::Ready(Ok(()));
        }
        state.client_ended = true;
        // An end within a question is one to hyper as well.
        let within = !state.question_ended && state.lacks >= ENOUGH;
        if !state.busy || within || state.upgraded {
            return Poll::Ready(Ok(()));
        }
        state.reader = Some(context.waker().clone());
        // Whether this is within the question, who takes it in finds out.
        if let Some(taker) = state.taker.take() {
            taker.wake();
        }
        state.settle();
        Poll::Pending
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ClientEnd<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// The engine's connection.
#[derive(Debug)]
pub struct EngineEnd {
    io: UnixStream,
    ends: Arc<Ends>,
}

impl EngineEnd {
    /// Told of the client's end by `ends`.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new(io: UnixStream, ends: Arc<Ends>) -> io::Result<Self> {
        ends.state().engine = Some(io.as_fd().try_clone_to_owned()?);
        Ok(Self { io, ends })
    }
}

impl AsyncRead for EngineEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for EngineEnd {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        let mut state = self.ends.state();
        // hyper writes what it has until it has nothing, or this is pending.
        state.blocked = match &written {
            Poll::Ready(Ok(length)) => *length < bytes.len(),
            Poll::Ready(Err(_)) => false,
            Poll::Pending => true,
        };
        state.begun |= written.is_ready();
        state.settle();
        drop(state);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// A body whose end is told.
#[derive(Debug)]
pub struct Watched<B> {
    body: B,
    ends: Arc<Ends>,
    of: Of,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Question,
    Answer,
}

impl<B> Watched<B> {
    /// The client's.
    pub fn question(body: B, ends: Arc<Ends>) -> Self {
        Self { body, ends, of: Of::Question }
    }

    /// The engine's, or ours.
    pub fn answer(body: B, ends: Arc<Ends>) -> Self {
        Self { body, ends, of: Of::Answer }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        // Nothing follows trailers, and nobody asks whether.
        let trailers = matches!(&frame, Poll::Ready(Some(Ok(frame))) if frame.is_trailers());
        let ended = matches!(frame, Poll::Ready(None)) || trailers || self.body.is_end_stream();
        if self.of == Of::Question && (ended || frame.is_pending()) {
            self.ends.taken(ended, context.waker());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Watched<B> {
    fn drop(&mut self) {
        if self.of == Of::Answer {
            self.ends.answered();
        }
    }
}
