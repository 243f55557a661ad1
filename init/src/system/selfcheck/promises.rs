//! The promises, as a table of pure judgements over [`Evidence`]: `Ok` is what was found and is good, `Err` what was
//! found and is not.

use eci_contract::manifest::Manifest;
use eci_contract::paths::{ENGINE_DATA, ENGINE_LAYERS, ENGINE_VOLUMES};
use eci_contract::registries::PROXY;

use super::evidence::{Evidence, FORBIDDEN_PATHS};
use crate::initramfs::verity::{OPTIONS, SIGNATURE_KEY, SIGNATURE_OPTION};
use crate::system::sysctls::{self, SYSCTLS};
use crate::system::{hidden, rosetta};

/// One promise.
pub struct Promise {
    /// Stable identifier.
    pub id: &'static str,
    /// The promise in words.
    pub promise: &'static str,
    /// Whether PID 1 does not even go on without it.
    pub integrity: bool,
    /// The judgement.
    pub check: fn(&Evidence, &Manifest) -> Result<String, String>,
}

/// All promises.
pub const PROMISES: &[Promise] = &[
    Promise {
        id: "root-verity",
        promise: "the root is a read-only dm-verity device with the root hash of the signed manifest",
        integrity: true,
        check: root_verity,
    },
    Promise {
        id: "root-signed",
        promise: "where the firmware enforces Secure Boot, the kernel itself has checked who signed the root hash",
        integrity: true,
        check: root_signed,
    },
    Promise {
        id: "verity-panics",
        promise: "corrupt or unreadable blocks of the root stop the machine",
        integrity: true,
        check: verity_panics,
    },
    Promise {
        id: "root-read-only",
        promise: "the root file system is mounted read-only, nosuid and nodev",
        integrity: true,
        check: root_read_only,
    },
    Promise {
        id: "lockdown",
        promise: "the kernel is locked down: root cannot change kernel code or memory",
        integrity: true,
        check: lockdown,
    },
    Promise {
        id: "mount-flags",
        promise: "every writable mount is nosuid and nodev, and noexec but for the engine's data and folders of the host",
        integrity: false,
        check: mount_flags,
    },
    Promise {
        id: "sysctls",
        promise: "every kernel setting has its promised value",
        integrity: false,
        check: all_sysctls,
    },
    Promise {
        id: "no-kernel-doors",
        promise: "no modules, kexec, SysRq, /dev/mem, /dev/port, /dev/kmem or /proc/kcore",
        integrity: false,
        check: no_kernel_doors,
    },
    Promise {
        id: "hidden-paths",
        promise: "what of /proc and /sys tells of the VM is closed to everyone but its root, wherever it is mounted",
        integrity: false,
        check: hidden_paths,
    },
    Promise {
        id: "no-core-helper",
        promise: "no program runs when a process crashes",
        integrity: false,
        check: no_core_helper,
    },
    Promise {
        id: "apparmor",
        promise: "AppArmor enforces the profiles of containers and of the engine",
        integrity: false,
        check: apparmor,
    },
    Promise {
        id: "no-tcp-listener",
        promise: "no TCP port listens but the engine's, as a swarm's manager, and on loopback the way to registries; published ports listen on the host",
        integrity: false,
        check: no_tcp_listener,
    },
    Promise {
        id: "no-udp-listener",
        promise: "no UDP port is open to others but the engine's; published ports are open on the host",
        integrity: false,
        check: no_udp_listener,
    },
    Promise {
        id: "console-unread",
        promise: "no process has the console open",
        integrity: false,
        check: console_unread,
    },
];

/// The engine's profile, as the kernel writes it.
const ENGINE_PROFILE: &str = "dockerd (enforce)";
/// Those that have to be loaded.
const PROFILES: [&str; 2] = ["docker-default (enforce)", ENGINE_PROFILE];

fn root_verity(evidence: &Evidence, manifest: &Manifest) -> Result<String, String> {
    let table = evidence.table.as_ref().ok_or("no device-mapper device of the root")?;
    let [target] = table.targets.as_slice() else { return Err("not one target".to_owned()) };
    let (major, minor) = table.device;
    let device = format!("{major}:{minor}");
    let root_device = root(evidence)?.device;
    let hash = target.parameters.split(' ').nth(8).unwrap_or_default();
    if target.kind != "verity" || !table.read_only {
        Err(format!("{} device, read-only: {}", target.kind, table.read_only))
    } else if root_device != device {
        Err(format!("/ is on {root_device}, the verity device is {device}"))
    } else if hash != manifest.root.root_hash {
        Err(format!("root hash {hash}"))
    } else {
        Ok(format!("verity {device}, root hash {hash}"))
    }
}

