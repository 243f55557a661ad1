//! Files of `/proc` and `/sys` that tell how large the machine is and how busy: a container's tell it of the container.
//!
//! Why: programs size their heaps, pools and threads by them, and monitoring would show what others do. They are a service
//! to the container and no wall: one that mounts a procfs of its own (`--privileged`) reads the VM's figures there.
//! `/proc/uptime` is not here: the kernel tells it by the time namespace.

/// What a file tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// The processors that it may use.
    Cpuinfo,
    /// Its load averages.
    Loadavg,
    /// Its memory.
    Meminfo,
    /// The numbers of the processors that it may use.
    Online,
    /// Its processor time.
    Stat,
}

/// A figure's file.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What it tells.
    pub figure: Figure,
    /// Where programs look for it.
    pub path: &'static str,
    /// Its name in the container's folder of the VM.
    pub file: &'static str,
    /// Who goes by it.
    pub why: &'static str,
}

const fn row(figure: Figure, path: &'static str, file: &'static str, why: &'static str) -> Row {
    Row { figure, path, file, why }
}

/// The files.
pub const FIGURES: &[Row] = &[
    row(
        Figure::Cpuinfo,
        "/proc/cpuinfo",
        "cpuinfo",
        "build tools and language runtimes count processors there",
    ),
    row(Figure::Loadavg, "/proc/loadavg", "loadavg", "`make -l`, schedulers and monitoring slow down by it"),
    row(
        Figure::Meminfo,
        "/proc/meminfo",
        "meminfo",
        "`free`, databases and older language runtimes size memory by it",
    ),
    row(Figure::Stat, "/proc/stat", "stat", "`top` and monitoring tell how busy processors are by it"),
    row(
        Figure::Online,
        "/sys/devices/system/cpu/online",
        "online",
        "glibc and musl count processors there (`sysconf`)",
    ),
];

/// The row of the file that has this name in a container's folder.
#[must_use]
pub fn of_file(name: &str) -> Option<&'static Row> {
    FIGURES.iter().find(|row| row.file == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_says_why_and_is_found_by_its_name_only() {
        for row in FIGURES {
            assert!(!row.why.is_empty());
            assert_eq!(of_file(row.file).map(|found| found.path), Some(row.path));
        }
        assert!(of_file("uptime").is_none() && of_file("origin.json").is_none());
    }
}
