//! The image under test, and container images made without a registry.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use eci_contract::manifest::{Architecture, Manifest};
use eci_contract::shares::TOPS;
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::{clients, command};

/// Root of the checkout that cargo runs the suite for: that of compiling it may have been another, where checkouts share a
/// folder of compiled crates.
///
/// # Errors
/// When cargo does not run it.
pub fn repository() -> Result<PathBuf> {
    Ok(variable("CARGO_MANIFEST_DIR")?.join(".."))
}

/// The folder of artifacts that `scripts/test` has just built.
///
/// # Errors
/// When `ECI_OUT` is not set.
pub fn out() -> Result<PathBuf> {
    variable("ECI_OUT")
}

/// Virtual processors of the suites' machines: `ECI_CPUS`, where two suites share the host's.
#[must_use]
pub fn cpus() -> String {
    env::var("ECI_CPUS").unwrap_or_else(|_| "2".to_owned())
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

/// The static program of attacks, `eci-probe`: `ECI_PROBE`, or beside the guest programs.
///
/// # Errors
/// When it is not there.
pub fn probe() -> Result<Vec<u8>> {
    let path = match env::var_os("ECI_PROBE") {
        Some(path) => PathBuf::from(path),
        None => programs()?.join("eci-probe"),
    };
    program(&path)
}

/// The program that speaks as Testcontainers' Ryuk does.
///
/// # Errors
/// When it is not there.
pub fn ryuk() -> Result<Vec<u8>> {
    program(&programs()?.join("eci-ryuk"))
}

fn program(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}; scripts/test compiles it", path.display()))
}

fn variable(name: &str) -> Result<PathBuf> {
    env::var_os(name).map(PathBuf::from).with_context(|| format!("{name} is not set; run scripts/test"))
}

/// Where a build without keys of one's own leaves the ones that it makes.
///
/// # Errors
/// When the environment does not say.
pub fn development_keys() -> Result<PathBuf> {
    Ok(user_folder("XDG_DATA_HOME", ".local/share")?.join("eci/keys/development"))
}

/// A folder of the XDG Base Directory Specification: what `name` says, or `default` in the home folder.
pub(crate) fn user_folder(name: &str, default: &str) -> Result<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = absolute(name).or_else(|| absolute("HOME").map(|home| home.join(default)));
    folder.with_context(|| format!("neither {name} nor HOME is set"))
}

/// A folder of this host where a VM has a place for one: below the user's home, or elsewhere if that is not such a place.
///
/// # Errors
/// When none can be made.
pub fn shareable_folder() -> Result<TempDir> {
    let home = env::var_os("HOME").map(PathBuf::from);
    let places = home.into_iter().chain(["/opt", "/mnt", "/data"].map(PathBuf::from));
    let places = places.filter_map(|place| place.canonicalize().ok());
    let mut shareable = places.filter(|place| TOPS.iter().any(|top| place.starts_with(top)));
    let made =
        shareable.find_map(|place| tempfile::Builder::new().prefix("eci-shares-").tempdir_in(place).ok());
    made.context("neither HOME nor /opt, /mnt or /data can be shared with a VM and written to")
}

/// A copy, in a folder of its own, of what the builder reads of the project.
///
/// # Errors
/// When it cannot be copied.
pub fn copy_of_project() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let root = repository()?;
    for name in ["eci.toml", "eci-test.toml", "rootfs", "kernel-config", "toolchain"] {
        let from = root.join(name);
        command::host("cp", &["-r", &from.to_string_lossy(), &folder.path().to_string_lossy()])?.ok()?;
    }
    Ok(folder)
}

/// Builds the shipped image with another version and a change to the project. Gives the project, and the image's folder.
///
/// # Errors
/// When the build fails.
pub fn of_version(
    version: &str,
    change: impl FnOnce(&Path) -> std::io::Result<()>,
) -> Result<(TempDir, PathBuf)> {
    let project = copy_of_project()?;
    let config = project.path().join("eci.toml");
    let text = fs::read_to_string(&config)?;
    let line = text.lines().find(|line| line.starts_with("version = \"")).context("a version")?.to_owned();
    fs::write(&config, text.replacen(&line, &format!("version = \"{version}\""), 1))?;
    change(project.path())?;
    let out = project.path().join("out");
    let mut build = Command::new(builder()?);
    build.current_dir(project.path()).args(["build", "--offline", "--format", "raw", "--programs"]);
    command::run(build.arg(programs()?), &[])?.ok()?;
    Ok((project, out))
}

