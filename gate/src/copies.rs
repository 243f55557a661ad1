//! One view of a running container's files, for the container and for the engine.
//!
//! Both have a mount of the same layers, and each mount goes on believing what was looked up through it: that a name is not
//! there, or that a file is the image's. So `docker cp` would miss what the container has made since it was asked last, and
//! the container what was copied into it. The kernel forgets the names of a file system that is reconfigured, also to what it
//! was (`reconfigure_super` in Linux' `fs/super.c`). That is done before each request that looks into a container, and
//! after each copy into one, which the engine's events tell.

use std::convert::Infallible;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use eci_contract::paths::{CONTAINERS_DIR, ENGINE_DATA, ENGINE_SOCKET};
use eci_policy::rules::engine_mount::is_name;
use eci_service::log::{self, Level};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, makedev, open, statx};
use rustix::io::Errno;
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fspick};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::select;
use tokio::time::{sleep, timeout};

use crate::port::register;

/// Pause before an engine that is not there is asked again.
const RETRY: Duration = Duration::from_millis(500);
/// How long the engine may take to describe something that it has.
const DESCRIBED: Duration = Duration::from_secs(60);
/// `{"type":["container"],"event":["extract-to-dir"]}`: the event that ends a copy into a container.
const EVENTS: &str =
    "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22extract-to-dir%22%5D%7D";
/// Longest answer in bytes; a container's description has some 10 KiB. Events are asked for anew after that many.
const MAX_ANSWER_BYTES: u64 = 16 * 1024 * 1024;

