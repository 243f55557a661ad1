//! The link where the hypervisor has sockets: a connection is a session, as on the port. A stream for each connection would be simpler, but
//! not every hypervisor's sockets can close one direction, and then `docker run` has no output.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use eci_contract::link::VSOCK_PORT;
use eci_service::log::{self, Level};
use tokio::time::sleep;
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener};

use crate::ports::Ports;
use crate::serve::session;

/// The kernel's device for vsock; it is there when the kernel knows vsock, whether or not a hypervisor serves it.
const DEVICE: &str = "/dev/vsock";
/// Pause after a failed accept: it fails for want of descriptors or memory, which come back with time.
const RETRY: Duration = Duration::from_millis(200);

/// Listens, if this kernel has vsock. A kernel without it is no error: the port is the other way in.
#[must_use]
pub fn listen() -> Option<VsockListener> {
    if !Path::new(DEVICE).exists() {
        return None;
    }
    match VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, VSOCK_PORT)) {
        Ok(listener) => Some(listener),
        Err(error) => {
            log::failure(Level::Warn, "vsock is not usable", &error);
            None
        }
    }
}

/// Serves sessions of the host for ever; any other peer is dropped before a byte is read.
pub async fn serve(listener: VsockListener, ports: Ports) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((connection, peer)) if is_host(peer) => {
                let ports = ports.clone();
                tokio::spawn(async move {
                    if let Err(error) = session(connection, &ports).await {
                        log::failure(Level::Warn, "a session on vsock ended", &error);
                    }
                });
            }
            Ok((_, peer)) => {
                log::line(Level::Warn, &format!("refused a vsock connection from CID {}", peer.cid()));
            }
            Err(error) => {
                log::failure(Level::Warn, "cannot accept a vsock connection", &error);
                sleep(RETRY).await;
            }
        }
    }
}

/// Containers can open vsock sockets too; they come with the guest's own CID or the local one.
fn is_host(peer: VsockAddr) -> bool {
    peer.cid() == VMADDR_CID_HOST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_is_served() {
        assert!(is_host(VsockAddr::new(2, 9999)));
        for cid in [0, 1, 3, VMADDR_CID_ANY] {
            assert!(!is_host(VsockAddr::new(cid, VSOCK_PORT)), "CID {cid}");
        }
    }
}