/// The folder that outlives checkouts; everything in it can be deleted.
///
/// # Errors
/// When no variable says where it is.
pub fn cache() -> Result<PathBuf> {
    Ok(user_folder("XDG_CACHE_HOME", ".cache")?.join("eci"))
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
/// (1000), a file owned by each, a setuid copy of busybox at `/bin/setuid-id`, and the program of attacks at `/probe`.
///
/// # Errors
/// When the test flavour's busybox is not in the cache, or the program of attacks is not built.
pub fn busybox_tar() -> Result<Vec<u8>> {
    Ok(busybox()?.into_inner()?)
}

fn busybox() -> Result<tar::Builder<Vec<u8>>> {
    busybox_without(&[])
}

/// Without some of the folders right below the root: an image has no path twice.
fn busybox_without(left_out: &[&str]) -> Result<tar::Builder<Vec<u8>>> {
    let busybox = clients::busybox(manifest(&out()?)?.architecture)?;
    let mut archive = tar::Builder::new(Vec::new());
    let folders = ["bin", "etc", "tmp", "root", "home", "var", "proc", "sys", "dev"];
    for folder in folders.into_iter().filter(|folder| !left_out.contains(folder)) {
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
    append(&mut archive, "probe", tar::EntryType::Regular, 0o755, 0, &probe()?)?;
    Ok(archive)
}

/// The busybox image with two programs for x86-64, `/x86` and, root's with the setuid bit, `/x86-setuid`: the header of one and nothing
/// else, for who says what it was given, and does not run it.
///
/// # Errors
/// As [`busybox_tar`].
pub fn foreign_tar() -> Result<Vec<u8>> {
    let mut archive = busybox()?;
    let mut program = [0; 128];
    // Class, byte order and version; an executable (2) for `EM_X86_64` (62).
    program[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    program[16..20].copy_from_slice(&[2, 0, 62, 0]);
    append(&mut archive, "x86", tar::EntryType::Regular, 0o755, 0, &program)?;
    append(&mut archive, "x86-setuid", tar::EntryType::Regular, 0o4755, 0, &program)?;
    Ok(archive.into_inner()?)
}

/// Ids of [`odd_tar`]: the last of a container's range, and one that has no place in it.
pub const LAST_ID: u64 = 65_535;
/// See [`LAST_ID`].
pub const FOREIGN_ID: u64 = 70_000;

/// The busybox image with what is rare in images, in `/odd`: a file of [`LAST_ID`] with a second name `link`, a file and a
/// folder of [`FOREIGN_ID`], and copies of `/probe`: `setuid` is root's with that bit, `capable` has `CAP_NET_RAW` as a
/// file capability.
///
/// # Errors
/// As [`busybox_tar`].
pub fn odd_tar() -> Result<Vec<u8>> {
    let mut archive = busybox()?;
    let probe = probe()?;
    append(&mut archive, "odd/", tar::EntryType::Directory, 0o755, 0, &[])?;
    append(&mut archive, "odd/last", tar::EntryType::Regular, 0o644, LAST_ID, b"last\n")?;
    let mut link = header(tar::EntryType::Link, 0o644, LAST_ID, 0);
    archive.append_link(&mut link, "odd/link", "odd/last")?;
    append(&mut archive, "odd/foreign", tar::EntryType::Regular, 0o644, FOREIGN_ID, b"foreign\n")?;
    append(&mut archive, "odd/foreign-folder/", tar::EntryType::Directory, 0o755, FOREIGN_ID, &[])?;
    append(&mut archive, "odd/setuid", tar::EntryType::Regular, 0o4755, 0, &probe)?;
    let capability = extended_attribute("security.capability", &net_raw());
    append(&mut archive, "odd/PaxHeaders/capable", tar::EntryType::XHeader, 0o644, 0, &capability)?;
    append(&mut archive, "odd/capable", tar::EntryType::Regular, 0o755, 0, &probe)?;
    Ok(archive.into_inner()?)
}

/// The busybox image with device nodes in `/nodes`, named `KIND-MAJOR-MINOR`, that everybody may open.
///
/// # Errors
/// As [`busybox_tar`].
pub fn noded_tar(nodes: &[(char, u32, u32)]) -> Result<Vec<u8>> {
    let mut archive = busybox()?;
    append(&mut archive, "nodes/", tar::EntryType::Directory, 0o755, 0, &[])?;
    append_nodes(&mut archive, "nodes/", nodes)?;
    Ok(archive.into_inner()?)
}

/// An archive of nothing but device nodes, named as those of [`noded_tar`].
///
/// # Errors
/// When a number does not fit.
pub fn nodes_tar(nodes: &[(char, u32, u32)]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    append_nodes(&mut archive, "", nodes)?;
    Ok(archive.into_inner()?)
}

fn append_nodes(archive: &mut tar::Builder<Vec<u8>>, folder: &str, nodes: &[(char, u32, u32)]) -> Result<()> {
    for (kind, major, minor) in nodes {
        let entry = if *kind == 'b' { tar::EntryType::Block } else { tar::EntryType::Char };
        let mut header = header(entry, 0o666, 0, 0);
        header.set_device_major(*major)?;
        header.set_device_minor(*minor)?;
        archive.append_data(&mut header, format!("{folder}{kind}-{major}-{minor}"), &[][..])?;
    }
    Ok(())
}

/// The busybox image with symbolic links, of which some stand where every image has a folder or a device.
///
/// # Errors
/// As [`busybox_tar`].
pub fn linked_tar(links: &[(&str, &str)]) -> Result<Vec<u8>> {
    let paths: Vec<_> = links.iter().map(|(path, _)| *path).collect();
    let mut archive = busybox_without(&paths)?;
    for (path, target) in links {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0, 0);
        archive.append_link(&mut header, path, target)?;
    }
    Ok(archive.into_inner()?)
}

/// The busybox image with a link `through` to its `bin`, and a file that is named through `folder`.
///
/// # Errors
/// As [`busybox_tar`].
pub fn through_tar(folder: &str) -> Result<Vec<u8>> {
    let mut archive = busybox()?;
    archive.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0, 0), "through", "bin")?;
    append(&mut archive, &format!("{folder}/file"), tar::EntryType::Regular, 0o644, 0, b"")?;
    Ok(archive.into_inner()?)
}

