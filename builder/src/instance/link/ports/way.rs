//! A stream to the container that published a port.

use std::sync::Arc;

use eci_contract::link::{Reply, Request};
use eci_link::session::{MAX_CONNECTIONS, MAX_SENDERS, MAX_UNANSWERED};
use eci_link::{Opener, Stream, read_reply};
use tokio::io::AsyncBufReadExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of datagrams that wait for the VM, of all senders: anybody makes some, by sending.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// Opens streams to containers, as many as the link carries beside the engine's API.
#[derive(Clone, Debug)]
pub struct Way {
    opener: Opener,
    connections: Arc<Semaphore>,
    /// Anybody makes senders, by sending: they take no connection's place.
    senders: Arc<Semaphore>,
    unanswered: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Way {
    /// Along this session.
    #[must_use]
    pub fn new(opener: Opener) -> Self {
        Self {
            opener,
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            senders: Arc::new(Semaphore::new(MAX_SENDERS)),
            unanswered: Arc::new(Semaphore::new(MAX_UNANSWERED)),
            waiting: Arc::new(Semaphore::new(MAX_WAITING_BYTES)),
        }
    }

    /// A stream for a connection that is joined to the container; `None` when the container does not take it, or there are too many.
    pub async fn connection(&self, id: u64) -> Option<Stream> {
        self.open(id, Arc::clone(&self.connections).try_acquire_owned().ok()?).await
    }

    /// The same for who sends datagrams.
    pub async fn sender(&self, id: u64) -> Option<Stream> {
        self.open(id, Arc::clone(&self.senders).try_acquire_owned().ok()?).await
    }

    /// Room for a datagram of so many bytes to wait in, for as long as it is kept; `None` when there is none, and the datagram is lost.
    pub fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        // An empty one takes memory, too.
        let bytes = u32::try_from(bytes.max(64)).ok()?;
        Arc::clone(&self.waiting).try_acquire_many_owned(bytes).ok()
    }

    async fn open(&self, id: u64, place: OwnedSemaphorePermit) -> Option<Stream> {
        let unanswered = self.unanswered.acquire().await.ok()?;
        let mut stream = self.opener.open_with(&Request::Published { id }, place).await.ok()?;
        // The gate says something at once, and the rest when the container has accepted: one that does not holds no other up.
        stream.fill_buf().await.ok()?;
        drop(unanswered);
        match read_reply(&mut stream).await {
            Ok(Reply::Ok) => Some(stream),
            Ok(Reply::Error(_) | Reply::Status(_) | Reply::Evidence(_)) | Err(_) => None,
        }
    }
}
