//! The one way from the engine to registries, where an administrator lists them: a proxy on the VM's loopback that judges each host by the list,
//! looks its name up and connects to it.
//!
//! The kernel lets the engine connect to nobody else (`init/src/system/cgroups.rs`), so what is judged here is all that the engine dials: pulls,
//! pushes, logins, files that a build adds, wherever a registry redirects to. Where nothing is listed this program is not started.
//!
//! Invariants: a host is judged as it was asked for, before its name is looked up, and no name leads to the VM itself; one connection to this
//! program leads to one host, judged once; what is not understood is refused. It has no capabilities, and one bad connection ends no other.
//!
//! Weighed: comparing the server's name in a tunnel's TLS with the one that was judged. The engine's own client writes both from one URL, so
//! that no user of the engine can make them differ; who has taken the engine over needs no registry.
//!
//! A thread for each connection, of which there are few: nothing here waits for anything but its own two sockets and a name. In reading order:
//! [`serve`] (a connection from accept to end), [`request`] (what is asked), [`dial`] (whom to connect to), [`relay`] (bytes both ways),
//! [`response`] (an answer's head), [`denials`] (what was refused).

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::Path;

use eci_contract::paths::{AUDIT_LOG, REGISTRY_POLICY};
use eci_contract::registries::{PROXY, Proxies, RegistryPolicy, VERSION};
use eci_policy::rules::registry::Registries;
use eci_service::confine::confine;
use rustix::io::Errno;

use self::denials::Denials;

pub mod denials;
pub mod dial;
pub mod relay;
pub mod request;
pub mod response;
pub mod serve;

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What PID 1 says of the settings cannot be read, or is not understood.
    #[error("cannot understand `{REGISTRY_POLICY}`")]
    Policy(#[source] io::Error),
    /// Its capabilities stay.
    #[error("cannot give up capabilities")]
    Confine(#[source] Errno),
    /// It has no socket.
    #[error("cannot listen on {PROXY}")]
    Listen(#[source] io::Error),
    /// PID 1 could not be told.
    #[error("cannot report readiness")]
    Notify(#[source] io::Error),
}

/// What is let through, and how.
#[derive(Debug)]
pub struct Way {
    /// Who may be reached.
    pub registries: Registries,
    /// Who leads there.
    pub proxies: Proxies,
    /// Where refusals are written down.
    pub denials: Denials,
}

/// Serves for ever.
///
/// # Errors
/// [`Error`], before anything is served.
pub fn run() -> Result<Infallible, Error> {
    let way =
        read(Path::new(REGISTRY_POLICY), Denials::in_log(Path::new(AUDIT_LOG))).map_err(Error::Policy)?;
    confine(&[]).map_err(Error::Confine)?;
    let listener = TcpListener::bind(PROXY).map_err(Error::Listen)?;
    eci_service::ready().map_err(Error::Notify)?;
    serve::serve(&listener, way)
}

fn read(path: &Path, denials: Denials) -> io::Result<Way> {
    let policy: RegistryPolicy = serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)?;
    if policy.version != VERSION {
        return Err(io::Error::other(format!("it is of version {}", policy.version)));
    }
    let mut registries = Registries::default();
    for entry in &policy.allowed {
        registries.add(entry).map_err(|reason| io::Error::other(format!("{entry:?}: {reason}")))?;
    }
    Ok(Way { registries, proxies: policy.proxies, denials })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_understood_serves_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registries.json");
        let good = r#"{"version":1,"allowed":["docker.io"],"proxies":{"https-proxy":"http://proxy:3128"}}"#;
        fs::write(&path, good).unwrap();
        let way = read(&path, Denials::default()).unwrap();
        assert_eq!(
            (way.registries.written(), way.proxies.https_proxy.as_deref()),
            (&["docker.io".to_owned()][..], Some("http://proxy:3128"))
        );
        for (from, to) in
            [("1,", "2,"), ("docker.io", "*"), ("allowed", "allow"), ("https-proxy", "proxy"), ("}", "")]
        {
            fs::write(&path, good.replacen(from, to, 1)).unwrap();
            assert!(read(&path, Denials::default()).is_err(), "{to}");
        }
        fs::remove_file(&path).unwrap();
        assert!(read(&path, Denials::default()).is_err());
    }
}
