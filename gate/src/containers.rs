//! The engine's socket for containers, whose images an administrator names: there the gate lets through what the list of commands allows.
//! Images that have a list of their own have a socket of their own: who a client is never decides what it may.
//!
//! Who gets the socket is for the runtime to say, which mounts it and nothing else of the engine's. It is there in any case, so that
//! who asks for it is refused with the reason; where nobody is on the list, nobody listens.
//!
//! PID 1 keeps the socket for the next gate, as a container has the very file.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use eci_audit::limit::LEFT_OUT;
use eci_audit::time::rfc3339;
use eci_contract::audit::{self, Denial};
use eci_contract::paths::{AUDIT_LOG, ENGINE_SOCKET, SOCKET_POLICY};
use eci_contract::socket::{CommandList, SocketPolicy, VERSION, filtered_by};
use eci_policy::rules::engine_command::Commands;
use eci_service::log::{self, Level};
use eci_service::store;
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::api::judge::Refused;
use crate::api::{self, Rules};
use crate::copies::describe;

/// A container's root and its group have it; its other users do not, as with the engine's own on any machine.
const MODE: u32 = 0o660;
/// Connections of one container that are served at once, and of all. Those beyond are closed: each takes the engine one of its own.
const MOST_OF_ONE: usize = 128;
const MOST: usize = 1024;
/// Refusals of one container that are written down, in so much time.
const MOST_IN_WINDOW: usize = 20;
const WINDOW: Duration = Duration::from_secs(60);
/// How long the engine may take to say which image a container has.
const DESCRIBED: Duration = Duration::from_secs(2);
/// What a client is called whose container is not found.
const UNKNOWN: &str = "unknown";
/// Name of the socket in PID 1's store; those of lists have their number behind it.
const KEPT: &str = "containers";
/// Pause after a failed accept: it fails for want of descriptors or memory, which come back with time.
const RETRY: Duration = Duration::from_millis(200);

/// Why containers cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket is not there.
    #[error("cannot listen on `{}`", .path.display())]
    Listen {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What PID 1 says of the settings is not understood.
    #[error("cannot understand `{SOCKET_POLICY}`")]
    Policy(#[source] io::Error),
    /// The socket of an earlier gate cannot be taken up.
    #[error(transparent)]
    Kept(#[from] store::Error),
    /// PID 1 does not keep it.
    #[error("cannot leave the socket for containers with PID 1")]
    Keep(#[source] io::Error),
}

/// What is listened on, and what is let through.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    commands: Arc<Commands>,
}

/// Makes the sockets; none is listened on when the settings give it to nobody.
///
/// # Errors
/// [`Error`].
pub fn open() -> Result<Vec<Door>, Error> {
    let mut kept: HashMap<_, _> = store::take()?.into_iter().collect();
    let path = filtered_by(None);
    let Some(policy) = policy(Path::new(SOCKET_POLICY))? else {
        return bind(&path).map(|_nobody_listens| Vec::new());
    };
    let mut doors = vec![open_one(KEPT, &path, &policy.commands, &mut kept)?];
    for (number, list) in policy.lists.iter().enumerate() {
        let path = filtered_by(Some(number));
        doors.push(open_one(&format!("{KEPT}-{number}"), &path, &list.commands, &mut kept)?);
    }
    Ok(doors)
}

fn open_one(
    name: &str,
    path: &Path,
    commands: &CommandList,
    kept: &mut HashMap<String, OwnedFd>,
) -> Result<Door, Error> {
    let listener = match kept.remove(name) {
        Some(file) => StdListener::from(file),
        None => {
            let listener = bind(path)?;
            store::put(name, listener.as_fd()).map_err(Error::Keep)?;
            listener
        }
    };
    let failed = |source| Error::Listen { path: path.to_owned(), source };
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = UnixListener::from_std(listener).map_err(failed)?;
    Ok(Door { listener, commands: Arc::new(Commands::new(commands)) })
}

/// What PID 1 says of the settings; without a file nobody has the socket.
fn policy(path: &Path) -> Result<Option<SocketPolicy>, Error> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(Error::Policy)?,
    };
    let policy: SocketPolicy =
        serde_json::from_slice(&text).map_err(|error| Error::Policy(io::Error::other(error)))?;
    if policy.version == VERSION {
        Ok(Some(policy))
    } else {
        Err(Error::Policy(io::Error::other(format!("it is of version {}", policy.version))))
    }
}

