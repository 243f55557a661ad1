//! The image under test, and container images made without a registry.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use eci_contract::manifest::Manifest;

/// The folder of artifacts that `scripts/test` has just built.
///
/// # Errors
/// When `ECI_OUT` is not set.
pub fn out() -> Result<PathBuf> {
    variable("ECI_OUT")
}

/// The `eci-builder` under test.
///
/// # Errors
/// When `ECI_BUILDER` is not set.
pub fn builder() -> Result<PathBuf> {
    variable("ECI_BUILDER")
}

/// The folder of guest programs that the image was built with.
///
/// # Errors
/// When `ECI_PROGRAMS` is not set.
pub fn programs() -> Result<PathBuf> {
    variable("ECI_PROGRAMS")
}

fn variable(name: &str) -> Result<PathBuf> {
    env::var_os(name).map(PathBuf::from).with_context(|| format!("{name} is not set; run scripts/test"))
}

/// The manifest of an artifact folder.
///
/// # Errors
/// When it is missing or not a manifest.
pub fn manifest(out: &Path) -> Result<Manifest> {
    let path = out.join("manifest.json");
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("cannot parse {}", path.display()))
}

/// The raw disk image of an artifact folder.
///
/// # Errors
/// When there is no manifest to name it.
pub fn raw(out: &Path) -> Result<PathBuf> {
    let manifest = manifest(out)?;
    Ok(out.join(format!("{}-{}-{}.raw", manifest.name, manifest.version, manifest.architecture.as_str())))
}

/// Commands of busybox that the suites use in containers.
const APPLETS: [&str; 44] = [
    "sh", "cat", "ls", "stat", "chown", "chmod", "touch", "echo", "id", "mount", "umount", "mknod",
    "unshare", "sleep", "true", "false", "nc", "ip", "ping", "wget", "grep", "ps", "kill", "tty", "dd", "ln",
    "mkdir", "rm", "su", "cp", "mv", "hostname", "insmod", "nsenter", "head", "wc", "seq", "env", "readlink",
    "date", "test", "printf", "df", "chroot",
];

/// A root file system with Debian's static busybox, as the tar that `docker import` takes: users root and `user`
/// (1000), a file owned by each, and a setuid copy of busybox at `/bin/setuid-id`.
///
/// # Errors
/// When the host has no `/bin/busybox` (package busybox-static).
pub fn busybox_tar() -> Result<Vec<u8>> {
    let busybox = fs::read("/bin/busybox").context("cannot read /bin/busybox; install busybox-static")?;
    let mut archive = tar::Builder::new(Vec::new());
    for folder in ["bin", "etc", "tmp", "root", "home", "var", "proc", "sys", "dev"] {
        append(&mut archive, &format!("{folder}/"), tar::EntryType::Directory, 0o755, 0, &[])?;
    }
    append(&mut archive, "bin/busybox", tar::EntryType::Regular, 0o755, 0, &busybox)?;
    append(&mut archive, "bin/setuid-id", tar::EntryType::Regular, 0o4755, 0, &busybox)?;
    for applet in APPLETS {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0, 0);
        archive.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    append(
        &mut archive,
        "etc/passwd",
        tar::EntryType::Regular,
        0o644,
        0,
        b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n",
    )?;
    append(&mut archive, "etc/group", tar::EntryType::Regular, 0o644, 0, b"root:x:0:\nuser:x:1000:\n")?;
    append(&mut archive, "home/theirs", tar::EntryType::Regular, 0o600, 1000, b"theirs\n")?;
    Ok(archive.into_inner()?)
}

fn append(
    archive: &mut tar::Builder<Vec<u8>>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    owner: u64,
    bytes: &[u8],
) -> Result<()> {
    let mut header = header(kind, mode, owner, bytes.len() as u64);
    archive.append_data(&mut header, path, bytes)?;
    Ok(())
}

fn header(kind: tar::EntryType, mode: u32, owner: u64, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_size(size);
    header.set_mtime(0);
    header
}
