//! What the archive holds, in order: parents before what is in them, names sorted.

use std::path::Path;

use eci_contract::paths::IMAGE_KEY;
use eci_contract::wsl::{DATA, HASH_TREE, MANIFEST, NEW_ROOT, ROOT_IMAGE, SIGNATURE};

/// What of the archive differs from image to image.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// Image name; the distro gets it as its default name.
    pub name: &'a str,
    /// PID 1, `eci-init`.
    pub init: &'a [u8],
    /// Ed25519 public key, raw.
    pub key: &'a [u8],
    /// The signed manifest.
    pub manifest: &'a [u8],
    /// Its signature; empty while nobody has signed it.
    pub signature: &'a [u8],
    /// EROFS image of the root file system.
    pub root: &'a Path,
    /// Superblock and hash tree.
    pub tree: &'a [u8],
}

/// Settings that WSL reads at each start. `systemd` only means that `/sbin/init` is PID 1. Nothing of Windows is mounted or runs
/// inside: it would be in the distro around the system, where nothing protects it.
const WSL_CONF: &str = "\
# What WSL does at each start of this distro.

[boot]
systemd=true

[automount]
enabled=false
mountFsTab=false
ldconfig=false

[interop]
enabled=false
appendWindowsPath=false

[gpu]
enabled=false

[time]
useWindowsTimezone=false

[user]
default=root
";

/// Users of the distro around the system. WSL starts sessions as root; the shell only says that there is none.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/nonexistent\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";

/// One member: its path without `/` in front, and what it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Member {
    /// Path.
    pub path: &'static str,
    /// Kind and content.
    pub kind: Kind,
}

/// Kind and content of a member.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder with this mode.
    Folder(u32),
    /// A symbolic link with this target.
    Link(&'static str),
    /// A file with this mode.
    File(u32, Content),
}

/// Where the bytes of a file are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// [`Parts::init`].
    Init,
    /// [`Parts::key`].
    Key,
    /// [`Parts::manifest`].
    Manifest,
    /// [`Parts::signature`].
    Signature,
    /// [`Parts::root`].
    Root,
    /// [`Parts::tree`].
    Tree,
    /// What WSL does when it installs the distro; it has the name.
    Distribution,
    /// These bytes in every image.
    Fixed(&'static str),
}

const FOLDER: Kind = Kind::Folder(0o755);

/// All members.
pub const MEMBERS: &[Member] = &[
    Member { path: "bin", kind: Kind::Link("usr/bin") },
    Member { path: "etc", kind: FOLDER },
    Member { path: "etc/eci", kind: FOLDER },
    Member { path: inside(IMAGE_KEY), kind: Kind::File(0o644, Content::Key) },
    Member { path: "etc/group", kind: Kind::File(0o644, Content::Fixed(GROUP)) },
    Member { path: "etc/passwd", kind: Kind::File(0o644, Content::Fixed(PASSWD)) },
    Member { path: "etc/wsl-distribution.conf", kind: Kind::File(0o644, Content::Distribution) },
    Member { path: "etc/wsl.conf", kind: Kind::File(0o644, Content::Fixed(WSL_CONF)) },
    Member { path: "mnt", kind: FOLDER },
    Member { path: "root", kind: Kind::Folder(0o700) },
    Member { path: "sbin", kind: Kind::Link("usr/sbin") },
    Member { path: inside(NEW_ROOT), kind: FOLDER },
    Member { path: "usr", kind: FOLDER },
    Member { path: "usr/bin", kind: FOLDER },
    // WSL says what it wants of systemd through `popen(3)`. PID 1's program under this name is no shell.
    Member { path: "usr/bin/sh", kind: Kind::Link("../sbin/init") },
    Member { path: "usr/bin/systemctl", kind: Kind::Link("../sbin/init") },
    Member { path: "usr/lib", kind: FOLDER },
    Member { path: "usr/lib/eci", kind: FOLDER },
    Member { path: inside(MANIFEST), kind: Kind::File(0o644, Content::Manifest) },
    Member { path: inside(SIGNATURE), kind: Kind::File(0o644, Content::Signature) },
    Member { path: inside(ROOT_IMAGE), kind: Kind::File(0o644, Content::Root) },
    Member { path: inside(HASH_TREE), kind: Kind::File(0o644, Content::Tree) },
    Member { path: "usr/sbin", kind: FOLDER },
    Member { path: "usr/sbin/init", kind: Kind::File(0o755, Content::Init) },
    Member { path: "var", kind: FOLDER },
    Member { path: "var/lib", kind: FOLDER },
    Member { path: inside(DATA), kind: Kind::Folder(0o710) },
    Member { path: "var/run", kind: Kind::Link("../run") },
];

/// A path of the contract as it is in the archive.
const fn inside(path: &'static str) -> &'static str {
    if let [b'/', rest @ ..] = path.as_bytes() {
        if let Ok(rest) = std::str::from_utf8(rest) {
            return rest;
        }
    }
    path
}

/// `/etc/wsl-distribution.conf`: nothing is asked at the first start, and Windows gets neither a shortcut nor a terminal profile
/// for a distro without a shell.
#[must_use]
pub fn distribution(name: &str) -> String {
    format!(
        "# What WSL does when it installs this distro.\n\n[oobe]\ndefaultUid=0\ndefaultName={name}\n\n\
         [shortcut]\nenabled=false\n\n[windowsterminal]\nenabled=false\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_every_parent_is_there_before() {
        assert!(MEMBERS.is_sorted_by_key(|member| member.path.split('/').collect::<Vec<_>>()));
        for member in MEMBERS {
            let Some((parent, _)) = member.path.rsplit_once('/') else { continue };
            let is_folder = |other: &Member| other.path == parent && matches!(other.kind, Kind::Folder(_));
            assert!(MEMBERS.iter().any(is_folder), "{}", member.path);
        }
    }

    #[test]
    fn what_wsl_and_pid_1_look_for_is_there() {
        assert_eq!(eci_contract::wsl::INIT, "/sbin/init");
        assert!(MEMBERS.iter().any(|member| member.path == "usr/sbin/init"));
        assert!(!WSL_CONF.contains("command"), "it would need a shell");
        assert!(distribution("eci-test").contains("\ndefaultName=eci-test\n"));
    }
}
