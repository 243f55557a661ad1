//! What programs ask of a file system that several containers have: locks that exclude each other, and word of what others do. And what nobody
//! needs: folders deeper than names go.

use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, inotify, mkdirat, openat};

use crate::attempt::{At, Attempt, Failure, Verb};

/// How long a lock is held, and how long a change is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Folders in each other whose names have 255 bytes: 25,500 in all, where AppArmor ends at 8,192.
const DEEP: usize = 100;

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "hold-lock",
        why: "keeps a lock, once it has it, until the file `PATH.let-go` is there",
        run: |path| {
            let file = File::create(path).at("open")?;
            flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            fs::write(format!("{path}.held"), "").at("tell")?;
            wait_for(Path::new(&format!("{path}.let-go")))
        },
    },
    Verb {
        name: "take-lock",
        why: "must not succeed while another container holds it",
        run: |path| {
            let file = File::create(path).at("open")?;
            Ok(flock(&file, FlockOperation::NonBlockingLockExclusive)?)
        },
    },
    Verb {
        name: "watch",
        why: "builds that start again when a file changes are told so by another container",
        run: |folder| {
            let watcher = inotify::init(inotify::CreateFlags::CLOEXEC).at("inotify_init")?;
            inotify::add_watch(&watcher, folder, inotify::WatchFlags::CREATE).at("inotify_add_watch")?;
            // The first thing that it is told of is this.
            fs::write(Path::new(folder).join("watched"), "").at("tell")?;
            let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
            let mut events = inotify::Reader::new(&watcher, &mut buffer);
            let deadline = Instant::now() + PATIENCE;
            while Instant::now() < deadline {
                let mut ready = [PollFd::new(&watcher, PollFlags::IN)];
                let second = Timespec { tv_sec: 1, tv_nsec: 0 };
                if poll(&mut ready, Some(&second)).at("poll")? == 0 {
                    continue;
                }
                let event = events.next().at("read")?;
                if event.file_name().is_some_and(|name| name.to_bytes() == b"changed") {
                    return Ok(());
                }
            }
            Err(Failure::NoEffect)
        },
    },
    Verb {
        name: "leave-deep",
        why: "leaves folders in each other that no name leads to the end of",
        run: |folder| {
            let mut folder = openat(CWD, folder, OFlags::DIRECTORY, Mode::empty()).at("open")?;
            let name = "d".repeat(255);
            for _ in 0..DEEP {
                mkdirat(&folder, &name, Mode::RWXU).at("mkdir")?;
                folder = openat(&folder, &name, OFlags::DIRECTORY, Mode::empty()).at("open")?;
            }
            Ok(())
        },
    },
];

fn wait_for(path: &Path) -> Attempt {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if path.exists() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    Err(Failure::Refused(Errno::ETIMEDOUT))
}