/// The busybox image with an executable file.
///
/// # Errors
/// As [`busybox_tar`].
pub fn scripted_tar(path: &str, text: &str) -> Result<Vec<u8>> {
    let mut archive = busybox()?;
    append(&mut archive, path, tar::EntryType::Regular, 0o755, 0, text.as_bytes())?;
    Ok(archive.into_inner()?)
}

/// The busybox image with the program of the benchmark, `/workload`, and the archive of 10,000 files that it unpacks.
///
/// # Errors
/// As [`busybox_tar`], and when the program is not built.
pub fn workload_tar() -> Result<Vec<u8>> {
    let mut archive = busybox()?;
    let workload = program(&programs()?.join("eci-workload"))?;
    append(&mut archive, "workload", tar::EntryType::Regular, 0o755, 0, &workload)?;
    let mut files = tar::Builder::new(Vec::new());
    crowd(&mut files, 10_000, b"a small file\n")?;
    append(&mut archive, "files.tar", tar::EntryType::Regular, 0o644, 0, &files.into_inner()?)?;
    Ok(archive.into_inner()?)
}

/// The busybox image with `count` empty files in `/crowd`.
///
/// # Errors
/// As [`busybox_tar`].
pub fn crowded_tar(count: usize) -> Result<Vec<u8>> {
    let mut archive = busybox()?;
    crowd(&mut archive, count, b"")?;
    Ok(archive.into_inner()?)
}

