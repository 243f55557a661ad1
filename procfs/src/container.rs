//! The figures of one container.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use eci_contract::procfs::{ORIGIN, Origin, VERSION};
use eci_policy::rules::figure::{Figure, Row};

use crate::cgroup::Cgroup;
use crate::cpus::Cpus;
use crate::load::Load;
use crate::memory;
use crate::time::Time;

/// Microseconds in which a file is not written again: what a container can cost the VM by reading is bounded.
const FRESH_US: u64 = 50_000;
const SECOND_US: u64 = 1_000_000;

/// Where the kernel tells of the VM: `/`, or a folder of a test's.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Folder that has `proc` and `sys`.
    pub root: PathBuf,
}

impl Machine {
    fn read(&self, path: &str) -> io::Result<String> {
        fs::read_to_string(self.root.join(path))
    }

    /// Seconds since 1970 at which it was booted.
    fn booted(&self) -> io::Result<u64> {
        let stat = self.read("proc/stat")?;
        let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
        line.and_then(|seconds| seconds.trim().parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// A container, and what was written for it.
#[derive(Debug)]
pub struct Container {
    folder: PathBuf,
    origin: Origin,
    cgroup: Cgroup,
    load: Load,
    time: Time,
    /// When each file was, in microseconds since the VM's boot.
    written: BTreeMap<Figure, u64>,
}

impl Container {
    /// The one whose files are in `folder`, with what `eci-runc` says of it in `about`.
    ///
    /// # Errors
    /// `eci-runc` has left none, or one of another version.
    pub fn open(folder: &Path, about: &Path, machine: &Machine) -> io::Result<Self> {
        let origin: Origin = serde_json::from_slice(&fs::read(about.join(ORIGIN))?)?;
        if origin.version != VERSION {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self {
            folder: folder.to_owned(),
            cgroup: Cgroup::new(&machine.root.join("sys/fs/cgroup"), &origin.cgroup),
            load: Load::new(origin.started * SECOND_US),
            time: Time::default(),
            written: BTreeMap::new(),
            origin,
        })
    }

    /// Whether it is still there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.folder.exists()
    }

    /// Writes the file of `row` as it is at `now_us` (since the VM's boot), unless it was written just before. `read` gives what
    /// it has, without asking this program.
    ///
    /// # Errors
    /// A figure of the VM's cannot be read, or the file cannot be written.
    pub fn refresh(
        &mut self,
        row: &Row,
        now_us: u64,
        machine: &Machine,
        read: impl FnOnce() -> io::Result<Vec<u8>>,
    ) -> io::Result<()> {
        if self.written.get(&row.figure).is_some_and(|last| now_us.saturating_sub(*last) < FRESH_US) {
            return Ok(());
        }
        self.written.insert(row.figure, now_us);
        let text = self.text(row.figure, now_us, machine)?;
        // A reader who is in the middle of it had better find it as it was.
        if read()? == text.as_bytes() {
            return Ok(());
        }
        let file = File::options().write(true).open(self.folder.join(row.file))?;
        file.write_all_at(text.as_bytes(), 0)?;
        let length = u64::try_from(text.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        file.set_len(length)
    }

    fn text(&mut self, figure: Figure, now_us: u64, machine: &Machine) -> io::Result<String> {
        let cpus = || self.cgroup.cpus().map_or_else(|| all_cpus(machine), Ok);
        Ok(match figure {
            Figure::Cpuinfo => cpus()?.cpuinfo(&machine.read("proc/cpuinfo")?),
            Figure::Online => cpus()?.to_list(),
            Figure::Meminfo => self.cgroup.memory().text(&memory::values(&machine.read("proc/meminfo")?)),
            Figure::Loadavg => {
                let (user, system) = self.cgroup.time_us();
                self.load.update(now_us, user + system + self.cgroup.waited_us());
                self.load.text(self.cgroup.tasks())
            }
            Figure::Stat => {
                let (user, system) = self.cgroup.time_us();
                let cpus = cpus()?;
                self.time.update(user, system, now_us.saturating_sub(self.origin.started * SECOND_US), &cpus);
                self.time.text(&cpus, machine.booted()? + self.origin.started, self.cgroup.tasks())
            }
        })
    }
}

fn all_cpus(machine: &Machine) -> io::Result<Cpus> {
    let text = machine.read("sys/devices/system/cpu/online")?;
    Cpus::parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use eci_policy::rules::figure::FIGURES;

    /// A VM with two processors, and a container with one.
    fn machine() -> (tempfile::TempDir, Machine) {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/cpuinfo", "processor\t: 0\n\nprocessor\t: 1\n\n");
        write("proc/meminfo", "MemTotal: 2048 kB\nMemFree: 1024 kB\nMemAvailable: 1024 kB\n");
        write("proc/stat", "cpu  1 2 3\nbtime 1700000000\n");
        write("sys/devices/system/cpu/online", "0-1\n");
        write("sys/fs/cgroup/docker/c1/cpu.max", "100000 100000\n");
        write("sys/fs/cgroup/docker/c1/cpuset.cpus.effective", "0-1\n");
        write("sys/fs/cgroup/docker/c1/memory.max", "1048576\n");
        write("c1.about/figures.json", r#"{"version":1,"cgroup":"/docker/c1","started":100}"#);
        for row in FIGURES {
            write(&format!("c1/{}", row.file), "a longer text that the VM had here at the start\n");
        }
        let machine = Machine { root: root.path().to_owned() };
        (root, machine)
    }

    fn open(root: &Path) -> io::Result<Container> {
        let machine = Machine { root: root.to_owned() };
        Container::open(&root.join("c1"), &root.join("c1.about"), &machine)
    }

    fn read_all(root: &Path) -> Vec<String> {
        FIGURES.iter().map(|row| fs::read_to_string(root.join("c1").join(row.file)).unwrap()).collect()
    }

    #[test]
    fn every_figure_tells_of_the_container() {
        let (root, machine) = machine();
        let mut container = open(root.path()).unwrap();
        for row in FIGURES {
            container.refresh(row, 160 * SECOND_US, &machine, || Ok(Vec::new())).unwrap();
        }
        let [cpuinfo, loadavg, meminfo, stat, online] = read_all(root.path()).try_into().unwrap();
        assert_eq!(cpuinfo, "processor\t: 0\n\n");
        assert_eq!(loadavg, "0.00 0.00 0.00 1/1 1\n");
        assert!(
            meminfo.starts_with("MemTotal:           1024 kB\nMemFree:            1024 kB\n"),
            "{meminfo}"
        );
        assert!(stat.starts_with("cpu  0 0 0 6000 "), "{stat}");
        assert!(stat.contains("\nbtime 1700000100\n") && !stat.contains("cpu1"), "{stat}");
        assert_eq!(online, "0\n");
    }

    #[test]
    fn a_changed_limit_shows_but_not_at_once() {
        let (root, machine) = machine();
        let mut container = open(root.path()).unwrap();
        let online = FIGURES.iter().find(|row| row.figure == Figure::Online).unwrap();
        let now = 160 * SECOND_US;
        container.refresh(online, now, &machine, || Ok(Vec::new())).unwrap();
        fs::write(root.path().join("sys/fs/cgroup/docker/c1/cpu.max"), "max 100000\n").unwrap();
        for (later, text) in [(FRESH_US - 1, "0\n"), (FRESH_US, "0-1\n")] {
            container.refresh(online, now + later, &machine, || Ok(Vec::new())).unwrap();
            assert_eq!(fs::read_to_string(root.path().join("c1/online")).unwrap(), text);
        }
    }

    #[test]
    fn what_is_as_it_should_be_is_not_written() {
        let (root, machine) = machine();
        let online = FIGURES.iter().find(|row| row.figure == Figure::Online).unwrap();
        let refresh = |has: &str| {
            let has = has.as_bytes().to_vec();
            open(root.path()).unwrap().refresh(online, SECOND_US, &machine, || Ok(has)).unwrap();
            fs::read_to_string(root.path().join("c1/online")).unwrap()
        };
        assert_ne!(refresh("0\n"), "0\n");
        assert_eq!(refresh("0-1\n"), "0\n");
    }

    #[test]
    fn a_folder_of_another_version_is_left_alone() {
        let (root, _machine) = machine();
        let about = root.path().join("c1.about");
        fs::write(about.join(ORIGIN), r#"{"version":2,"cgroup":"/","started":1}"#).unwrap();
        assert!(open(root.path()).is_err());
        fs::remove_file(about.join(ORIGIN)).unwrap();
        assert!(open(root.path()).is_err());
    }
}
