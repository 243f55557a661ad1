//! An instance's folder: `$XDG_STATE_HOME/eci/NAME`, its files, its lock and its record ([`Record`]).

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use eci_contract::disk::Slot;
use eci_contract::shares::MOST;
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::process::{Flock, FlockOffsetType, FlockType, Pid, fcntl_getlk};

mod record;

pub use record::{RECORD_VERSION, Record};

/// The instance that commands mean when no name is given.
pub const DEFAULT_NAME: &str = "default";
/// Bytes of a Unix socket's path that the kernel takes: `sun_path` is 108 bytes with a NUL at the end (unix(7)).
const MAX_SOCKET_PATH: usize = 107;
/// File that a running instance is locked by.
const LOCK: &str = "lock";
/// File with the record lock of who holds it.
const HOLDER: &str = "lock.holder";
/// How long a lock is waited for whose holder is ending.
const ENDING: Duration = Duration::from_secs(2);
/// File that an update of an instance is locked by.
const UPDATE_LOCK: &str = "update.lock";
/// Files that go last when an instance is removed.
const LAST: [&str; 4] = [LOCK, HOLDER, UPDATE_LOCK, record::FILE];
/// Longest instance name; it is part of socket paths.
const MAX_NAME: usize = 32;

/// Why an instance's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name cannot be one.
    #[error(
        "`{name}` cannot name an instance: 1 to {MAX_NAME} of a-z, 0-9 and `-`, starting with a letter or digit"
    )]
    BadName {
        /// The name as given.
        name: String,
    },
    /// There is no home to keep state in.
    #[error("no state folder: neither XDG_STATE_HOME nor HOME is an absolute path")]
    NoHome,
    /// A socket's path would not fit into a socket address.
    #[error("the socket path `{}` is {length} bytes long and {MAX_SOCKET_PATH} is the system's limit", .path.display())]
    LongPath {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// No instance of that name was ever started, or it was removed.
    #[error("there is no instance `{name}`")]
    Missing {
        /// The name.
        name: String,
    },
    /// The instance runs already.
    #[error("the instance `{name}` is running")]
    Running {
        /// The name.
        name: String,
    },
    /// A command other than a run of the instance holds it.
    #[error("another command is starting or changing the instance `{name}`")]
    Busy {
        /// The name.
        name: String,
    },
    /// An update of the instance is under way.
    #[error("another update of the instance `{name}` is under way")]
    Updating {
        /// The name.
        name: String,
    },
    /// A file operation failed.
    #[error("cannot {operation} `{}`", .path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The record is not what this version writes.
    #[error("cannot understand `{}`", .path.display())]
    Record {
        /// The record's path.
        path: PathBuf,
        /// Where it goes wrong.
        source: serde_json::Error,
    },
}

/// The folder of one instance. It need not exist.
#[derive(Clone, Debug)]
pub struct Home {
    name: String,
    root: PathBuf,
}

/// Held by the supervisor for as long as the instance runs; the kernel lets go of it when the process ends.
///
/// It is two locks: flock(2) keeps others out, and a record lock of fcntl(2), on a file beside it, tells whoever asks which process that
/// is, without taking anything. Two files, for NFS makes record locks of both.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    _holder: File,
}

/// Held by who brings an update, or puts it into a slot.
#[derive(Debug)]
pub struct UpdateLock {
    _file: File,
}

