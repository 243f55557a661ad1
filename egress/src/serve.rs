//! A connection of the engine's, from accept to end.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use eci_contract::errors::chain;
use eci_policy::Verdict;
use eci_policy::rules::proxy::Scheme;
use eci_policy::rules::registry::{ID, REMEDY};
use eci_service::log::{self, Level};

use super::Way;
use super::denials::Refused;
use super::dial::{Reached, reach};
use super::relay::{Answers, First, join};
use super::request::{self, Error};
use super::response::refusal;

/// Connections that are served at once: the engine fetches a handful of layers for each of some images, and keeps as many idle. One takes 128 KiB
/// of buffers and a thread.
const MOST: usize = 256;
/// Those beyond that are told so at once; others are closed.
const MOST_TOLD: usize = 16;
/// A thread's stack: looking a name up takes the most of it.
const STACK: usize = 256 * 1024;
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(30);
/// How long what a refused client still sends is taken in: it would not hear the refusal while it writes.
const DRAINED: Duration = Duration::from_millis(500);
/// And how much of it.
const DRAINED_BYTES: usize = 16 * 1024 * 1024;
/// Pause after a failed accept: it fails for want of descriptors or memory, which come back with time.
const RETRY: Duration = Duration::from_millis(200);
/// What the client of a tunnel is told.
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// Serves for ever.
pub fn serve(listener: &TcpListener, way: Way) -> ! {
    let (way, told) = (Arc::new(way), Arc::new(()));
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) => {
                log::failure(Level::Warn, "cannot accept a connection", &error);
                thread::sleep(RETRY);
                continue;
            }
        };
        // Each thread has one more.
        if Arc::strong_count(&way) > MOST {
            // In a thread as well: who accepts has others to accept.
            if Arc::strong_count(&told) <= MOST_TOLD {
                let told = Arc::clone(&told);
                spawn(move || {
                    tell(&client, 503, "too many registries are spoken to at once; try again");
                    drop(told);
                });
            }
            continue;
        }
        let way = Arc::clone(&way);
        spawn(move || one(client, &way));
    }
}

fn spawn(act: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().stack_size(STACK).spawn(act) {
        log::failure(Level::Warn, "cannot serve a connection", &error);
    }
}

/// Serves one. That it breaks off is its own affair: both sides hear it.
fn one(mut client: TcpStream, way: &Way) {
    if client.set_read_timeout(Some(HEAD)).is_err() {
        return;
    }
    let request = match request::read(&mut client) {
        Ok(request) => request,
        Err(Error::Nothing | Error::Read(_)) => return,
        Err(Error::NoHost { named }) => {
            let (action, message) = (format!("CONNECT {named}"), chain(&Error::NoHost { named }));
            tell(&client, 403, &format!("{message} ({REMEDY})"));
            return way.denials.write_down(Refused { action, rule: ID, message, remedy: REMEDY });
        }
        Err(error) => return tell(&client, 400, &chain(&error)),
    };
    if let Verdict::Deny { rule, message, remedy } = way.registries.judge(&request.target) {
        tell(&client, 403, &format!("{message} ({remedy})"));
        return way.denials.write_down(Refused { action: request.action, rule, message, remedy });
    }
    let Reached { server, first, came } = match reach(&request, way) {
        Ok(reached) => reached,
        Err(error) => {
            log::failure(Level::Info, "a registry is not reached", &error);
            return tell(&client, 502, &chain(&error));
        }
    };
    let (to_client, answers) = match request.scheme {
        Scheme::Https => ([ESTABLISHED, &came].concat(), Answers::AsTheyCome),
        Scheme::Http => (came, Answers::Closing),
    };
    let to_server = [first, request.rest].concat();
    drop(join(&client, &server, First { to_client, to_server }, answers));
}

/// Tells a client why not, and lets it hear that.
fn tell(client: &TcpStream, code: u16, message: &str) {
    let told = || -> io::Result<()> {
        let mut client = client;
        client.set_write_timeout(Some(DRAINED))?;
        client.write_all(&refusal(code, message))?;
        client.shutdown(Shutdown::Write)?;
        drain(client)
    };
    // One that has gone hears nothing.
    drop(told());
}

/// Takes in what still comes: not for long, however slowly it comes, and not much.
fn drain(mut client: &TcpStream) -> io::Result<()> {
    let (end, mut left, mut part) = (Instant::now() + DRAINED, DRAINED_BYTES, [0; 4096]);
    loop {
        let time = end.saturating_duration_since(Instant::now());
        if time.is_zero() || left == 0 {
            return Ok(());
        }
        client.set_read_timeout(Some(time))?;
        match client.read(&mut part)? {
            0 => return Ok(()),
            length => left = left.saturating_sub(length),
        }
    }
}

#[cfg(test)]
mod tests;
