//! The only way in to the engine: serves the host's requests from the virtio-serial port and from vsock; in a distro of WSL 2 the
//! engine's clients, from a socket in each folder that is shared with distros.
//!
//! Invariants: one bad stream, session or peer never ends the process; on vsock only the host (CID 2) is served; the
//! gate listens on no network address, and connects to none but a container's that the engine publishes.
//!
//! In reading order: [`port`] (the virtio-serial port as an asynchronous stream), [`serve`] (what is done with a stream),
//! `copies` (one view of a container's files), [`ports`] (what containers publish), `audit` (what was refused), `ranges` (which ids containers have), `registries` (those that are not allowed, told early), [`vsock`] (the same
//! where the hypervisor has sockets), [`doors`] (the way in for distros), [`containers`] (the one for containers that may), [`api`] (the
//! requests of both, read one by one).
//!
//! Asynchronous on one thread: it moves bytes for many slow connections, and the guest may have one processor.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::path::Path;
use std::time::Duration;

use eci_contract::link::PORT_NAME;
use eci_contract::paths::{PORTS_REACH, PORTS_SOCKET};
use eci_contract::wsl::DOORS;
use eci_service::log::{self, Level};
use tokio::runtime::Builder;
use tokio::time::sleep;

pub mod api;
mod audit;
pub mod containers;
mod copies;
pub mod doors;
pub mod port;
pub mod ports;
mod ranges;
mod registries;
pub mod serve;
pub mod vsock;

/// Where the kernel lists virtio-serial ports.
const PORTS: &str = "/sys/class/virtio-ports";
/// Where their device nodes are; devtmpfs makes them.
const DEVICES: &str = "/dev";
/// Pause before a port that failed is opened again: long enough not to spin, short beside a boot.
const RETRY: Duration = Duration::from_millis(200);

/// Why the gate cannot start, or why one of its sessions ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime cannot be made.
    #[error("cannot make the runtime")]
    Runtime(#[source] io::Error),
    /// There is neither a port nor vsock, so that no host could ever reach the engine.
    #[error("neither the virtio-serial port `{PORT_NAME}` nor vsock is there")]
    NoLink,
    /// A socket for distros is missing.
    #[error("cannot serve distros")]
    Doors(#[from] doors::Error),
    /// The socket for ports is missing.
    #[error("cannot publish ports")]
    Ports(#[from] ports::announce::Error),
    /// PID 1 could not be told.
    #[error("cannot report readiness")]
    Notify(#[source] io::Error),
    /// The port cannot be used.
    #[error("cannot use the host link")]
    Port(#[from] port::Error),
    /// A session did not start, or broke.
    #[error("a host was lost")]
    Session(#[from] eci_link::session::Error),
}

/// Serves for ever.
///
/// # Errors
/// [`Error`], before anything is served.
pub fn run() -> Result<Infallible, Error> {
    Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?.block_on(serve_links())
}

async fn serve_links() -> Result<Infallible, Error> {
    let doors = doors::listen(Path::new(DOORS))?;
    if doors.is_empty() {
        open_links()?;
        match containers::open() {
            Ok(doors) => {
                let shared = containers::Shared::audited();
                for door in doors {
                    tokio::spawn(containers::serve(door, shared.clone()));
                }
            }
            // The host's way in is worth more.
            Err(error) => log::failure(Level::Error, "no container has the engine's socket", &error),
        }
    }
    for listener in doors {
        tokio::spawn(doors::serve(listener));
    }
    tokio::spawn(copies::watch());
    eci_service::ready().map_err(Error::Notify)?;
    pending().await
}

/// The links to a host, at least one of them, and what is published on it. A distro has no host but the machine that it is in.
fn open_links() -> Result<(), Error> {
    let ports = ports::Ports::within(ports::reach(Path::new(PORTS_REACH)));
    tokio::spawn(ports::announce::serve(ports::announce::listen(Path::new(PORTS_SOCKET))?, ports.clone()));
    let device = match port::find(Path::new(PORTS), PORT_NAME) {
        Ok(device) => device.map(|name| Path::new(DEVICES).join(name)),
        Err(error) => {
            log::failure(Level::Warn, "virtio-serial is not usable", &error);
            None
        }
    };
    let listener = vsock::listen();
    if device.is_none() && listener.is_none() {
        return Err(Error::NoLink);
    }
    if let Some(device) = device {
        let ports = ports.clone();
        tokio::spawn(async move { serve_port(&device, &ports).await });
    }
    if let Some(listener) = listener {
        tokio::spawn(vsock::serve(listener, ports));
    }
    Ok(())
}

/// One session after the other; hosts come and go.
async fn serve_port(device: &Path, ports: &ports::Ports) -> Infallible {
    loop {
        if let Err(error) = serve_host(device, ports).await {
            log::failure(Level::Warn, "a session ended", &error);
        }
        sleep(RETRY).await;
    }
}

async fn serve_host(device: &Path, ports: &ports::Ports) -> Result<(), Error> {
    let port = port::Port::open(device).await?;
    Ok(serve::session(port, ports).await?)
}
