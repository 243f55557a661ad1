//! What the self-check looks at, read once and in one place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use eci_sys::dm::{self, Table};

use crate::handover::Handover;
use crate::initramfs::secure_boot;
use crate::system::sysctls::{self, SYSCTLS};
use crate::system::{hidden, mounts};

/// Paths that must not exist: each would be a way into the kernel's memory or code.
pub const FORBIDDEN_PATHS: &[&str] = &[
    "/dev/mem",
    "/dev/kmem",
    "/dev/port",
    "/proc/kcore",
    "/proc/modules",
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/modprobe",
    "/sys/kernel/debug/tracing",
    "/sys/kernel/kexec_loaded",
];

/// The facts. Text that could not be read is empty, and no promise holds on empty text.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// `/proc/self/mountinfo`.
    pub mountinfo: String,
    /// The device-mapper table of the root, if there is one.
    pub table: Option<Table>,
    /// Whether the firmware enforces Secure Boot: what the first stage saw, and what is seen now.
    pub secure_boot: bool,
    /// `/sys/kernel/security/lockdown`.
    pub lockdown: String,
    /// `/sys/module/apparmor/parameters/enabled`.
    pub apparmor: String,
    /// `/sys/kernel/security/apparmor/profiles`.
    pub profiles: String,
    /// Values by setting name, of settings that exist.
    pub sysctls: BTreeMap<&'static str, String>,
    /// Those of [`FORBIDDEN_PATHS`] that exist.
    pub forbidden: Vec<&'static str>,
    /// Hidden paths that exist, with their permission bits.
    pub hidden: Vec<(String, u32)>,
    /// `/proc/net/tcp` and `tcp6` without headers.
    pub tcp: String,
    /// `/proc/net/udp` and `udp6` without headers.
    pub udp: String,
    /// The engine's AppArmor profile (`/proc/PID/attr/apparmor/current`), when it runs.
    pub engine_profile: Option<String>,
    /// Inodes of sockets that the engine holds.
    pub engine_sockets: BTreeSet<u64>,
    /// `PROCESS: DEVICE` for every process that has a console device open.
    pub console_users: Vec<String>,
    /// `/proc/sys/kernel/core_pattern`, if it exists.
    pub core_pattern: Option<String>,
}

impl Evidence {
    /// Reads all of it, but for what only the first stage could see. `engine` is the engine's process.
    #[must_use]
    pub fn gather(handover: &Handover, engine: Option<u32>) -> Self {
        let both =
            |one: &str, two: &str| format!("{}{}", without_header(&read(one)), without_header(&read(two)));
        let values = SYSCTLS.iter().filter_map(|sysctl| Some((sysctl.name, sysctls::read(sysctl)?)));
        let forbidden = FORBIDDEN_PATHS.iter().copied().filter(|path| Path::new(path).exists());
        Self {
            mountinfo: mounts::mountinfo().unwrap_or_default(),
            table: dm::table(&handover.verity_device).ok(),
            secure_boot: handover.secure_boot
                || secure_boot::is_enforced().unwrap_or(Some(true)).unwrap_or(false),
            lockdown: read("/sys/kernel/security/lockdown"),
            apparmor: read("/sys/module/apparmor/parameters/enabled"),
            profiles: read("/sys/kernel/security/apparmor/profiles"),
            sysctls: values.collect(),
            forbidden: forbidden.collect(),
            hidden: hidden::modes().unwrap_or_default(),
            tcp: both("/proc/net/tcp", "/proc/net/tcp6"),
            udp: both("/proc/net/udp", "/proc/net/udp6"),
            engine_profile: engine.map(|pid| read(&format!("/proc/{pid}/attr/apparmor/current"))),
            engine_sockets: engine.map(sockets_of).unwrap_or_default(),
            console_users: console_users(),
            core_pattern: fs::read_to_string("/proc/sys/kernel/core_pattern").ok(),
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn without_header(table: &str) -> String {
    table.split_once('\n').map_or_else(String::new, |(_, rows)| rows.to_owned())
}

fn sockets_of(pid: u32) -> BTreeSet<u64> {
    let targets = open_files(&pid.to_string());
    let inode = |target: &String| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    targets.iter().filter_map(inode).collect()
}

fn console_users() -> Vec<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut users = Vec::new();
    for process in processes {
        let pid = process.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let consoles = open_files(&pid).into_iter().filter(|target| is_console(target));
        users.extend(consoles.map(|target| format!("{pid}: {target}")));
    }
    users
}

/// Where a process's descriptors lead. One that has just ended has none.
fn open_files(pid: &str) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.map(|target| target.to_string_lossy().into_owned()).collect()
}

fn is_console(target: &str) -> bool {
    ["/dev/console", "/dev/tty", "/dev/hvc"].iter().any(|device| target.starts_with(device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_and_virtual_consoles_count_and_null_does_not() {
        assert!(["/dev/console", "/dev/ttyS0", "/dev/hvc0", "/dev/ttyAMA0"].into_iter().all(is_console));
        assert!(!is_console("/dev/null") && !is_console("/dev/kmsg") && !is_console("/dev/pts/0"));
    }

    #[test]
    fn a_table_loses_its_header_only() {
        assert_eq!(without_header("header\nrow\n"), "row\n");
        assert_eq!(without_header(""), "");
    }
}
