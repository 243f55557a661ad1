//! Who is alive: asked of `/proc`, never of our own books.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bundle;
use crate::plan::ids::Range;

/// A process, not to be taken for a later one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it was started, in clock ticks since boot: field 22 of proc_pid_stat(5).
    pub start: u64,
}

impl Process {
    /// The process that has the number `pid` now.
    ///
    /// # Errors
    /// There is none.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Ok(Self { pid, start: start_in(&stat).ok_or(io::ErrorKind::InvalidData)? })
    }

    /// Whether it has not ended; one that nobody has waited for yet has.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        start_in(&stat) == Some(self.start) && !is_zombie(&stat)
    }
}

/// What a file is, whatever it is called: device and inode.
///
/// # Errors
/// It cannot be found.
pub fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Whether `path`, such as `/proc/<pid>/exe`, opens one of `programs`.
#[must_use]
pub fn is_one_of(path: &Path, programs: &[&str]) -> bool {
    let Ok(found) = identity(path) else { return false };
    programs.iter().any(|program| identity(Path::new(program)).is_ok_and(|own| own == found))
}

/// The first process of a container, by what crun keeps of the container in its folder `state`. crun knows it again by the
/// time of its start, which the kernel tells by the reader's clock: that of another time namespace than crun made it in
/// gives another time.
#[must_use]
pub fn main_of(state: &Path) -> Option<u32> {
    let status = bundle::read_object(&state.join("status")).ok()?;
    status.get("pid")?.as_u64().and_then(|pid| u32::try_from(pid).ok())
}

/// Whether any process has a user id in `range`: real, effective, saved or for file systems.
///
/// # Errors
/// `/proc` cannot be read.
pub fn any_in(range: Range) -> io::Result<bool> {
    Ok(process_folders()?.any(|folder| {
        fs::read_to_string(folder.join("status")).is_ok_and(|status| has_user_in(&status, range))
    }))
}

/// The range of user namespace `namespace` (device and inode), read from a process that is in it.
///
/// # Errors
/// `/proc` cannot be read.
pub fn range_of(namespace: (u64, u64)) -> io::Result<Option<Range>> {
    Ok(process_folders()?
        .filter(|folder| identity(&folder.join("ns/user")).is_ok_and(|found| found == namespace))
        .find_map(|folder| Range::from_map(&fs::read_to_string(folder.join("uid_map")).ok()?)))
}

fn process_folders() -> io::Result<impl Iterator<Item = PathBuf>> {
    let numeric = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    Ok(fs::read_dir("/proc")?
        .filter_map(Result::ok)
        .filter(move |entry| entry.file_name().to_str().is_some_and(numeric))
        .map(|entry| entry.path()))
}

/// The fields after the name, which is in parentheses and may have any character.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace()
}

fn start_in(stat: &str) -> Option<u64> {
    fields(stat).nth(19)?.parse().ok()
}

fn is_zombie(stat: &str) -> bool {
    fields(stat).next().is_some_and(|state| state == "Z" || state == "X")
}

fn has_user_in(status: &str, range: Range) -> bool {
    status.lines().find_map(|line| line.strip_prefix("Uid:")).is_some_and(|ids| {
        ids.split_whitespace().filter_map(|id| id.parse().ok()).any(|id| range.contains(id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_four_user_ids_counts() {
        let range = Range { base: 100_000 };
        assert!(has_user_in("Name:\tx\nUid:\t0\t0\t165535\t0\n", range));
        assert!(!has_user_in("Name:\tx\nUid:\t0\t99999\t165536\t0\n", range));
        assert!(!has_user_in("", range));
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = Process::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert!(!Process { start: own.start + 1, ..own }.is_alive());
        let exe = Path::new("/proc/self/exe");
        let name = std::env::current_exe().unwrap();
        assert!(is_one_of(exe, &["/none", name.to_str().unwrap()]));
        assert!(!is_one_of(exe, &["/bin/sh"]) && !is_one_of(exe, &["/none"]));
    }

    #[test]
    fn a_name_with_parentheses_does_not_move_the_fields() {
        let stat = "7 (a) Z 1) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        assert_eq!((start_in(stat), is_zombie(stat)), (Some(4711), false));
        assert!(is_zombie(&stat.replace(") S", ") Z")));
        assert_eq!(start_in(""), None);
    }

    #[test]
    fn this_process_is_not_in_a_containers_range() {
        assert!(!any_in(Range { base: 4_000_000_000 }).unwrap());
    }
}
