//! From an announcement to its end: `eci-publish` says what is to be published, and is connected for as long as it is.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use eci_contract::errors::chain;
use eci_contract::link::{HostRequest, Reply};
use eci_contract::ports::{Announcement, plain};
use eci_link::{Opener, read_reply, read_request, request, session, write_reply};
use eci_policy::rules::published_port;
use eci_service::log::{self, Level};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Ports, address};

/// Only the engine's own programs have a reason to connect, and they are root's.
const MODE: u32 = 0o600;
/// How long `eci-publish` may take to write its line; it does so at once.
const ANNOUNCEMENT_DEADLINE: Duration = Duration::from_secs(10);
/// How long the host may take to listen, or to stop. The engine waits 16 s in all for `eci-publish`.
const HOST_DEADLINE: Duration = Duration::from_secs(10);
/// Pause after a failed accept, and before a host that could not listen is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// Why a port is not published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be made.
    #[error("cannot listen on `{}`", .path.display())]
    Listen {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Whoever is connected is not root.
    #[error("user {user} may not publish ports")]
    Stranger {
        /// The kernel's word for who it is.
        user: u32,
    },
    /// The kernel does not say who is connected.
    #[error("cannot find out who announces a port")]
    Peer(#[source] io::Error),
    /// Nothing was announced in time.
    #[error("no port was announced in time")]
    Silent,
    /// What came is no announcement.
    #[error("an announcement of a port was not understood")]
    Request(#[source] request::Error),
    /// It leads elsewhere than to a container.
    #[error("the announced port is refused")]
    Address(#[from] address::Error),
    /// The administrator does not allow it.
    #[error(transparent)]
    Denied(#[from] published_port::Refused),
    /// The host did not answer.
    #[error("the host did not answer within {} s; an `eci-builder` from before ports could be published never does: update it", HOST_DEADLINE.as_secs())]
    Late,
    /// The host's end of the link is gone.
    #[error("the host was lost")]
    Session(#[from] session::Error),
    /// The host's answer cannot be read.
    #[error("cannot read the host's answer")]
    Answer(#[source] request::Error),
}

/// Listens for announcements.
///
/// # Errors
/// [`Error::Listen`].
pub fn listen(path: &Path) -> Result<UnixListener, Error> {
    let failed = |source| Error::Listen { path: path.to_owned(), source };
    // Of a gate that ended before.
    drop(fs::remove_file(path));
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(failed)?;
    Ok(listener)
}

/// Serves announcements for ever.
pub async fn serve(listener: UnixListener, ports: Ports) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                let ports = ports.clone();
                tokio::spawn(async move {
                    if let Err(error) = welcome(connection, &ports).await {
                        log::failure(Level::Warn, "a port is not published", &error);
                    }
                });
            }
            Err(error) => {
                log::failure(Level::Warn, "cannot accept an announcement", &error);
                sleep(RETRY).await;
            }
        }
    }
}

/// The socket is in a folder of root's, so that nobody else gets here; a second look costs nothing.
async fn welcome(connection: UnixStream, ports: &Ports) -> Result<(), Error> {
    let user = connection.peer_cred().map_err(Error::Peer)?.uid();
    if user != rustix::process::geteuid().as_raw() {
        return Err(Error::Stranger { user });
    }
    let (reader, writer) = connection.into_split();
    announced(BufReader::new(reader), writer, ports, address::judge).await
}

/// Publishes what is announced, until `from` ends.
async fn announced<R, W>(mut from: R, mut to: W, ports: &Ports, judge: address::Judge) -> Result<(), Error>
where
    R: AsyncBufRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let read = timeout(ANNOUNCEMENT_DEADLINE, read_request(&mut from)).await.map_err(|_| Error::Silent)?;
    let wanted: Announcement = match read {
        Ok(wanted) => wanted,
        Err(error) => return refuse(&mut to, Error::Request(error)).await,
    };
    let container = plain(wanted.container);
    if let Err(error) = judge(container.ip()) {
        return refuse(&mut to, error.into()).await;
    }
    let place = match published_port::place(ports.reach(), wanted.host) {
        Ok(place) => place,
        Err(denied) => return refuse(&mut to, denied.into()).await,
    };
    let admitted = ports.admit(wanted.protocol, container);
    let publish = HostRequest::Publish { id: admitted.id, protocol: wanted.protocol, address: place };
    let mut hosts = ports.hosts();
    let outcome = first(&mut hosts, &publish).await;
    if let Ok(Standing::Refused(reason)) = outcome {
        // The engine tells its user, who sees it better than a log.
        drop(write_reply(&mut to, &Reply::Error(reason)).await);
        return Ok(());
    }
    let standing = match outcome {
        Ok(standing) => standing,
        Err(error) => {
            let refused = refuse(&mut to, error).await;
            drop(to);
            withdraw(&hosts, admitted.id).await;
            return refused;
        }
    };
    // Whoever does not hear it is gone, which is found out next.
    drop(write_reply(&mut to, &Reply::Ok).await);
    let port = format!("{}/{}", plain(wanted.host), wanted.protocol);
    keep(&mut from, &mut hosts, &publish, &port, standing).await;
    withdraw(&hosts, admitted.id).await;
    Ok(())
}

/// Whatever the host has said last: one that was late may listen after all. A host that is lost has let go of its ports, and one that
/// never listened has nothing against it.
async fn withdraw(hosts: &watch::Receiver<Option<Opener>>, id: u64) {
    let host = hosts.borrow().clone();
    withdraw_from(host, id).await;
}

async fn withdraw_from(host: Option<Opener>, id: u64) {
    if let Some(host) = host {
        drop(ask(&host, &HostRequest::Withdraw { id }).await);
    }
}

/// What has come of a port.
enum Standing {
    /// The host listens.
    Published,
    /// The host does not, for this reason.
    Refused(String),
    /// There is no host to ask. The next one will be.
    Waiting,
}

/// The answer for the engine. A container starts without a host as well: that of a boot may be late.
async fn first(
    hosts: &mut watch::Receiver<Option<Opener>>,
    publish: &HostRequest,
) -> Result<Standing, Error> {
    let host = hosts.borrow_and_update().clone();
    let Some(host) = host else { return Ok(Standing::Waiting) };
    match ask(&host, publish).await {
        Ok(None) => Ok(Standing::Published),
        Ok(Some(reason)) => Ok(Standing::Refused(reason)),
        // The next host is asked.
        Err(Error::Session(_) | Error::Answer(_)) => Ok(Standing::Waiting),
        Err(error) => Err(error),
    }
}

/// Publishes on the host of the moment, one after the other, until `from` ends.
async fn keep<R: AsyncBufRead + Unpin>(
    from: &mut R,
    hosts: &mut watch::Receiver<Option<Opener>>,
    publish: &HostRequest,
    port: &str,
    mut standing: Standing,
) {
    let HostRequest::Publish { id, .. } = *publish else { return };
    loop {
        let before = hosts.borrow().clone();
        let again = !matches!(standing, Standing::Published) && hosts.borrow().is_some();
        tokio::select! {
            // There is nothing more to say: a byte is an end as well.
            _ = from.fill_buf() => return,
            changed = hosts.changed() => {
                if changed.is_err() { return; }
                // It may be there still, beside a newer one that is to have the port.
                withdraw_from(before, id).await;
            }
            // It may have listened after all, and would refuse the number a second time.
            () = sleep(RETRY), if again => withdraw(hosts, id).await,
        }
        let next = first(hosts, publish).await.unwrap_or_else(|error| Standing::Refused(chain(&error)));
        match (&standing, &next) {
            (Standing::Refused(before), Standing::Refused(reason)) if before == reason => {}
            (_, Standing::Refused(reason)) => {
                log::line(Level::Warn, &format!("port {port} is not published: {reason}"));
            }
            _ => {}
        }
        standing = next;
    }
}

/// The host's reason when it refuses.
async fn ask(host: &Opener, request: &HostRequest) -> Result<Option<String>, Error> {
    let answer = async {
        let mut stream = host.open(request).await?;
        read_reply(&mut stream).await.map_err(Error::Answer)
    };
    match timeout(HOST_DEADLINE, answer).await.map_err(|_| Error::Late)?? {
        Reply::Ok => Ok(None),
        Reply::Error(reason) => Ok(Some(reason)),
        Reply::Status(_) | Reply::Evidence(_) => Ok(Some("it answered another question".to_owned())),
    }
}

async fn refuse<W: AsyncWrite + Unpin>(to: &mut W, error: Error) -> Result<(), Error> {
    // Whoever does not hear it is gone.
    drop(write_reply(to, &Reply::Error(chain(&error))).await);
    Err(error)
}

#[cfg(test)]
mod tests;