fn root_signed(evidence: &Evidence, _: &Manifest) -> Result<String, String> {
    let options = options(evidence)?;
    let checked = options.windows(2).any(|pair| pair == [SIGNATURE_OPTION, SIGNATURE_KEY.1]);
    match (evidence.secure_boot, checked) {
        (true, true) => Ok("checked with a key of the firmware".to_owned()),
        (true, false) => Err("Secure Boot is enforced, and the kernel was given no signature".to_owned()),
        (false, _) => Ok("Secure Boot is not enforced; the manifest's signature was checked".to_owned()),
    }
}

fn verity_panics(evidence: &Evidence, _: &Manifest) -> Result<String, String> {
    let options = options(evidence)?;
    let found = options.join(" ");
    let rest = options.strip_suffix(&[SIGNATURE_OPTION, SIGNATURE_KEY.1]);
    let (count, rest) = rest.map_or(("2", &*options), |rest| ("4", rest));
    let expected = [&[count][..], &OPTIONS].concat();
    if rest == expected { Ok(found) } else { Err(format!("options `{found}`")) }
}

/// Number and names of the options of the root's verity target.
fn options(evidence: &Evidence) -> Result<Vec<&str>, String> {
    let table = evidence.table.as_ref().ok_or("no device-mapper device of the root")?;
    let parameters = table.targets.first().map(|target| target.parameters.as_str()).unwrap_or_default();
    Ok(parameters.split(' ').skip(10).collect())
}

fn root_read_only(evidence: &Evidence, _: &Manifest) -> Result<String, String> {
    let root = root(evidence)?;
    let good = root.has("ro") && root.has("nosuid") && root.has("nodev") && root.fstype == "erofs";
    let found = format!("{} {}", root.fstype, root.options);
    if good { Ok(found) } else { Err(found) }
}

fn lockdown(evidence: &Evidence, _: &Manifest) -> Result<String, String> {
    let found = evidence.lockdown.trim().to_owned();
    let on = found.contains("[integrity]") || found.contains("[confidentiality]");
    if on { Ok(found) } else { Err(format!("`{found}`")) }
}

