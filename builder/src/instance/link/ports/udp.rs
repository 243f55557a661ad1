//! Datagrams to a published port: a stream for each sender, so that the container sees them apart and answers find back.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use eci_link::datagram::{self, LastSeen, MAX_BYTES};
use tokio::io::{AsyncBufRead, AsyncWrite, BufReader, split};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::way::Way;

/// Datagrams that wait in each direction of a sender; those beyond are lost, as in any full queue of a network.
const QUEUE: usize = 64;
/// Pause after a failed receive: it fails for want of memory, which comes back with time.
const RETRY: Duration = Duration::from_millis(100);

/// A datagram that waits, and its part of what may wait in all.
type Waiting = (Vec<u8>, OwnedSemaphorePermit);
/// A datagram and whom it is for.
type Answer = (SocketAddr, Vec<u8>);

/// Leads datagrams to the container and back until it is dropped. Nobody else has the socket.
pub async fn serve(socket: UdpSocket, way: Way, id: u64) {
    let (answers, mut answered) = mpsc::channel::<Answer>(QUEUE);
    let mut senders = Senders::default();
    let mut buffer = vec![0; MAX_BYTES];
    loop {
        tokio::select! {
            came = socket.recv_from(&mut buffer) => match came {
                Ok((length, from)) => if let Some(room) = way.room(length) {
                    let datagram = buffer.get(..length).unwrap_or_default().to_vec();
                    let carry = |datagrams| carry(from, datagrams, answers.clone(), way.clone(), id);
                    senders.hand_on(from, (datagram, room), carry);
                },
                Err(_) => sleep(RETRY).await,
            },
            // A sender that is gone misses nothing.
            Some((to, datagram)) = answered.recv() => drop(socket.send_to(&datagram, to).await),
            Some(_) = senders.tasks.join_next() => senders.queues.retain(|_, queue| !queue.is_closed()),
        }
    }
}

/// Who has sent something lately.
#[derive(Default)]
struct Senders {
    queues: HashMap<SocketAddr, mpsc::Sender<Waiting>>,
    tasks: JoinSet<()>,
}

impl Senders {
    /// To the stream of `from`; `start` makes one for a sender that has none.
    fn hand_on<F>(
        &mut self,
        from: SocketAddr,
        datagram: Waiting,
        start: impl FnOnce(mpsc::Receiver<Waiting>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let unsent = match self.queues.get(&from) {
            Some(queue) => match queue.try_send(datagram) {
                // Queued, or lost.
                Ok(()) | Err(TrySendError::Full(_)) => return,
                Err(TrySendError::Closed(datagram)) => datagram,
            },
            None => datagram,
        };
        let (queue, datagrams) = mpsc::channel(QUEUE);
        // An empty queue has room.
        drop(queue.try_send(unsent));
        self.queues.insert(from, queue);
        self.tasks.spawn(start(datagrams));
    }
}

/// Carries the datagrams of one sender until either side ends it, or nothing comes for long. Neither direction waits for the other.
async fn carry(
    from: SocketAddr,
    datagrams: mpsc::Receiver<Waiting>,
    answers: mpsc::Sender<Answer>,
    way: Way,
    id: u64,
) {
    let Some(stream) = way.sender(id).await else { return };
    let (from_container, to_container) = split(stream);
    let seen = LastSeen::default();
    // However it ends, the sender's next datagram begins anew.
    tokio::select! {
        _ = ask(to_container, datagrams, &seen) => {}
        _ = answer(BufReader::new(from_container), from, answers, &seen) => {}
        () = seen.parted() => {}
    }
}

async fn ask(
    mut to: impl AsyncWrite + Unpin,
    mut datagrams: mpsc::Receiver<Waiting>,
    seen: &LastSeen,
) -> io::Result<()> {
    while let Some((datagram, _room)) = datagrams.recv().await {
        seen.now();
        datagram::write(&mut to, &datagram).await?;
    }
    Ok(())
}

async fn answer(
    mut from: impl AsyncBufRead + Unpin,
    to: SocketAddr,
    answers: mpsc::Sender<Answer>,
    seen: &LastSeen,
) -> io::Result<()> {
    let mut reader = datagram::Reader::default();
    while let Some(datagram) = reader.next(&mut from).await? {
        seen.now();
        // The socket takes what it is given: this waits for the others of the port alone.
        answers.send((to, datagram)).await.map_err(io::Error::other)?;
    }
    Ok(())
}
