//! Descriptors that a service leaves with PID 1 for its next start: systemd's file descriptor store (`sd_notify(3)`).
//!
//! Invariant: a store holds as many as the service table says, from that service's own process only, and not for longer than
//! the service runs or is started again. What is hung up is dropped: a listener of a container that has ended. What cannot be
//! watched for that, such as memory, stays until the service takes it back.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Most descriptors that a table may let a service store. PID 1 may have 4096 open, the kernel's hard limit for it.
pub const MOST: usize = 2048;
/// Longest name in bytes. All names are one variable of the environment, which has 128 KiB at most (`MAX_ARG_STRLEN`).
const MAX_NAME_BYTES: usize = 60;
/// How many are dropped at once.
const BATCH: usize = 64;
/// A poll that does not wait.
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Why a descriptor was not stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are as many as the table allows.
    #[error("it may store {limit} descriptors")]
    Full {
        /// How many.
        limit: usize,
    },
    /// Names are passed in a list with colons.
    #[error("the name of a descriptor has 1 to {MAX_NAME_BYTES} printable letters and no colon")]
    Name,
    /// The kernel does not watch it.
    #[error("cannot watch a descriptor")]
    Watch(#[source] Errno),
}

/// What one service has stored.
#[derive(Debug, Default)]
pub struct Store {
    limit: usize,
    /// Tells of those that are hung up. One descriptor for PID 1's loop, however many there are.
    watch: Option<OwnedFd>,
    stored: Vec<Stored>,
    next_key: u64,
}

/// A descriptor.
#[derive(Debug)]
struct Stored {
    key: u64,
    name: String,
    file: OwnedFd,
}

impl Store {
    /// An empty one for at most `limit`.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Stores descriptors under a name, which others may have as well.
    ///
    /// # Errors
    /// Those that do not fit are closed.
    pub fn put(&mut self, name: &str, files: Vec<OwnedFd>) -> Result<(), Error> {
        let is_printable = |byte: u8| byte.is_ascii_graphic() && byte != b':';
        if !(1..=MAX_NAME_BYTES).contains(&name.len()) || !name.bytes().all(is_printable) {
            return Err(Error::Name);
        }
        for file in files {
            if self.stored.len() >= self.limit {
                return Err(Error::Full { limit: self.limit });
            }
            let key = self.next_key;
            self.next_key += 1;
            self.watch(&file, key)?;
            self.stored.push(Stored { key, name: name.to_owned(), file });
        }
        Ok(())
    }

    /// Lets go of every descriptor of that name.
    pub fn remove(&mut self, name: &str) {
        self.drop_if(|stored| stored.name == name);
    }

    /// Lets go of everything.
    pub fn clear(&mut self) {
        self.drop_if(|_| true);
    }

    /// Readable when something is hung up.
    #[must_use]
    pub fn hung_up(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// Lets go of what is hung up.
    pub fn drop_hung_up(&mut self) {
        // As often as it takes for a full store: one that is told of and not there would keep PID 1 here.
        for _ in 0..=MOST / BATCH {
            let Some(watch) = &self.watch else { return };
            let mut events = Vec::with_capacity(BATCH);
            if !epoll::wait(watch, spare_capacity(&mut events), Some(&AT_ONCE)).is_ok_and(|count| count > 0) {
                return;
            }
            let keys: Vec<_> = events.iter().map(|event: &epoll::Event| event.data.u64()).collect();
            self.drop_if(|stored| keys.contains(&stored.key));
        }
    }

    /// All of them with their names, by rising numbers.
    #[must_use]
    pub fn stored(&self) -> Vec<(&str, BorrowedFd<'_>)> {
        let mut all: Vec<_> =
            self.stored.iter().map(|stored| (stored.name.as_str(), stored.file.as_fd())).collect();
        all.sort_by_key(|(_, file)| file.as_raw_fd());
        all
    }

    fn watch(&mut self, file: &OwnedFd, key: u64) -> Result<(), Error> {
        if self.watch.is_none() {
            self.watch = Some(epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Error::Watch)?);
        }
        let Some(watch) = &self.watch else { return Ok(()) };
        // Without a flag of ours the kernel tells of errors and of hanging up only.
        match epoll::add(watch, file, epoll::EventData::new_u64(key), epoll::EventFlags::empty()) {
            // A kind of file that nobody can poll.
            Ok(()) | Err(Errno::PERM) => Ok(()),
            Err(errno) => Err(Error::Watch(errno)),
        }
    }