/// Over whatever has the name: a socket of a gate that ended before, or the folder that the engine makes for a mount whose source is missing.
fn bind(path: &Path) -> Result<StdListener, Error> {
    let failed = |source| Error::Listen { path: path.to_owned(), source };
    let beside = path.with_extension("new");
    drop(fs::remove_file(&beside));
    let listener = StdListener::bind(&beside).map_err(failed)?;
    fs::set_permissions(&beside, Permissions::from_mode(MODE)).map_err(failed)?;
    drop(fs::remove_dir(path));
    fs::rename(&beside, path).map_err(failed)?;
    Ok(listener)
}

/// Connections that are served, by container.
type Served = Mutex<HashMap<String, usize>>;

/// Refusals that were written down.
#[derive(Debug, Default)]
struct Written {
    /// The audit log; none in tests.
    log: Option<&'static Path>,
    /// By container: how many since when.
    counts: Mutex<HashMap<String, (usize, Instant)>>,
}

/// A container's place among those that are served.
#[derive(Debug, Default)]
pub struct Place {
    served: Arc<Served>,
    written: Arc<Written>,
    who: String,
}

impl Place {
    /// One for this container, if there is one left.
    fn take(served: &Arc<Served>, written: &Arc<Written>, who: &str) -> Option<Self> {
        let mut counts = served.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = counts.values().sum();
        let own = counts.get(who).copied().unwrap_or_default();
        if own >= MOST_OF_ONE || all >= MOST {
            return None;
        }
        counts.insert(who.to_owned(), own + 1);
        Some(Self { served: Arc::clone(served), written: Arc::clone(written), who: who.to_owned() })
    }

    /// Has it written down what it was refused, with the image that the engine at `socket` says it has: in the log, and in the audit log.
    /// What comes too often is left out, so that no container drives what others were refused out of the log at once; the last line
    /// says so.
    pub fn write_down(self: &Arc<Self>, refused: &Refused, socket: &Path) {
        let Some(is_last) = self.may_write_down(Instant::now()) else { return };
        let mut refused = refused.clone();
        if is_last {
            refused.message.push_str(LEFT_OUT);
        }
        let who = &self.who;
        log::line(
            Level::Warn,
            &format!("refused to container {who}: {}: {}", refused.action, refused.message),
        );
        let Some(audit_log) = self.written.log else { return };
        let (place, socket) = (Arc::clone(self), socket.to_owned());
        tokio::spawn(async move {
            let denial = place.denial(refused, &socket).await;
            let written =
                spawn_blocking(|| eci_audit::append(audit_log, denial)).await.map_err(io::Error::from);
            if let Err(error) = written.and_then(|written| written) {
                log::failure(Level::Warn, "cannot write the audit log", &error);
            }
        });
    }

    async fn denial(&self, Refused { action, rule, message, remedy }: Refused, socket: &Path) -> Denial {
        let asked = format!("/containers/{}/json", self.who);
        // The engine may be busy with that very container; who looks the id up finds the image by that.
        let described = async {
            if self.who == UNKNOWN {
                None
            } else {
                timeout(DESCRIBED, describe(socket, &asked)).await.ok()?.ok()
            }
        };
        let image = described.await.and_then(|container| {
            container.pointer("/Config/Image").and_then(Value::as_str).map(str::to_owned)
        });
        Denial {
            version: audit::VERSION,
            time: rfc3339(SystemTime::now()),
            by: env!("CARGO_PKG_NAME").to_owned(),
            action,
            container: self.who.clone(),
            image,
            rule: rule.to_owned(),
            message,
            remedy: remedy.to_owned(),
        }
    }

    /// `None` when it comes too often; otherwise whether this is the last of its time.
    fn may_write_down(&self, now: Instant) -> Option<bool> {
        let mut written = self.written.counts.lock().unwrap_or_else(PoisonError::into_inner);
        written.retain(|_, (_, since)| now.duration_since(*since) < WINDOW);
        let (count, _) = written.entry(self.who.clone()).or_insert((0, now));
        *count += 1;
        (*count <= MOST_IN_WINDOW).then_some(*count == MOST_IN_WINDOW)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.who);
            }
        }
    }
}

/// What all sockets share: a container's places are its own, by whichever it comes.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    served: Arc<Served>,
    written: Arc<Written>,
}