/// Files of the same content in `crowd`, a hundred in a folder.
fn crowd(archive: &mut tar::Builder<Vec<u8>>, count: usize, content: &[u8]) -> Result<()> {
    append(archive, "crowd/", tar::EntryType::Directory, 0o755, 0, &[])?;
    for number in 0..count {
        let folder = format!("crowd/{}", number / 100);
        if number % 100 == 0 {
            append(archive, &format!("{folder}/"), tar::EntryType::Directory, 0o755, 0, &[])?;
        }
        append(archive, &format!("{folder}/{number}"), tar::EntryType::Regular, 0o644, 0, content)?;
    }
    Ok(())
}

/// The busybox image with a file whose name climbs out of the root.
///
/// # Errors
/// As [`busybox_tar`].
pub fn climbing_tar() -> Result<Vec<u8>> {
    let mut archive = busybox()?;
    let mut climbing = header(tar::EntryType::Regular, 0o644, 0, 2);
    // Past the crate's own check of names.
    let name = b"../../../../../../../../var/lib/docker/climbed";
    climbing.as_old_mut().name[..name.len()].copy_from_slice(name);
    climbing.set_cksum();
    archive.append(&climbing, &b"x\n"[..])?;
    Ok(archive.into_inner()?)
}

/// `struct vfs_cap_data` of version 2: `CAP_NET_RAW`, permitted and effective.
fn net_raw() -> Vec<u8> {
    let words: [u32; 5] = [0x0200_0001, 1 << 13, 0, 0, 0];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A record of a pax header: its own length, which counts its own digits, then `key=value`.
fn extended_attribute(name: &str, value: &[u8]) -> Vec<u8> {
    let mut rest = format!(" SCHILY.xattr.{name}=").into_bytes();
    rest.extend(value);
    rest.push(b'\n');
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    let mut record = length.to_string().into_bytes();
    record.append(&mut rest);
    record
}

/// The busybox image with further layers, `layers` in all, as the archive that `docker load` takes. Layer N has a file
/// `/layers/N`, and all but the first write `/layers/top`.
///
/// # Errors
/// As [`busybox_tar`].
pub fn layered_tar(name: &str, layers: usize) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let (mut digests, mut paths) = (Vec::new(), Vec::new());
    for number in 0..layers {
        let layer = if number == 0 { busybox_tar()? } else { small_layer(number)? };
        digests.push(format!("sha256:{}", hexadecimal(&Sha256::digest(&layer))));
        let path = format!("{number}/layer.tar");
        append(&mut archive, &path, tar::EntryType::Regular, 0o644, 0, &layer)?;
        paths.push(path);
    }
    let configuration = json!({
        "architecture": go_architecture(manifest(&out()?)?.architecture),
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": digests},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": paths}]);
    for (path, document) in [("config.json", configuration), ("manifest.json", manifest)] {
        append(&mut archive, path, tar::EntryType::Regular, 0o644, 0, document.to_string().as_bytes())?;
    }
    Ok(archive.into_inner()?)
}

/// An architecture as OCI spells it.
fn go_architecture(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "amd64",
        Architecture::Aarch64 => "arm64",
    }
}

fn small_layer(number: usize) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    let text = number.to_string();
    append(&mut layer, "layers/", tar::EntryType::Directory, 0o755, 0, &[])?;
    append(&mut layer, &format!("layers/{number}"), tar::EntryType::Regular, 0o644, 0, text.as_bytes())?;
    append(&mut layer, "layers/top", tar::EntryType::Regular, 0o644, 0, text.as_bytes())?;
    Ok(layer.into_inner()?)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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

/// An archive with one empty file, to copy into a container.
///
/// # Errors
/// When the path is none.
pub fn file_tar(path: &str) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header(tar::EntryType::Regular, 0o644, 0, 0), path, [].as_slice())?;
    Ok(archive.into_inner()?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pax_record_begins_with_its_own_length() {
        for length in [1, 60, 70, 80, 960, 970, 980] {
            let record = extended_attribute("a", &vec![b'x'; length]);
            let text = String::from_utf8(record.clone()).unwrap();
            assert_eq!(text.split(' ').next().unwrap(), record.len().to_string());
        }
    }

    #[test]
    fn a_layer_holds_its_number() {
        let layer = small_layer(7).unwrap();
        let mut archive = tar::Archive::new(layer.as_slice());
        let paths: Vec<_> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
        assert_eq!(paths, ["layers/", "layers/7", "layers/top"].map(PathBuf::from));
    }
}