impl Home {
    /// The folder of the instance of this name.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::NoHome`] and [`Error::LongPath`].
    pub fn of(name: &str) -> Result<Self, Error> {
        let absolute =
            |variable| env::var_os(variable).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
        let state = absolute("XDG_STATE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
            .ok_or(Error::NoHome)?;
        Self::under(&state, name)
    }

    /// The same under a state folder of the caller's choice.
    ///
    /// # Errors
    /// [`Error::BadName`] and [`Error::LongPath`].
    pub fn under(state: &Path, name: &str) -> Result<Self, Error> {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > MAX_NAME || name.starts_with('-') || !name.bytes().all(legal) {
            return Err(Error::BadName { name: name.to_owned() });
        }
        let home = Self { name: name.to_owned(), root: state.join("eci").join(name) };
        for path in home.sockets() {
            let length = path.as_os_str().as_bytes().len();
            if length > MAX_SOCKET_PATH {
                return Err(Error::LongPath { path, length });
            }
        }
        Ok(home)
    }

    /// The instance's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Docker's API, for the user's `docker`.
    #[must_use]
    pub fn docker_socket(&self) -> PathBuf {
        self.root.join("docker.sock")
    }

    /// What the user sets `DOCKER_HOST` to.
    #[must_use]
    pub fn docker_host(&self) -> String {
        format!("unix://{}", self.docker_socket().display())
    }

    /// Requests of other commands to the VM; see [`super::client`].
    #[must_use]
    pub fn link_socket(&self) -> PathBuf {
        self.root.join("link.sock")
    }

    /// QEMU's end of the virtio-serial port.
    #[must_use]
    pub fn port_socket(&self) -> PathBuf {
        self.root.join("port.sock")
    }

    /// QEMU's control socket.
    #[must_use]
    pub fn qmp_socket(&self) -> PathBuf {
        self.root.join("qmp.sock")
    }

    /// The disk that tells the VM what its user chose.
    #[must_use]
    pub fn choice_disk(&self) -> PathBuf {
        self.root.join("choice.img")
    }

    /// The disk that names the folders of the host to the VM.
    #[must_use]
    pub fn shares_disk(&self) -> PathBuf {
        self.root.join("shares.img")
    }

    /// What QEMU reaches the folder of the host at this place in the list by.
    #[must_use]
    pub fn share_socket(&self, index: usize) -> PathBuf {
        self.root.join(format!("fs-{index}.sock"))
    }

    /// What QEMU reaches the TPM by.
    #[must_use]
    pub fn tpm_socket(&self) -> PathBuf {
        self.root.join("tpm.sock")
    }

    /// The TPM's state: its keys come from there.
    #[must_use]
    pub fn tpm_state(&self) -> PathBuf {
        self.root.join("tpm")
    }

    /// Variables of the firmware that a measured boot begins with.
    #[must_use]
    pub fn firmware_variables(&self) -> PathBuf {
        self.root.join("variables.fd")
    }

    /// What the guest's console printed since power-on.
    #[must_use]
    pub fn console_log(&self) -> PathBuf {
        self.root.join("console.log")
    }

    /// What QEMU said of itself in the last run.
    #[must_use]
    pub fn qemu_log(&self) -> PathBuf {
        self.root.join("qemu.log")
    }

    /// Messages of a detached supervisor.
    #[must_use]
    pub fn supervisor_log(&self) -> PathBuf {
        self.root.join("supervisor.log")
    }

    /// The data disk when the user names none.
    #[must_use]
    pub fn data_disk(&self) -> PathBuf {
        self.root.join("data.raw")
    }

    /// The instance's own disk, which it has from its first update on.
    #[must_use]
    pub fn own_disk(&self) -> PathBuf {
        self.root.join("disk.raw")
    }

    /// Kernel, initrd and manifest of a slot of that disk.
    #[must_use]
    pub fn slot(&self, slot: Slot) -> PathBuf {
        self.root.join("slots").join(slot.to_string())
    }

    /// An update that waits to be put into a slot.
    #[must_use]
    pub fn next(&self) -> PathBuf {
        self.root.join("next")
    }

    /// Makes the folder, mode 0700, if it is not there.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn create(&self) -> Result<(), Error> {
        let parent = self.root.parent().expect("the folder is made of a state folder and two names");
        fs::create_dir_all(parent).map_err(failed("make", parent))?;
        match DirBuilder::new().mode(0o700).create(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result.map_err(failed("make", &self.root)),
        }
    }

    /// Takes the lock of a running instance.
    ///
    /// # Errors
    /// [`Error::Running`] when it is taken, [`Error::File`].
    pub fn lock(&self) -> Result<Lock, Error> {
        let started = Instant::now();
        let file = loop {
            match self.lock_file(LOCK) {
                // A process that ends lets go of the record first.
                Err(Error::Running { .. }) if started.elapsed() < ENDING && self.held()?.is_none() => {
                    thread::sleep(Duration::from_millis(10));
                }
                file => break file?,
            }
        };
        let path = self.root.join(HOLDER);
        let holder = open_lock(&path)?;
        let told = fcntl_lock(&holder, FlockOperation::NonBlockingLockExclusive);
        told.map_err(|error| failed("lock", &path)(error.into()))?;
        Ok(Lock { _file: file, _holder: holder })
    }

    /// Takes the lock of an update, which there is one of at a time.
    ///
    /// # Errors
    /// [`Error::Updating`] when it is taken, [`Error::File`].
    pub fn lock_update(&self) -> Result<UpdateLock, Error> {
        match self.lock_file(UPDATE_LOCK) {
            Err(Error::Running { name }) => Err(Error::Updating { name }),
            file => file.map(|file| UpdateLock { _file: file }),
        }
    }

