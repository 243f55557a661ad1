//! Ports that containers publish: asked for by `eci-publish`, listened on by the host, led to the container by us.
//!
//! The host knows a port by a number of ours and opens a stream with that number for each connection; what it is led to we
//! keep to ourselves. Nothing of this listens on a network of the VM.
//!
//! Invariant: a connection is made to a container's address that was announced and is still published, and to nothing else.
//!
//! In reading order: [`address`] (is this a container's address?), [`announce`] (from an announcement to its end),
//! [`connect`] (a connection to what was announced).

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use eci_contract::ports::{Protocol, Reach};
use eci_link::Opener;
use eci_service::log::{self, Level};
use tokio::sync::watch;

pub mod address;
pub mod announce;
pub mod connect;

/// What is published, and the host that it is published on.
#[derive(Clone, Debug, Default)]
pub struct Ports(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The newest of the hosts that are there: ports are published on it.
    host: watch::Sender<Option<Opener>>,
    /// All of them in the order in which they came, each by a number.
    hosts: Mutex<Vec<(u64, Opener)>>,
    next: AtomicU64,
    published: Mutex<HashMap<u64, Target>>,
    /// How far they may be published.
    reach: Reach,
}

/// Where connections to a published port lead.
#[derive(Clone, Debug)]
pub struct Target {
    /// Of the port.
    pub protocol: Protocol,
    /// The container's.
    pub address: SocketAddr,
    /// Closed when it is published no more.
    pub end: watch::Receiver<()>,
}

/// How far PID 1 says that ports may be published; not at all where that is not understood.
#[must_use]
pub fn reach(path: &Path) -> Reach {
    let word = fs::read_to_string(path).unwrap_or_default();
    Reach::from_word(&word).unwrap_or_else(|| {
        log::line(Level::Error, &format!("no port is published: `{}` does not say how far", path.display()));
        Reach::Nothing
    })
}

impl Ports {
    /// Of which none is published further than this.
    #[must_use]
    pub fn within(reach: Reach) -> Self {
        Self(Arc::new(Shared { reach, ..Shared::default() }))
    }

    /// How far they may be published.
    fn reach(&self) -> Reach {
        self.0.reach
    }

    /// A host is there, for as long as the result is kept, or until there is a newer one.
    #[must_use]
    pub fn connected(&self, host: Opener) -> Connected<'_> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.change(|hosts| hosts.push((number, host)));
        Connected { ports: self, number }
    }

    /// Changes the hosts that are there. Ports go to another one where the newest is another.
    fn change(&self, change: impl FnOnce(&mut Vec<(u64, Opener)>)) {
        let mut hosts = self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = |hosts: &[(u64, Opener)]| hosts.last().map(|(number, _)| *number);
        let before = newest(&hosts);
        change(&mut hosts);
        if newest(&hosts) != before {
            self.0.host.send_replace(hosts.last().map(|(_, host)| host.clone()));
        }
    }

    /// The host of the moment, and those that come.
    fn hosts(&self) -> watch::Receiver<Option<Opener>> {
        self.0.host.subscribe()
    }

    /// Where the port of this number leads, while it is published.
    #[must_use]
    pub fn target(&self, id: u64) -> Option<Target> {
        self.0.published.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Lets connections through to a container, for as long as the result is kept.
    fn admit(&self, protocol: Protocol, address: SocketAddr) -> Admitted<'_> {
        let (connections, end) = watch::channel(());
        // Never used again: a host that is late must not reach what came after.
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let target = Target { protocol, address, end };
        self.0.published.lock().unwrap_or_else(PoisonError::into_inner).insert(id, target);
        Admitted { ports: self, id, _connections: connections }
    }
}

/// See [`Ports::connected`].
#[derive(Debug)]
pub struct Connected<'a> {
    ports: &'a Ports,
    number: u64,
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.ports.change(|hosts| hosts.retain(|(number, _)| *number != self.number));
    }
}

/// See [`Ports::admit`].
#[derive(Debug)]
struct Admitted<'a> {
    ports: &'a Ports,
    id: u64,
    /// Dropped with this, which ends the connections.
    _connections: watch::Sender<()>,
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.ports.0.published.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_of_a_reach_publishes_nothing() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("reach");
        assert_eq!(reach(&path), Reach::Nothing);
        for (text, said) in [
            ("loopback", Reach::Loopback),
            ("all", Reach::All),
            ("all\n", Reach::Nothing),
            ("", Reach::Nothing),
        ] {
            fs::write(&path, text).expect("written");
            assert_eq!(reach(&path), said, "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_port_leads_somewhere_only_while_it_is_admitted_and_its_number_is_never_used_again() {
        let ports = Ports::default();
        let address: SocketAddr = "172.17.0.2:80".parse().expect("an address");
        let first = ports.admit(Protocol::Tcp, address);
        let id = first.id;
        let mut target = ports.target(id).expect("admitted");
        assert_eq!((target.protocol, target.address), (Protocol::Tcp, address));
        assert!(ports.target(id + 1).is_none());
        drop(first);
        assert!(ports.target(id).is_none());
        assert!(target.end.changed().await.is_err(), "connections are not told");
        assert_ne!(ports.admit(Protocol::Tcp, address).id, id);
    }
}