impl Shared {
    /// With refusals in the audit log.
    #[must_use]
    pub fn audited() -> Self {
        let written = Written { log: Some(Path::new(AUDIT_LOG)), ..Written::default() };
        Self { written: Arc::new(written), ..Self::default() }
    }
}

/// Serves containers at one of the sockets for ever.
pub async fn serve(door: Door, shared: Shared) -> Infallible {
    let Shared { served, written } = shared;
    loop {
        match door.listener.accept().await {
            Ok((client, _)) => {
                let who = container_of(&client);
                let Some(place) = Place::take(&served, &written, &who).map(Arc::new) else { continue };
                let rules = Rules::Container { commands: Arc::clone(&door.commands), place };
                tokio::spawn(api::serve(client, Path::new(ENGINE_SOCKET), rules));
            }
            Err(error) => {
                log::failure(Level::Warn, "cannot accept a container's client", &error);
                sleep(RETRY).await;
            }
        }
    }
}

/// The container that a client is in, for the log: its control group has the name.
fn container_of(client: &UnixStream) -> String {
    let pid = client.peer_cred().ok().and_then(|peer| peer.pid());
    let cgroup = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).ok());
    cgroup.as_deref().and_then(id_in).unwrap_or(UNKNOWN).to_owned()
}

fn id_in(cgroup: &str) -> Option<&str> {
    let is_id = |part: &&str| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    cgroup.trim_end().split('/').find(is_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_nobody_has_the_socket_and_one_that_is_not_understood_is_an_error() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("policy");
        assert!(policy(&path).expect("no file").is_none());
        let good = r#"{"version":2,"images":["*"],"allowDerivedImages":false,"commands":{"type":"deny","commands":["push"]},"lists":[]}"#;
        fs::write(&path, good).expect("written");
        assert_eq!(policy(&path).expect("good").expect("somebody").images, ["*"]);
        for bad in
            ["", "{}", &good.replace("\"version\":2", "\"version\":1"), &good.replace("images", "image")]
        {
            fs::write(&path, bad).expect("written");
            assert!(matches!(policy(&path), Err(Error::Policy(_))), "{bad}");
        }
    }

    #[test]
    fn the_socket_is_for_root_and_its_group_and_replaces_an_old_one() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("docker.sock");
        fs::create_dir(&path).expect("made");
        drop(bind(&path).expect("a socket"));
        let _listener = bind(&path).expect("another");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
    }

    #[test]
    fn one_container_does_not_take_the_places_of_others_and_gives_its_own_back() {
        let (served, written) = (Arc::<Served>::default(), Arc::<Written>::default());
        let take = |who| Place::take(&served, &written, who);
        let mut own: Vec<_> = (0..MOST_OF_ONE).map(|_| take("a").expect("a place")).collect();
        assert!(take("a").is_none());
        let other = take("b").expect("a place");
        own.pop();
        own.push(take("a").expect("the place that was given back"));
        drop((own, other));
        assert!(served.lock().expect("not poisoned").is_empty());
    }

    #[test]
    fn a_container_that_is_refused_often_leaves_the_log_to_others() {
        let (served, written) = (Arc::<Served>::default(), Arc::<Written>::default());
        let take = |who| Place::take(&served, &written, who).expect("a place");
        let (one, again, other) = (take("a"), take("a"), take("b"));
        let now = Instant::now();
        let by_turns = |n| if n % 2 == 0 { &one } else { &again }.may_write_down(now);
        let written: Vec<_> = (0..100).filter_map(by_turns).collect();
        assert_eq!(written.len(), MOST_IN_WINDOW, "by whichever connection");
        assert_eq!(written.iter().filter(|last| **last).count(), 1, "which the last one tells");
        assert_eq!(other.may_write_down(now), Some(false));
        assert_eq!(one.may_write_down(now + WINDOW / 2), None);
        assert_eq!(one.may_write_down(now + WINDOW), Some(false), "in a minute again");
    }

    #[test]
    fn a_container_is_named_by_its_control_group() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(id_in(&format!("0::/docker/{id}\n")), Some(id.as_str()));
        assert_eq!(id_in(&format!("0::/docker/{id}/nested\n")), Some(id.as_str()));
        assert_eq!(id_in("0::/eci/dockerd\n"), None);
    }
}
