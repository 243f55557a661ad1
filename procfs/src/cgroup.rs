//! A container's cgroup: limits and use, as cgroup-v2.rst of the kernel's documentation has the files.
//!
//! A limit is the smallest of its own and those above it. A file that is not there (a controller that is off) is no limit and no use.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cpus::Cpus;
use crate::memory::{Memory, Values, values};

/// A cgroup below a root.
#[derive(Clone, Debug)]
pub struct Cgroup {
    root: PathBuf,
    folder: PathBuf,
}

impl Cgroup {
    /// The one at `path`, counted from `root`.
    #[must_use]
    pub fn new(root: &Path, path: &str) -> Self {
        Self { root: root.to_owned(), folder: root.join(path.trim_start_matches('/')) }
    }

    /// The processors that it may use; `None` when the kernel does not tell.
    #[must_use]
    pub fn cpus(&self) -> Option<Cpus> {
        let set = self
            .levels()
            .chain([self.root.as_path()])
            .find_map(|level| Cpus::parse(&fs::read_to_string(level.join("cpuset.cpus.effective")).ok()?))?;
        let limits =
            self.levels().filter_map(|level| whole_cpus(&fs::read_to_string(level.join("cpu.max")).ok()?));
        Some(set.limited_to(limits.min()))
    }

    /// Microseconds of processor time: in programs, and in the kernel.
    #[must_use]
    pub fn time_us(&self) -> (u64, u64) {
        let values = values(&self.read("cpu.stat"));
        let of = |name| values.get(name).copied().unwrap_or_default();
        (of("user_usec"), of("system_usec"))
    }

    /// Microseconds in which at least one of its tasks waited for a processor.
    #[must_use]
    pub fn waited_us(&self) -> u64 {
        let text = self.read("cpu.pressure");
        let some = text.lines().find(|line| line.starts_with("some "));
        let total = some.and_then(|line| line.rsplit_once("total=")).map(|(_, total)| total.parse());
        total.and_then(Result::ok).unwrap_or_default()
    }

    /// How many tasks it has, at least one.
    #[must_use]
    pub fn tasks(&self) -> u64 {
        self.read("pids.current").trim().parse().unwrap_or(1).max(1)
    }

    /// Its memory.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let limits = self
            .levels()
            .filter_map(|level| fs::read_to_string(level.join("memory.max")).ok()?.trim().parse().ok());
        let limit = limits.min();
        let used = self.read("memory.current").trim().parse().unwrap_or_default();
        let parts: Values = values(&self.read("memory.stat"));
        Memory { limit, used, parts }
    }

    /// From the cgroup up to below the root, which has no limits.
    fn levels(&self) -> impl Iterator<Item = &Path> {
        self.folder.ancestors().take_while(|level| *level != self.root && level.starts_with(&self.root))
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap_or_default()
    }
}

/// `cpu.max` in processors, rounded up; `None` for `max`.
fn whole_cpus(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota.div_ceil(period))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, Cgroup) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("docker/c1")).unwrap();
        let cgroup = Cgroup::new(root.path(), "/docker/c1");
        (root, cgroup)
    }

    #[test]
    fn the_smallest_limit_of_the_levels_counts() {
        let (root, cgroup) = tree();
        let write = |path: &str, text: &str| fs::write(root.path().join(path), text).unwrap();
        write("docker/memory.max", "8192\n");
        write("docker/c1/memory.max", "max\n");
        assert_eq!(cgroup.memory().limit, Some(8192));
        write("docker/c1/memory.max", "4096\n");
        assert_eq!(cgroup.memory().limit, Some(4096));
        write("cpuset.cpus.effective", "0-7\n");
        assert_eq!(cgroup.cpus().unwrap().to_list(), "0-7\n");
        write("docker/c1/cpuset.cpus.effective", "2-5\n");
        write("docker/cpu.max", "max 100000\n");
        write("docker/c1/cpu.max", "150000 100000\n");
        assert_eq!(cgroup.cpus().unwrap().to_list(), "2-3\n");
    }

    #[test]
    fn use_is_read() {
        let (root, cgroup) = tree();
        let write =
            |file: &str, text: &str| fs::write(root.path().join("docker/c1").join(file), text).unwrap();
        write("cpu.stat", "usage_usec 50\nuser_usec 30\nsystem_usec 20\n");
        write(
            "cpu.pressure",
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
        );
        write("pids.current", "3\n");
        write("memory.current", "4096\n");
        write("memory.stat", "anon 100\nfile 200\n");
        assert_eq!((cgroup.time_us(), cgroup.waited_us(), cgroup.tasks()), ((30, 20), 77, 3));
        let memory = cgroup.memory();
        assert_eq!((memory.limit, memory.used, memory.parts["file"]), (None, 4096, 200));
    }

    #[test]
    fn a_cgroup_that_is_gone_has_no_limits_and_no_use() {
        let (_root, cgroup) = tree();
        assert_eq!(cgroup.cpus(), None);
        assert_eq!((cgroup.time_us(), cgroup.waited_us(), cgroup.tasks()), ((0, 0), 0, 1));
        assert_eq!(cgroup.memory(), Memory::default());
    }

    #[test]
    fn time_limits_are_rounded_up_to_processors() {
        for (text, cpus) in [
            ("max 100000", None),
            ("100000 100000", Some(1)),
            ("100001 100000", Some(2)),
            ("5000 100000", Some(1)),
            ("1 0", None),
            ("", None),
        ] {
            assert_eq!(whole_cpus(text), cpus, "{text}");
        }
    }
}
