//! Datagrams to a published port: a stream for each sender, so that the container sees them apart and answers find back.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use eci_link::datagram::{self, IDLE, MAX_BYTES};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::way::Way;

/// Datagrams that wait in each direction of a sender; those beyond are lost, as in any full queue of a network.
const QUEUE: usize = 64;
/// Pause after a failed receive: it fails for want of memory, which comes back with time.
const RETRY: Duration = Duration::from_millis(100);

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
                Ok((length, from)) => {
                    let datagram = buffer.get(..length).unwrap_or_default().to_vec();
                    senders.hand_on(from, datagram, |datagrams| carry(from, datagrams, answers.clone(), way.clone(), id));
                }
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
    queues: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>>,
    tasks: JoinSet<()>,
}

impl Senders {
    /// To the stream of `from`; `start` makes one for a sender that has none.
    fn hand_on<F>(
        &mut self,
        from: SocketAddr,
        datagram: Vec<u8>,
        start: impl FnOnce(mpsc::Receiver<Vec<u8>>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let unsent = match self.queues.get(&from).map(|queue| queue.try_send(datagram.clone())) {
            // Queued, or lost.
            Some(Ok(()) | Err(TrySendError::Full(_))) => return,
            Some(Err(TrySendError::Closed(datagram))) => datagram,
            None => datagram,
        };
        let (queue, datagrams) = mpsc::channel(QUEUE);
        // An empty queue has room.
        drop(queue.try_send(unsent));
        self.queues.insert(from, queue);
        self.tasks.spawn(start(datagrams));
    }
}

/// Carries the datagrams of one sender until either side ends it, or nothing comes for long.
async fn carry(
    from: SocketAddr,
    mut datagrams: mpsc::Receiver<Vec<u8>>,
    answers: mpsc::Sender<Answer>,
    way: Way,
    id: u64,
) {
    let Some(mut stream) = way.sender(id).await else { return };
    let mut reader = datagram::Reader::default();
    loop {
        let goes_on = tokio::select! {
            sent = datagrams.recv() => match sent {
                Some(datagram) => datagram::write(&mut stream, &datagram).await.is_ok(),
                None => false,
            },
            came = reader.next(&mut stream) => match came {
                Ok(Some(datagram)) => answers.send((from, datagram)).await.is_ok(),
                Ok(None) | Err(_) => false,
            },
            () = sleep(IDLE) => false,
        };
        if !goes_on {
            return;
        }
    }
}