    fn drop_if(&mut self, is_dropped: impl Fn(&Stored) -> bool) {
        let Some(watch) = &self.watch else { return };
        self.stored.retain(|stored| {
            let is_dropped = is_dropped(stored);
            if is_dropped {
                // The service may have it open as well, so that closing it here would not end the watch. One that cannot be
                // polled was never watched.
                let _unwatched = epoll::delete(watch, &stored.file);
            }
            !is_dropped
        });
    }
}

/// Lets this process have as many descriptors open as the kernel allows it: 1024 are too few for a full store. Services get a
/// limit of their own.
///
/// # Errors
/// The kernel's.
pub fn make_room() -> Result<(), Errno> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::pipe;
    use std::fs::File;

    fn names(store: &Store) -> Vec<&str> {
        store.stored.iter().map(|stored| stored.name.as_str()).collect()
    }

    fn null() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn what_is_hung_up_is_dropped_and_what_only_has_something_to_read_is_not() {
        let mut store = Store::new(9);
        let (read, write) = pipe().unwrap();
        let (other_read, other_write) = pipe().unwrap();
        store.put("ended", vec![read.try_clone().unwrap()]).unwrap();
        store.put("open", vec![other_read]).unwrap();
        store.put("memory", vec![tempfile::tempfile().unwrap().into()]).unwrap();
        rustix::io::write(&other_write, b"x").unwrap();
        store.drop_hung_up();
        assert_eq!(names(&store), ["ended", "open", "memory"]);
        drop(write);
        store.drop_hung_up();
        assert_eq!(names(&store), ["open", "memory"]);
        // The service has its own of what is dropped: it must not be told of for ever.
        assert!(
            epoll::wait(store.hung_up().unwrap(), spare_capacity(&mut Vec::with_capacity(1)), Some(&AT_ONCE))
                == Ok(0)
        );
        drop(read);
    }

    #[test]
    fn a_full_store_takes_nothing_and_one_without_room_never_does() {
        let mut store = Store::new(2);
        store.put("a", vec![null(), null()]).unwrap();
        assert_eq!(store.put("b", vec![null()]).unwrap_err().to_string(), "it may store 2 descriptors");
        store.remove("none");
        assert_eq!(names(&store), ["a", "a"]);
        store.remove("a");
        assert_eq!(store.stored().len(), 0);
        store.put("b", vec![null()]).unwrap();
        store.clear();
        assert_eq!(store.stored().len(), 0);
        assert!(Store::new(0).put("a", vec![null()]).is_err());
    }

    #[test]
    fn names_fit_into_a_list_in_one_variable() {
        let mut store = Store::new(9);
        for name in ["", "a:b", "a b", "a\n", "é", &"x".repeat(MAX_NAME_BYTES + 1)] {
            assert!(matches!(store.put(name, vec![null()]), Err(Error::Name)), "{name:?}");
        }
        store.put(&"x".repeat(MAX_NAME_BYTES), vec![null()]).unwrap();
        assert!("LISTEN_FDNAMES=".len() + MOST * (MAX_NAME_BYTES + 1) < 128 * 1024);
    }

    #[test]
    fn they_come_by_rising_numbers() {
        let (low, high) = (null(), null());
        let mut store = Store::new(9);
        let (low, high) = if low.as_raw_fd() < high.as_raw_fd() { (low, high) } else { (high, low) };
        store.put("high", vec![high]).unwrap();
        store.put("low", vec![low]).unwrap();
        let stored: Vec<_> = store.stored().into_iter().map(|(name, _)| name).collect();
        assert_eq!(stored, ["low", "high"]);
    }

    #[test]
    fn errors_say_why() {
        assert_eq!(Error::Watch(Errno::NOMEM).to_string(), "cannot watch a descriptor");
        assert_eq!(
            Error::Name.to_string(),
            "the name of a descriptor has 1 to 60 printable letters and no colon"
        );
    }
}
