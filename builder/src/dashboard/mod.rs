//! A page for who runs an instance: state, trust, containers, refusals and boot, on loopback and for this user alone.
//!
//! Invariants: it listens on 127.0.0.1 only; nothing is answered to a request without token or with a foreign `Host`; no request
//! changes anything; whatever a VM says ends as text in a page of known bounds, or as the reason why there is none.
//!
//! In reading order: [`request`] (which requests are answered), [`page`] (what is drawn), [`data`] (what is gathered for it), [`denials`]
//! (the audit log, followed), and the server here. It has two resources and closes each connection, so that httparse, which reads heads
//! for the gate's hyper, and a thread a connection do; no thread holds a lock while it waits for a client.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub mod data;
pub mod denials;
pub mod page;
pub mod request;

use page::Page;
use request::{MAX_HEAD_BYTES, Refusal, Token, Wanted, judge};

/// How long a client may take to ask, and to take what it is given. Both are on this host.
const DEADLINE: Duration = Duration::from_secs(10);
/// Most connections at once. A browser has six to one server; each takes a thread.
const MOST_CONNECTIONS: usize = 32;
/// Pause after the system gave no connection: it is short of descriptors, or of memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port cannot be had.
    #[error("cannot listen on 127.0.0.1:{port}")]
    Listen {
        /// The port as given; 0 stands for any.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// There is no token that nobody else knows.
    #[error("the system gives no random numbers")]
    Random,
}

/// A page that is ready to be asked for.
pub struct Server {
    listener: TcpListener,
    port: u16,
    token: Token,
    page: Page,
}

impl Server {
    /// Listens on this port of loopback; 0 takes a free one.
    ///
    /// # Errors
    /// [`Error`].
    pub fn bind(port: u16) -> Result<Self, Error> {
        let failed = |source| Error::Listen { port, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let token = Token::random().ok_or(Error::Random)?;
        Ok(Self { listener, port, token, page: Page::assemble() })
    }

    /// Where the page is, token included.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/?{}", self.port, self.token.query())
    }

    /// Answers for ever. `data` gives the document as JSON; it may take its time.
    pub fn serve(self, data: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> ! {
        let served = Arc::new((self, data));
        loop {
            let Ok((client, _)) = served.0.listener.accept() else {
                thread::sleep(PAUSE);
                continue;
            };
            // One is the listener's own.
            if Arc::strong_count(&served) > MOST_CONNECTIONS {
                continue;
            }
            let served = Arc::clone(&served);
            let answering = thread::Builder::new().spawn(move || {
                // A client that went away, or never asked, has no use for an answer.
                drop(served.0.answer(client, &served.1));
            });
            // Without a thread this connection is closed, and the next may have one.
            drop(answering);
        }
    }

    fn answer(&self, mut client: TcpStream, data: &impl Fn() -> Vec<u8>) -> io::Result<()> {
        let answer = match self.read(&mut client)? {
            Ok(Wanted::Page) => {
                self.response("200 OK", "text/html; charset=utf-8", self.page.html.as_bytes())
            }
            Ok(Wanted::Data) => self.response("200 OK", "application/json", &data()),
            Err(refusal) => {
                let (status, text) = refusal.words();
                self.response(status, "text/plain; charset=utf-8", text.as_bytes())
            }
        };
        client.set_write_timeout(Some(DEADLINE))?;
        client.write_all(&answer)?;
        client.shutdown(Shutdown::Write)?;
        // Closed with bytes unread, the connection would be reset before the answer is read.
        drop(client.take(MAX_HEAD_BYTES as u64).read_to_end(&mut Vec::new()));
        Ok(())
    }

    fn read(&self, client: &mut TcpStream) -> io::Result<Result<Wanted, Refusal>> {
        let until = Instant::now() + DEADLINE;
        let mut head = Vec::new();
        loop {
            match judge(&head, self.port, &self.token) {
                Ok(Some(wanted)) => return Ok(Ok(wanted)),
                Err(refusal) => return Ok(Err(refusal)),
                Ok(None) => {}
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            client.set_read_timeout(Some(left))?;
            let mut part = [0; 1024];
            match client.read(&mut part)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => head.extend_from_slice(&part[..length]),
            }
        }
    }

    fn response(&self, status: &str, kind: &str, body: &[u8]) -> Vec<u8> {
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nAllow: GET\r\nCache-Control: no-store\r\n\
             Connection: close\r\nContent-Security-Policy: {}\r\nCross-Origin-Resource-Policy: same-origin\r\n\
             Referrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n\r\n",
            body.len(),
            self.page.policy
        );
        [head.as_bytes(), body].concat()
    }
}

#[cfg(test)]
mod tests;