fn mount_flags(evidence: &Evidence, _: &Manifest) -> Result<String, String> {
    let mounts: Vec<_> = evidence.mountinfo.lines().filter_map(Mount::parse).collect();
    // Mounts below these two are containers' own: their root file systems and network namespaces.
    let of_containers = |target: &str| {
        [ENGINE_DATA, "/run/docker"]
            .iter()
            .any(|path| target.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
    };
    let writable = mounts.iter().filter(|mount| !mount.has("ro") && !of_containers(mount.target));
    let bad: Vec<_> = writable
        .clone()
        .filter(|mount| {
            // What containers get of both they may execute; no service of the VM does.
            let is_for_containers =
                mount.target == ENGINE_DATA || mount.fstype == "virtiofs" && mount.target != rosetta::FOLDER;
            let executes = !mount.has("noexec") && !is_for_containers;
            !mount.has("nosuid") || !mount.has("nodev") || executes
        })
        .map(|mount| format!("{} {}", mount.target, mount.options))
        .collect();
    // What is mounted last is what counts. Without a data disk there are none.
    let has_data = mounts.iter().any(|mount| mount.target == ENGINE_DATA);
    let follows = |target: &&str| {
        let last = mounts.iter().rfind(|mount| mount.target == *target);
        has_data && !last.is_some_and(|mount| mount.has("nosymfollow"))
    };
    let with_links = [ENGINE_VOLUMES, ENGINE_LAYERS].into_iter().find(follows);
    match (mounts.is_empty(), bad.is_empty(), with_links) {
        (true, ..) => Err("no mounts could be read".to_owned()),
        (_, false, _) => Err(bad.join("; ")),
        (.., Some(target)) => Err(format!("links are followed in {target}")),
        _ => Ok(writable.map(|mount| mount.target).collect::<Vec<_>>().join(" ")),
    }
}

fn all_sysctls(evidence: &Evidence, _: &Manifest) -> Result<String, String> {
    let judged = SYSCTLS
        .iter()
        .map(|sysctl| sysctls::judge(sysctl, evidence.sysctls.get(sysctl.name).map(String::as_str)));
    let wrong: Vec<_> = judged.filter_map(Result::err).map(|err| err.to_string()).collect();
    if wrong.is_empty() { Ok(format!("{} settings", SYSCTLS.len())) } else { Err(wrong.join("; ")) }
}

fn no_kernel_doors(evidence: &Evidence, _: &Manifest) -> Result<String, String> {
    if evidence.forbidden.is_empty() {
        Ok(format!("none of {} paths exists", FORBIDDEN_PATHS.len()))
    } else {
        Err(evidence.forbidden.join(" "))
    }
}

fn hidden_paths(evidence: &Evidence, _: &Manifest) -> Result<String, String> {
    let open = hidden::open(&evidence.hidden);
    match (evidence.hidden.len(), open.is_empty()) {
        (0, _) => Err("none could be looked at".to_owned()),
        (count, true) => Ok(format!("{count} paths")),
        _ => Err(open.join(" ")),
    }
}

fn no_core_helper(evidence: &Evidence, _: &Manifest) -> Result<String, String> {
    match evidence.core_pattern.as_deref().map(str::trim) {
        None => Ok("core dumps are built out".to_owned()),
        Some(pattern) if pattern.starts_with('|') => Err(pattern.to_owned()),
        Some(pattern) => Ok(format!("`{pattern}`")),
    }
}

fn apparmor(evidence: &Evidence, _: &Manifest) -> Result<String, String> {
    if evidence.apparmor.trim() != "Y" {
        return Err(format!("enabled is `{}`", evidence.apparmor.trim()));
    }
    let is_loaded = |profile: &&str| evidence.profiles.lines().any(|line| line == *profile);
    if let Some(missing) = PROFILES.iter().find(|profile| !is_loaded(profile)) {
        return Err(format!("no `{missing}` among the loaded profiles"));
    }
    match evidence.engine_profile.as_deref().map(str::trim) {
        Some(other) if other != ENGINE_PROFILE => Err(format!("the engine runs as `{other}`")),
        _ => Ok(PROFILES.join(", ")),
    }
}

fn no_tcp_listener(evidence: &Evidence, _: &Manifest) -> Result<String, String> {
    // `TCP_LISTEN` of include/net/tcp_states.h.
    let rows: Vec<_> = evidence.tcp.lines().filter(|row| !is_of_proxy(row)).collect();
    only_the_engines(evidence, &rows.join("\n"), |state| state == "0A")
}

/// Whether a socket has the address of the way to registries, which no network leads to.
fn is_of_proxy(row: &str) -> bool {
    let address = u32::from_ne_bytes(PROXY.ip().octets());
    row.split_whitespace().nth(1) == Some(&format!("{address:08X}:{:04X}", PROXY.port()))
}

fn no_udp_listener(evidence: &Evidence, _: &Manifest) -> Result<String, String> {
    // Not those with `TCP_ESTABLISHED`: they hear the one peer that they were connected to. The gate's are, each to a container.
    only_the_engines(evidence, &evidence.udp, |state| state != "01")
}

fn console_unread(evidence: &Evidence, _: &Manifest) -> Result<String, String> {
    if evidence.console_users.is_empty() {
        Ok("none".to_owned())
    } else {
        Err(evidence.console_users.join("; "))
    }
}

/// Rows of `/proc/net/{tcp,udp}`: `sl local remote state … inode` with the inode in the tenth column.
fn only_the_engines(evidence: &Evidence, rows: &str, counts: fn(&str) -> bool) -> Result<String, String> {
    let sockets = rows.lines().filter_map(|row| {
        let columns: Vec<_> = row.split_whitespace().collect();
        Some((*columns.get(1)?, *columns.get(3)?, columns.get(9)?.parse::<u64>().ok()?))
    });
    let open: Vec<_> = sockets.filter(|(_, state, _)| counts(state)).collect();
    let foreign = open.iter().filter(|(.., inode)| !evidence.engine_sockets.contains(inode));
    let foreign: Vec<_> = foreign.map(|(local, ..)| *local).collect();
    match (foreign.is_empty(), open.len()) {
        (false, _) => Err(foreign.join(" ")),
        (true, 0) => Ok("none".to_owned()),
        (true, engines) => Ok(format!("{engines} of the engine")),
    }
}

/// A line of mountinfo.
struct Mount<'a> {
    device: &'a str,
    target: &'a str,
    options: &'a str,
    fstype: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut columns = mount.split(' ').skip(2);
        let device = columns.next()?;
        let target = columns.nth(1)?;
        let options = columns.next()?;
        Some(Self { device, target, options, fstype: file_system.split(' ').next()? })
    }

    fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|other| other == option)
    }
}

/// The last mount on `/` is the one that is seen.
fn root(evidence: &Evidence) -> Result<Mount<'_>, String> {
    let mut mounts = evidence.mountinfo.lines().rev().filter_map(Mount::parse);
    mounts.find(|mount| mount.target == "/").ok_or_else(|| "no mount on /".to_owned())
}

#[cfg(test)]
mod tests;
