//! The host's end of the link: sessions over QEMU's port socket, the two Unix sockets that lead into them, and the ports that
//! containers publish.
//!
//! Asynchronous, on one thread, and the only such place in the builder: it is the other end of the gate, and holds many
//! slow connections whose halves end by themselves.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use eci_contract::link::{Reply, Request};
use eci_link::preamble::Nonce;
use eci_link::{Opener, Session, Stream, pipe, read_reply, read_request, session};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use self::clock::Sample;
use self::ports::{Ports, PublishOn};

pub mod clock;
pub mod ports;
pub mod qmp;

/// Pause between attempts to reach the guest.
const RETRY: Duration = Duration::from_millis(100);
/// How long a connection waits for the guest: a boot under TCG on a busy host.
const GUEST_DEADLINE: Duration = Duration::from_secs(120);
/// How long the guest may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// How often the host's clocks are compared.
const CLOCK_PERIOD: Duration = Duration::from_secs(5);

/// Why a request did not reach the guest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket for the host's programs cannot be made.
    #[error("cannot listen on `{}`", .socket.display())]
    Listen {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The guest did not come up, or did not answer, in time.
    #[error("the VM did not answer in time")]
    Late,
    /// The session ended.
    #[error("the link to the VM was lost")]
    Session(#[from] session::Error),
    /// The guest's answer cannot be read.
    #[error("cannot read the answer of the VM")]
    Answer(#[source] eci_link::request::Error),
    /// The engine's answer cannot be read.
    #[error("cannot talk to the engine")]
    Engine(#[source] io::Error),
}

/// The current session, shared by everything that opens streams.
#[derive(Clone, Debug)]
pub struct Link {
    session: watch::Receiver<Option<Opener>>,
}

impl Link {
    /// Starts a task that keeps a session with the guest for as long as the link is held, and publishes its containers' ports.
    #[must_use]
    pub fn start(port_socket: PathBuf, publish_on: PublishOn) -> Self {
        let (publish, session) = watch::channel(None);
        tokio::spawn(async move {
            tokio::select! {
                () = keep_session(&port_socket, publish_on, &publish) => {}
                () = publish.closed() => {}
            }
        });
        Self { session }
    }

    /// Opens a stream, waiting for a session if there is none yet.
    ///
    /// # Errors
    /// [`Error::Late`] and [`Error::Session`].
    pub async fn open(&self, request: &Request) -> Result<Stream, Error> {
        let mut session = self.session.clone();
        let there =
            timeout(GUEST_DEADLINE, session.wait_for(Option::is_some)).await.map_err(|_| Error::Late)?;
        let session = there.ok().and_then(|session| session.clone()).ok_or(session::Error::Ended)?;
        Ok(session.open(request).await?)
    }

    /// Asks a question that has one reply.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn ask(&self, request: &Request) -> Result<Reply, Error> {
        let answer = async {
            let mut stream = self.open(request).await?;
            read_reply(&mut stream).await.map_err(Error::Answer)
        };
        timeout(ANSWER_DEADLINE, answer).await.map_err(|_| Error::Late)?
    }

    /// Whether the engine answers its `/_ping` with 200.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn engine_answers(&self) -> Result<bool, Error> {
        let answer = async {
            let mut stream = self.open(&Request::Engine {}).await?;
            let asked = stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: eci\r\n\r\n").await;
            asked.map_err(Error::Engine)?;
            let mut line = Vec::new();
            stream.read_until(b'\n', &mut line).await.map_err(Error::Engine)?;
            Ok(line.split(|byte| *byte == b' ').nth(1) == Some(b"200"))
        };
        timeout(ANSWER_DEADLINE, answer).await.map_err(|_| Error::Late)?
    }

    /// Steps the guest's clock at once, and whenever the host's clock jumped, for ever.
    pub async fn keep_clock(self) {
        let mut session = self.session.clone();
        loop {
            let sample = Sample::now();
            // The next connect or jump is the next chance; a guest that is going down refuses rightly.
            drop(self.ask(&Request::Clock { unix_ns: sample.unix_ns() }).await);
            loop {
                tokio::select! {
                    changed = session.changed() => {
                        if changed.is_err() { return; }
                        break;
                    }
                    () = sleep(CLOCK_PERIOD) => {
                        if Sample::now().jumped_since(sample) { break; }
                    }
                }
            }
        }
    }

    /// Leads connections to `docker_socket` to the engine, and those to `link_socket` where their request says.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub fn listen(&self, docker_socket: &Path, link_socket: &Path) -> Result<(), Error> {
        let (docker, requests) = (bind(docker_socket)?, bind(link_socket)?);
        let link = self.clone();
        tokio::spawn(accept(docker, move |connection| lead_to_engine(link.clone(), connection)));
        let link = self.clone();
        tokio::spawn(accept(requests, move |connection| lead_by_request(link.clone(), connection)));
        Ok(())
    }
}

async fn keep_session(port_socket: &Path, publish_on: PublishOn, publish: &watch::Sender<Option<Opener>>) {
    loop {
        if let Ok(port) = UnixStream::connect(port_socket).await {
            if let Ok(mut session) = Session::host(port, Nonce(Uuid::new_v4().into_bytes())).await {
                publish.send_replace(Some(session.opener().clone()));
                publish_ports(&mut session, publish_on).await;
                publish.send_replace(None);
            }
        }
        sleep(RETRY).await;
    }
}

/// Serves what the VM wants of the host until the session ends. The ports are free again then.
async fn publish_ports(session: &mut Session, publish_on: PublishOn) {
    let ports = Arc::new(Ports::new(publish_on, session.opener().clone()));
    while let Some(stream) = session.accept().await {
        let ports = Arc::clone(&ports);
        tokio::spawn(async move { ports.serve(stream).await });
    }
    ports.close().await;
}

/// The folder has mode 0700 before the socket exists, so nobody else can connect before its own mode is set.
fn bind(socket: &Path) -> Result<UnixListener, Error> {
    let bound = UnixListener::bind(socket).and_then(|listener| {
        fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).map(|()| listener)
    });
    bound.map_err(|source| Error::Listen { socket: socket.to_owned(), source })
}

async fn accept<F>(listener: UnixListener, serve: impl Fn(UnixStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((connection, _)) => drop(tokio::spawn(serve(connection))),
            // Out of descriptors, most likely; they come back when connections end.
            Err(_) => sleep(RETRY).await,
        }
    }
}

/// A connection that cannot be served is closed; its program reports that in its own words.
async fn lead_to_engine(link: Link, mut connection: UnixStream) {
    if let Ok(mut stream) = link.open(&Request::Engine {}).await {
        drop(pipe(&mut connection, &mut stream).await);
    }
}

async fn lead_by_request(link: Link, connection: UnixStream) {
    let mut connection = BufReader::new(connection);
    let Ok(request) = read_request::<_, Request>(&mut connection).await else { return };
    if let Ok(mut stream) = link.open(&request).await {
        drop(pipe(&mut connection, &mut stream).await);
    }
}
