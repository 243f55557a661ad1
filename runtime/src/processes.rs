//! Who is alive: asked of `/proc`, never of our own books.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::plan::ids::Range;

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
        .filter(|folder| {
            fs::metadata(folder.join("ns/user")).is_ok_and(|found| (found.dev(), found.ino()) == namespace)
        })
        .find_map(|folder| Range::from_map(&fs::read_to_string(folder.join("uid_map")).ok()?)))
}

fn process_folders() -> io::Result<impl Iterator<Item = PathBuf>> {
    let numeric = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    Ok(fs::read_dir("/proc")?
        .filter_map(Result::ok)
        .filter(move |entry| entry.file_name().to_str().is_some_and(numeric))
        .map(|entry| entry.path()))
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
    fn this_process_is_not_in_a_containers_range() {
        assert!(!any_in(Range { base: 4_000_000_000 }).unwrap());
    }
}
