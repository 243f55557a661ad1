//! What is done with a stream: the engine's API goes to the engine by way of [`api`], a published port to its container, audit log and id ranges
//! are read here, everything else goes to PID 1.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use eci_contract::errors::chain;
use eci_contract::link::Request;
use eci_contract::paths::{AUDIT_LOG, ENGINE_SOCKET, INIT_SOCKET, RANGES_DIR, REGISTRY_POLICY};
use eci_link::pipe::BUFFER_BYTES;
use eci_link::{Session, finish, pipe, read_request, refuse, request, session, write_request};
use eci_policy::rules::registry::Registries;
use eci_service::log::{self, Level};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio::try_join;

use crate::api::{self, Rules};
use crate::ports::Ports;
use crate::ports::address::judge;
use crate::ports::connect::published;
use crate::registries::Refused;
use crate::{audit, ranges, registries};

/// How long a stream may take to say what it wants. The host writes the request together with opening the stream.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// What a client of an engine that is not there is told.
pub const UNAVAILABLE: &str = "the engine in the VM is not running; `eci-builder status` says why, in a distro of WSL `systemctl status`";

/// Why a stream was not served to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No request came in time.
    #[error("a stream without a request was cut off")]
    Silent,
    /// What came is no request.
    #[error("a stream's request was refused")]
    Request(#[source] request::Error),
    /// The program that serves this kind of request is not there.
    #[error("cannot connect to `{}`", .socket.display())]
    Connect {
        /// Its socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The request could not be handed on.
    #[error("cannot hand a request to PID 1")]
    Forward(#[source] request::Error),
    /// The audit log could not be read or sent.
    #[error("cannot send the audit log")]
    Audit(#[source] io::Error),
    /// The id ranges could not be read or sent.
    #[error("cannot send the id ranges")]
    Ranges(#[source] io::Error),
}

/// Where streams are served: the image's sockets, log and ranges, or a test's.
#[derive(Clone, Copy, Debug)]
pub struct Sockets<'a> {
    engine: &'a Path,
    init: &'a Path,
    audit: &'a Path,
    ranges: &'a Path,
    /// Which registries the engine may reach.
    registries: &'a Path,
}

impl Sockets<'static> {
    /// The sockets of the image.
    #[must_use]
    pub fn of_image() -> Self {
        Self {
            engine: Path::new(ENGINE_SOCKET),
            init: Path::new(INIT_SOCKET),
            audit: Path::new(AUDIT_LOG),
            ranges: Path::new(RANGES_DIR),
            registries: Path::new(REGISTRY_POLICY),
        }
    }
}

/// Serves one session to its end, each stream in a task of its own.
///
/// # Errors
/// [`session::Error`] when no session started or it broke.
pub async fn session<T>(io: T, ports: &Ports) -> Result<(), session::Error>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut session = Session::guest(io).await?;
    log::line(Level::Info, "a host is connected");
    let _connected = ports.connected(session.opener().clone());
    while let Some(stream) = session.accept().await {
        let ports = ports.clone();
        tokio::spawn(async move {
            if let Err(error) = stream_on(stream, Sockets::of_image(), &ports).await {
                log::failure(Level::Warn, "a stream was not served", &error);
            }
        });
    }
    session.ended().await
}

/// Serves one stream: reads its request and joins it to the socket that serves it. A connection that breaks later is
/// an ordinary end.
///
/// # Errors
/// [`Error`]; the stream has been told as far as its protocol allows.
pub async fn stream_on<T>(mut stream: T, sockets: Sockets<'_>, ports: &Ports) -> Result<(), Error>
where
    T: AsyncBufRead + AsyncWrite + Unpin,
{
    let read = timeout(REQUEST_DEADLINE, read_request(&mut stream)).await.map_err(|_| Error::Silent)?;
    let request = match read {
        Ok(request) => request,
        Err(error) => {
            refuse(&mut stream, chain(&error)).await;
            return Err(Error::Request(error));
        }
    };
    match request {
        Request::Engine {} => engine_on(stream, sockets).await,
        Request::Audit { follow } => {
            audit::serve(&mut stream, sockets.audit, follow).await.map_err(Error::Audit)
        }
        Request::Ranges {} => ranges::serve(&mut stream, sockets.ranges).await.map_err(Error::Ranges),
        Request::Published { id } => {
            published(stream, ports, id, judge).await;
            Ok(())
        }
        Request::Status {}
        | Request::Logs { .. }
        | Request::Clock { .. }
        | Request::Attest { .. }
        | Request::Shutdown {} => init(stream, sockets.init, &request).await,
    }
}

/// Joins a client's stream to what reads its requests and asks the engine.
///
/// # Errors
/// [`Error::Connect`]; the client has been told in the engine's own protocol.
async fn engine_on<T>(mut stream: T, sockets: Sockets<'_>) -> Result<(), Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    // Whether it is there.
    let found = connect(sockets.engine).await;
    let pair = found.and_then(|_| {
        UnixStream::pair().map_err(|source| Error::Connect { socket: sockets.engine.to_owned(), source })
    });
    match pair {
        Ok((asked, reader)) => {
            let engine = sockets.engine.to_owned();
            let read = async move { api::serve(reader, &engine, Rules::Host).await };
            let listed = registries::read(sockets.registries);
            let _ends = tokio::join!(read, join(stream, asked, listed.as_ref(), sockets.audit));
            Ok(())
        }
        Err(error) => {
            // Docker's client shows the message of such an answer, and only "cannot connect" for a closed stream.
            let answer = answer("503 Service Unavailable", UNAVAILABLE);
            drop(stream.write_all(answer.as_bytes()).await);
            finish(&mut stream).await;
            Err(error)
        }
    }
}

/// Joins a client and what reads its requests as [`pipe()`] does, and one for a registry that is not on a list ends the connection with a refusal. A request's first line is in one piece with what a client
/// writes at once, and comes when the answer to the one before has gone.
async fn join<T: AsyncRead + AsyncWrite>(
    client: T,
    engine: UnixStream,
    listed: Option<&Registries>,
    audit: &Path,
) -> io::Result<()> {
    let (from_client, mut to_client) = split(client);
    let (from_engine, to_engine) = engine.into_split();
    let asking = async {
        ask(from_client, to_engine, listed).await?.map_or(Ok(()), |refused| Err(Ended::Refused(refused)))
    };
    let answering = async { Ok(pass_on(from_engine, &mut to_client).await?) };
    match try_join!(asking, answering) {
        Ok(_) => Ok(()),
        Err(Ended::Broken(error)) => Err(error),
        Err(Ended::Refused(refused)) => {
            to_client.write_all(answer("403 Forbidden", &refused.told()).as_bytes()).await?;
            refused.write_down(audit);
            to_client.shutdown().await
        }
    }
}

/// Why a client and the engine are parted before both have ended.
enum Ended {
    Broken(io::Error),
    Refused(Refused),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Copies a client's requests until it ends, and passes that on as a half-close; or until one is refused.
async fn ask<R, W>(mut from: R, mut to: W, listed: Option<&Registries>) -> io::Result<Option<Refused>>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER_BYTES];
    // From then on it is what somebody types, or another protocol.
    let mut is_raw = false;
    loop {
        let mut length = from.read(&mut buffer).await?;
        while listed.is_some() && !is_raw && registries::is_in_body(buffer.get(..length).unwrap_or_default())
        {
            match from.read(buffer.get_mut(length..).unwrap_or_default()).await? {
                0 => break,
                more => length += more,
            }
        }
        let part = buffer.get(..length).unwrap_or_default();
        if part.is_empty() {
            return to.shutdown().await.map(|()| None);
        }
        if let Some(refused) = listed.filter(|_| !is_raw).and_then(|listed| registries::judge(listed, part)) {
            return Ok(Some(refused));
        }
        is_raw = is_raw || (listed.is_some() && registries::upgrades(part));
        to.write_all(part).await?;
        to.flush().await?;
    }
}

/// Copies until `from` ends, and passes that on as a half-close.
async fn pass_on<R, W>(mut from: R, to: &mut W) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = from.read(&mut buffer).await?;
        let part = buffer.get(..length).unwrap_or_default();
        if part.is_empty() {
            return to.shutdown().await;
        }
        to.write_all(part).await?;
        to.flush().await?;
    }
}

async fn init<T>(mut stream: T, socket: &Path, request: &Request) -> Result<(), Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut control = match connect(socket).await {
        Ok(control) => control,
        Err(error) => {
            refuse(&mut stream, chain(&error)).await;
            return Err(error);
        }
    };
    write_request(&mut control, request).await.map_err(Error::Forward)?;
    drop(pipe(&mut stream, &mut control).await);
    Ok(())
}

async fn connect(socket: &Path) -> Result<UnixStream, Error> {
    UnixStream::connect(socket).await.map_err(|source| Error::Connect { socket: socket.to_owned(), source })
}

/// An answer in the engine's own words and form.
fn answer(status: &str, message: &str) -> String {
    let body = serde_json::json!({ "message": message }).to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests;
