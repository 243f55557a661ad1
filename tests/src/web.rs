//! Web servers on the host, for what engines fetch: one of files, and a company's proxy, which knows names that no resolver has.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;

/// Where the host's loopback is, as a VM of `eci-builder run` sees it.
const HOST: &str = "10.0.2.2";

/// What was asked for, a request's first line each.
pub type Asked = Arc<Mutex<Vec<String>>>;

/// A server on a port of loopback, for as long as the suite runs.
pub struct Web {
    port: u16,
    asked: Asked,
}

impl Web {
    /// A server of files: `/away?URL` leads to another place, any other path has `bytes`.
    ///
    /// # Errors
    /// When there is no port for it.
    pub fn of_file(bytes: &'static [u8]) -> Result<Self> {
        Self::start(move |mut client, head| {
            let path = head.split_whitespace().nth(1).unwrap_or_default();
            let answer = match path.strip_prefix("/away?") {
                Some(url) => format!(
                    "HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )
                .into_bytes(),
                None => [
                    format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                        bytes.len()
                    )
                    .as_bytes(),
                    bytes,
                ]
                .concat(),
            };
            // Who went away early is told by the suite's row.
            drop(client.write_all(&answer));
        })
    }

    /// A proxy by which every name leads to `server`; it makes no tunnels.
    ///
    /// # Errors
    /// When there is no port for it.
    pub fn of_proxy(server: SocketAddr) -> Result<Self> {
        Self::start(move |mut client, head| {
            if head.starts_with("CONNECT ") {
                drop(client.write_all(
                    b"HTTP/1.1 502 no tunnels here\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                ));
                return;
            }
            let Ok(mut server) = TcpStream::connect(server) else { return };
            drop(server.write_all(head.as_bytes()));
            let (Ok(mut up), Ok(mut down)) = (client.try_clone(), server.try_clone()) else { return };
            let sending = thread::spawn(move || {
                drop(std::io::copy(&mut up, &mut server));
                drop(server.shutdown(Shutdown::Write));
            });
            drop(std::io::copy(&mut down, &mut client));
            drop(client.shutdown(Shutdown::Both));
            drop(sending.join());
        })
    }

    fn start(serve: impl Fn(TcpStream, &str) + Clone + Send + 'static) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (port, asked) = (listener.local_addr()?.port(), Asked::default());
        let record = Arc::clone(&asked);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (serve, record) = (serve.clone(), Arc::clone(&record));
                thread::spawn(move || {
                    let Some(head) = read_head(&client) else { return };
                    let first = head.lines().next().unwrap_or_default().to_owned();
                    record.lock().unwrap_or_else(PoisonError::into_inner).push(first);
                    serve(client, &head);
                });
            }
        });
        Ok(Self { port, asked })
    }

    /// Its name, as a VM calls it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{HOST}:{}", self.port)
    }

    /// What it was asked for since the last time.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A request's head, and not a byte more.
fn read_head(client: &TcpStream) -> Option<String> {
    let mut head = Vec::new();
    // A byte at a time: what follows is another's.
    let mut reader = BufReader::with_capacity(1, client);
    while !head.ends_with(b"\r\n\r\n") {
        if reader.by_ref().take(1 << 16).read_until(b'\n', &mut head).ok()? == 0 {
            return None;
        }
    }
    String::from_utf8(head).ok()
}