/// Why a container may still see what it saw before.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine is not there.
    #[error("cannot connect to the engine")]
    Connect(#[source] io::Error),
    /// Whether it goes cannot be watched.
    #[error("cannot watch the engine's socket")]
    Watch(#[source] io::Error),
    /// It cannot be asked.
    #[error("cannot ask the engine")]
    Ask(#[source] io::Error),
    /// It says something else.
    #[error("the engine's answer is not understood: {what}")]
    Answer {
        /// What it said.
        what: String,
    },
    /// What `eci-runc` wrote of the container is not there.
    #[error("container `{id}` has no root file system that is known")]
    Unknown {
        /// The container.
        id: String,
    },
    /// The kernel does not do it.
    #[error("cannot make the kernel forget the names of container `{id}`")]
    Forget {
        /// The container.
        id: String,
        /// Why.
        source: Errno,
    },
}

/// Watches for ever; the engine comes and goes.
pub async fn watch() -> Infallible {
    loop {
        match follow().await {
            // As long as it starts, and while it is restarted.
            Ok(()) | Err(Error::Connect(_)) => {}
            Err(error) => log::failure(Level::Warn, "copies into containers are not followed", &error),
        }
        sleep(RETRY).await;
    }
}

/// Follows the events until the engine ends, or begins to: for whoever listens then, it waits five seconds.
async fn follow() -> Result<(), Error> {
    let engine = Path::new(ENGINE_SOCKET);
    let removal = removal_of(engine).map_err(Error::Watch)?;
    let mut events = ask(engine, EVENTS).await?;
    let follow = async {
        while let Some(line) = events.next_line().await.map_err(Error::Ask)? {
            let event = parse(&line)?;
            if let Some(id) = event.get("id").and_then(Value::as_str).filter(|id| is_name(id)) {
                refresh(id).await;
            }
        }
        Ok(())
    };
    select! {
        outcome = follow => outcome,
        gone = removal => gone.map_err(Error::Watch),
    }
}

/// Waits until a socket is removed, as a server in Go does when it takes no more requests. It is watched from the call on.
fn removal_of(socket: &Path) -> io::Result<impl Future<Output = io::Result<()>>> {
    let name = socket.file_name().map(|name| name.as_bytes().to_owned());
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, socket.parent().unwrap_or(socket), WatchFlags::DELETE)?;
    let watch = register(watch.into())?;
    Ok(async move {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        loop {
            let mut ready = watch.readable().await?;
            let mut events = inotify::Reader::new(&watch, &mut buffer);
            loop {
                match events.next() {
                    Ok(event) if event.file_name().map(CStr::to_bytes) == name.as_deref() => return Ok(()),
                    Ok(_) => {}
                    Err(Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
        }
    })
}

/// The container that a request looks into, by its path and query: copies, an export, a list of changes, a commit, a new process (whose user the
/// engine looks up).
#[must_use]
pub fn looked_into(target: &str) -> Option<String> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut parts = path.split('/').skip_while(|part| *part != "containers" && *part != "commit");
    let name = match (parts.next()?, parts.next(), parts.next()) {
        ("containers", Some(name), Some("archive" | "export" | "changes" | "exec")) => name,
        ("commit", None, None) => query.split('&').find_map(|pair| pair.strip_prefix("container="))?,
        _ => return None,
    };
    is_name(name).then(|| name.to_owned())
}

/// Has both mounts of container `name` looked at anew. What cannot be done is logged: the request goes its way.
pub async fn refresh(name: &str) {
    if let Err(error) = try_refresh(name).await {
        log::failure(Level::Warn, "a container and the engine may see its files differently", &error);
    }
}

async fn try_refresh(name: &str) -> Result<(), Error> {
    let container = match describe(Path::new(ENGINE_SOCKET), &format!("/containers/{name}/json")).await {
        // The request will be told.
        Err(Error::Answer { .. }) => return Ok(()),
        container => container?,
    };
    let id = container.get("Id").and_then(Value::as_str).unwrap_or_default();
    let pid = container.pointer("/State/Pid").and_then(Value::as_u64).unwrap_or_default();
    let merged = container.pointer("/GraphDriver/Data/MergedDir").and_then(Value::as_str);
    if pid == 0 || !is_name(id) {
        // It does not run, so that it has no mount, and the engine makes its own anew.
        return Ok(());
    }
    let failed = |source| Error::Forget { id: id.to_owned(), source };
    if let Some(merged) = merged.map(Path::new).filter(|path| path.starts_with(ENGINE_DATA)) {
        forget_names(&open_folder(merged).map_err(failed)?).map_err(failed)?;
    }
    let root = open_folder(&Path::new("/proc").join(pid.to_string()).join("root")).map_err(failed)?;
    if !is_own_root(&root, id).map_err(failed)? {
        return Err(Error::Unknown { id: id.to_owned() });
    }
    forget_names(&root).map_err(failed)
}

fn open_folder(path: &Path) -> Result<OwnedFd, Errno> {
    open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Whether `root` is on the file system that `eci-runc` mounted for container `id`. Another one could be of the container's own
/// making, and keep us waiting; so may be what is asked about it.
fn is_own_root(root: &OwnedFd, id: &str) -> Result<bool, Errno> {
    let found = statx(root, c"", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE)?;
    let wanted = fs::read_to_string(Path::new(CONTAINERS_DIR).join(id).join("device"));
    let wanted = wanted.ok().and_then(|text| text.trim().parse().ok());
    Ok(wanted == Some(makedev(found.stx_dev_major, found.stx_dev_minor)))
}

/// Makes the kernel forget the names of the file system that has its root at `root`; of those in use it knows more.
fn forget_names(root: &OwnedFd) -> Result<(), Errno> {
    let flags = FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC;
    fsconfig_reconfigure(fspick(root, c"", flags)?)
}

type Answer = Lines<BufReader<tokio::io::Take<UnixStream>>>;

/// What the engine says of something that it has.
///
/// # Errors
/// [`Error::Answer`] when it knows nothing of it, [`Error::Connect`] and [`Error::Ask`].
pub async fn describe(engine: &Path, path: &str) -> Result<Value, Error> {
    let described = async {
        let line = ask(engine, path).await?.next_line().await.map_err(Error::Ask)?;
        parse(&line.unwrap_or_default())
    };
    let late = |_| Error::Ask(io::ErrorKind::TimedOut.into());
    timeout(DESCRIBED, described).await.map_err(late)?
}

/// Asks the engine; gives the lines of its answer. HTTP/1.0, so that the answer is not cut into chunks and ends with the
/// connection.
async fn ask(engine: &Path, path: &str) -> Result<Answer, Error> {
    let mut stream = UnixStream::connect(engine).await.map_err(Error::Connect)?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: engine\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(Error::Ask)?;
    let mut lines = BufReader::new(stream.take(MAX_ANSWER_BYTES)).lines();
    let status = lines.next_line().await.map_err(Error::Ask)?.unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(Error::Answer { what: status });
    }
    while lines.next_line().await.map_err(Error::Ask)?.is_some_and(|line| !line.is_empty()) {}
    Ok(lines)
}

fn parse(line: &str) -> Result<Value, Error> {
    serde_json::from_str(line).map_err(|error| Error::Answer { what: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Option<String> {
        looked_into(line.split(' ').nth(1)?)
    }

    #[test]
    fn requests_that_look_into_a_container_are_told_from_others() {
        for line in [
            "GET /v1.45/containers/c.1/archive?path=%2Fx",
            "HEAD /containers/c.1/archive?path=/",
            "PUT /v1.45/containers/c.1/archive?path=%2F&noOverwriteDirNonDir=true",
            "GET /v1.45/containers/c.1/export",
            "GET /containers/c.1/changes",
            "POST /v1.45/containers/c.1/exec",
            "POST /v1.45/commit?author=&container=c.1&repo=x",
        ] {
            assert_eq!(found(line).as_deref(), Some("c.1"), "{line}");
        }
        for line in [
            "GET /v1.45/containers/json",
            "POST /v1.45/containers/archive/start",
            "GET /containers/../archive",
            "GET /containers/a%2Fb/archive",
            "GET /containers//archive",
            "POST /commit?repo=x",
            "",
        ] {
            assert_eq!(found(line), None, "{line}");
        }
    }

    #[test]
    fn a_container_that_the_runtime_does_not_know_is_left_alone() {
        let root = open_folder(Path::new("/proc/self/root")).unwrap();
        assert!(!is_own_root(&root, "0123abcd").unwrap());
    }

    #[tokio::test]
    async fn a_socket_that_is_removed_is_noticed_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let [socket, other] = ["docker.sock", "docker.sock2"].map(|name| folder.path().join(name));
        for path in [&socket, &other] {
            fs::write(path, "").unwrap();
        }
        let removal = removal_of(&socket).unwrap();
        tokio::pin!(removal);
        fs::remove_file(&other).unwrap();
        assert!(timeout(Duration::from_millis(100), &mut removal).await.is_err());
        fs::remove_file(&socket).unwrap();
        timeout(Duration::from_secs(10), removal).await.unwrap().unwrap();
    }

    #[test]
    fn errors_say_what_the_engine_said() {
        let error = parse("<html>").unwrap_err().to_string();
        assert!(error.starts_with("the engine's answer is not understood: "), "{error}");
    }
}