    fn lock_file(&self, name: &str) -> Result<File, Error> {
        let path = self.root.join(name);
        let file = open_lock(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Running { name: self.name.clone() }),
            Err(error) => Err(failed("lock", &path)(error.into())),
        }
    }

    /// Whether another process holds the lock: a supervisor, or for a moment a command that changes the instance.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no such instance, [`Error::File`].
    pub fn is_running(&self) -> Result<bool, Error> {
        self.record()?;
        Ok(self.held()?.is_some())
    }

    /// The supervisor of the instance, if it runs.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no such instance, [`Error::Busy`] when what holds it is no supervisor, [`Error::File`].
    pub fn supervisor(&self) -> Result<Option<Pid>, Error> {
        let recorded = self.record()?.pid;
        let Some(lock) = self.held()? else { return Ok(None) };
        // A process that is not seen from here, such as a container's, has no number.
        let pid = lock.pid.filter(|pid| u32::try_from(pid.as_raw_nonzero().get()) == Ok(recorded));
        pid.map(Some).ok_or_else(|| Error::Busy { name: self.name.clone() })
    }

    /// The lock, if another process holds it.
    fn held(&self) -> Result<Option<Flock>, Error> {
        let path = self.root.join(HOLDER);
        let file = match OpenOptions::new().write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed("open", &path))?,
        };
        let whole = Flock {
            start: 0,
            length: 0,
            pid: None,
            typ: FlockType::WriteLock,
            offset_type: FlockOffsetType::Set,
        };
        fcntl_getlk(&file, &whole).map_err(|error| failed("ask for the lock of", &path)(error.into()))
    }

    /// Makes the sparse data disk if it is not there.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn ensure_data_disk(&self, bytes: u64) -> Result<(), Error> {
        let path = self.data_disk();
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            file => file.and_then(|file| file.set_len(bytes)).map_err(failed("make the data disk", &path)),
        }
    }

    /// Removes sockets that a killed run left behind. Only the holder of the lock may.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn remove_sockets(&self, _held: &Lock) -> Result<(), Error> {
        for path in self.sockets() {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes the folder and everything in it, the record last but for the locks: cut off before that, it is done by the next call.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn remove(&self, _held: Lock, _updating: UpdateLock) -> Result<(), Error> {
        let entries = fs::read_dir(&self.root).map_err(failed("list", &self.root))?;
        for entry in entries {
            let entry = entry.map_err(failed("list", &self.root))?;
            if LAST.iter().any(|last| entry.file_name() == *last) {
                continue;
            }
            let (path, kind) = (entry.path(), entry.file_type().map_err(failed("look at", &self.root))?);
            let removed = if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(failed("remove", &path))?;
        }
        let record = self.root.join(record::FILE);
        fs::remove_file(&record).map_err(failed("remove", &record))?;
        fs::remove_dir_all(&self.root).map_err(failed("remove", &self.root))
    }

    fn sockets(&self) -> Vec<PathBuf> {
        let shares = (0..MOST).map(|index| self.share_socket(index));
        let own = [self.docker_socket(), self.link_socket(), self.port_socket(), self.qmp_socket()];
        let others = own.into_iter().chain([self.tpm_socket()]);
        others.chain(shares).collect()
    }
}

fn open_lock(path: &Path) -> Result<File, Error> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    file.map_err(failed("open", path))
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { operation, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        let state = Path::new("/s");
        for name in ["", "..", "a/b", "-a", "A", "a b", "a\0", &"x".repeat(33)] {
            assert!(matches!(Home::under(state, name), Err(Error::BadName { .. })), "{name:?}");
        }
        assert_eq!(Home::under(state, "a-1").expect("legal").root(), Path::new("/s/eci/a-1"));
    }

    #[test]
    fn a_socket_path_is_refused_one_byte_above_the_limit() {
        let fixed = "/eci/n/docker.sock".len();
        let state = |length: usize| PathBuf::from(format!("/{}", "s".repeat(length - fixed - 1)));
        assert!(Home::under(&state(107), "n").is_ok());
        assert!(matches!(Home::under(&state(108), "n"), Err(Error::LongPath { length: 108, .. })));
    }

    /// Record locks are a process's own: what holds one has to be another process.
    #[test]
    fn what_holds_an_instance_and_is_no_run_of_it_is_told_apart() {
        use std::process::{Command, Stdio};

        let state = tempfile::tempdir().expect("temporary folder");
        let home = Home::under(state.path(), "x").expect("legal");
        home.create().expect("made");
        drop(home.lock().expect("free"));
        let mut record = record::example(&home);
        home.save(&record).expect("saved");
        assert!(matches!(home.supervisor(), Ok(None)));
        let script = "import fcntl, sys; file = open(sys.argv[1], 'r+'); fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()";
        let mut holder = Command::new("python3");
        holder.args(["-c", script]).arg(home.root().join(HOLDER));
        let mut holder =
            holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 is there");
        io::Read::read_exact(holder.stdout.as_mut().expect("a pipe"), &mut [0]).expect("it holds the lock");
        assert!(home.is_running().expect("known"));
        assert!(matches!(home.supervisor(), Err(Error::Busy { .. })));
        record.pid = holder.id();
        home.save(&record).expect("saved");
        let found = home.supervisor().expect("it is recorded").expect("it runs");
        assert_eq!(found.as_raw_nonzero().get().unsigned_abs(), holder.id());
        drop(holder.stdin.take());
        holder.wait().expect("it ends");
        assert!(matches!(home.supervisor(), Ok(None)));
    }

    #[test]
    fn the_folder_is_private_and_only_one_process_holds_the_lock() {
        let state = tempfile::tempdir().expect("temporary folder");
        let home = Home::under(state.path(), "x").expect("legal");
        home.create().expect("made");
        home.create().expect("it may be there");
        let mode = fs::metadata(home.root()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let held = home.lock().expect("free");
        assert!(matches!(home.lock(), Err(Error::Running { .. })));
        drop(held);
        home.lock().expect("free again");
    }
}
