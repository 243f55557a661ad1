//! Ports of containers on the host: the VM asks, the user's flag decides, and connections are led to the VM.
//!
//! Invariant: the VM can have the host listen where `--publish-on` allows it, and nothing else; the host connects to nothing
//! for it.
//!
//! In reading order: [`place`] (where it may be, pure), [`listen`] (a socket there, or why not), [`way`] (a stream to the
//! container), [`tcp`] and [`udp`] (leading connections and datagrams along it).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eci_contract::errors::chain;
use eci_contract::link::{HostRequest, Reply};
use eci_contract::ports::Protocol;
use eci_link::{Opener, Stream, read_request, write_reply};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::listen::Socket;
use self::way::Way;

pub mod listen;
pub mod place;
pub mod tcp;
pub mod udp;
pub mod way;

pub use place::PublishOn;

/// Ports that are listened on at once. A range of a thousand ports in both address families is as far as people go; a VM that
/// was taken over is not to use up the host's descriptors.
const MAX_PORTS: usize = 4096;
/// How long the VM may take to say what it wants; it does so together with opening the stream.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// Why a port is not listened on.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// It may not be there.
    #[error(transparent)]
    Place(#[from] place::Error),
    /// It cannot be listened on.
    #[error(transparent)]
    Listen(#[from] listen::Error),
    /// The session that asked is over.
    #[error("the session on the link has ended")]
    Ended,
    /// There are too many.
    #[error(
        "the host listens on {MAX_PORTS} ports of containers already; remove a container that publishes some"
    )]
    TooMany,
    /// The VM used a number twice.
    #[error("the VM has published number {id} already")]
    Again {
        /// The number.
        id: u64,
    },
}

/// The ports that one session publishes.
#[derive(Debug)]
pub struct Ports {
    publish_on: PublishOn,
    way: Way,
    /// None when the session has ended: what comes late must not be listened for by nobody.
    open: Mutex<Option<Open>>,
}

/// Who listens, by the port's number; nobody where the host has no such address.
type Open = HashMap<u64, Option<JoinHandle<()>>>;

impl Ports {
    /// None yet.
    #[must_use]
    pub fn new(publish_on: PublishOn, opener: Opener) -> Self {
        Self { publish_on, way: Way::new(opener), open: Mutex::new(Some(Open::new())) }
    }

    /// Serves a stream that the VM opened. One that says nothing, or breaks, is closed.
    pub async fn serve(&self, mut stream: Stream) {
        let Ok(read) = timeout(REQUEST_DEADLINE, read_request(&mut stream)).await else { return };
        let reply = match read {
            Ok(HostRequest::Publish { id, protocol, address }) => match self.publish(id, protocol, address) {
                Ok(()) => Reply::Ok,
                Err(error) => Reply::Error(chain(&error)),
            },
            Ok(HostRequest::Withdraw { id }) => {
                self.withdraw(id).await;
                Reply::Ok
            }
            Err(error) => Reply::Error(chain(&error)),
        };
        drop(write_reply(&mut stream, &reply).await);
        drop(stream.shutdown().await);
    }

    fn publish(&self, id: u64, protocol: Protocol, wanted: SocketAddr) -> Result<(), Error> {
        let mut open = self.open();
        let open = open.as_mut().ok_or(Error::Ended)?;
        if open.contains_key(&id) {
            return Err(Error::Again { id });
        }
        if open.len() >= MAX_PORTS {
            return Err(Error::TooMany);
        }
        let place = self.publish_on.place(wanted)?;
        let task = listen::listen(protocol, place)?.map(|socket| match socket {
            Socket::Tcp(listener) => tokio::spawn(tcp::serve(listener, self.way.clone(), id)),
            Socket::Udp(socket) => tokio::spawn(udp::serve(socket, self.way.clone(), id)),
        });
        open.insert(id, task);
        Ok(())
    }

    async fn withdraw(&self, id: u64) {
        let task = self.open().as_mut().and_then(|open| open.remove(&id)).flatten();
        if let Some(task) = task {
            end(task).await;
        }
    }

    /// Lets go of all ports, for the session has ended.
    pub async fn close(&self) {
        let open = self.open().take().unwrap_or_default();
        for task in open.into_values().flatten() {
            end(task).await;
        }
    }

    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that has ended holds its socket no more.
async fn end(task: JoinHandle<()>) {
    task.abort();
    drop(task.await);
}

#[cfg(test)]
mod tests;
