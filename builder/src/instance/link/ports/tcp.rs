//! Connections to a published port.

use std::time::Duration;

use eci_link::pipe;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::way::Way;

/// Pause after a failed accept: it fails for want of descriptors or memory, which come back with time.
const RETRY: Duration = Duration::from_millis(100);

/// Leads connections to the container until it is dropped, and they with it.
pub async fn serve(listener: TcpListener, way: Way, id: u64) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((connection, _)) => drop(connections.spawn(lead(connection, way.clone(), id))),
                Err(_) => sleep(RETRY).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn lead(mut connection: TcpStream, way: Way, id: u64) {
    // What a server writes is to leave when it is written; a socket that does not take that is slower.
    drop(connection.set_nodelay(true));
    let ended = match way.connection(id).await {
        Some(mut stream) => pipe(&mut connection, &mut stream).await.is_ok(),
        None => false,
    };
    if !ended {
        // A reset, as when nothing listens or the container resets: an orderly end would look like a whole answer.
        drop(connection.set_zero_linger());
    }
}
