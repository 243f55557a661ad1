//! x86-64 programs on a Mac: Rosetta, which Apple's Virtualization framework gives to a VM as a folder with one program in it
//! (`VZLinuxRosettaDirectoryShare`). The kernel starts that program for whatever x86-64 program a container executes.
//!
//! Invariants: the folder is mounted read-only. The kernel has opened the program before the engine starts, so that it is the same one
//! below every root, and in no container's sight. And the registration is in no folder, where somebody could change it: it lasts as long
//! as a mount of binfmt_misc does (`bm_evict_inode` in fs/binfmt_misc.c, since Linux 6.7), and PID 1 holds the only one, by a descriptor.
//! A container that mounts a binfmt_misc gets an empty one of its own user namespace, and is then without Rosetta itself.

use std::env::consts::ARCH;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, write};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags, fsconfig_create, fsmount, fsopen,
    mount, unmount,
};

use crate::kmsg;

/// Name of the boot step.
pub const STEP: &str = "rosetta";
/// Where the folder is mounted. What is executed in its place has the path of the program in it as its first word.
pub const FOLDER: &str = "/run/eci/rosetta";
/// The program in it.
const PROGRAM: &str = "/run/eci/rosetta/rosetta";
/// The folder's tag, as Apple's documentation and vfkit's have it.
const TAG: &str = "rosetta";
/// Where the kernel has a folder for each virtiofs device, with its tag.
const DEVICES: &str = "/sys/fs/virtiofs";
/// Not `noexec`, as the one place in `/run`.
const FLAGS: MountFlags = MountFlags::RDONLY.union(MountFlags::NOSUID).union(MountFlags::NODEV);

/// The first bytes of an x86-64 program, an executable or a shared object: `e_ident`, `e_type` and `e_machine` of an ELF file.
const MAGIC: [u8; 20] = [0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x3e, 0];
/// The bits of them that count, as Apple documents it: any operating system's ABI (byte 7), and an `e_type` of 2 or 3.
const MASK: [u8; 20] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xfe, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xff,
    0xff, 0xff,
];
/// As Apple documents it. `F`: opened now, not by its name when a container executes something. `O`: it is given the program as a
/// descriptor, which works where the program can be executed and not read. `C`: setuid bits are those of the program, as without a
/// translator; else `su` and `sudo` of x86-64 images would do nothing. They count in the container's user namespace alone, whose ids are
/// nobody's outside, and the translator is not the container's to choose. No `P`: it does not expect the name twice.
const INTERPRETER_FLAGS: &str = "OCF";

/// Why x86-64 programs do not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no place for the folder.
    #[error("cannot make the folder `{FOLDER}`")]
    Folder(#[source] io::Error),
    /// The kernel does not mount it.
    #[error("cannot mount the host's folder `{TAG}`")]
    Mount(#[source] Errno),
    /// The host's folder is some other one.
    #[error(
        "the host's folder `{TAG}` has no program `{TAG}`: share the one that macOS gives for Linux VMs, after `softwareupdate --install-rosetta`"
    )]
    NoProgram,
    /// The kernel's registry cannot be had.
    #[error("cannot open the kernel's registry of interpreters (binfmt_misc)")]
    Registry(#[source] Errno),
    /// The kernel does not take the program.
    #[error("cannot have the kernel start `{PROGRAM}` for x86-64 programs")]
    Register(#[source] Errno),
}

/// The registration: it ends when this is dropped.
#[derive(Debug)]
pub struct Rosetta {
    _registry: OwnedFd,
}

/// Why there is nothing to do here, if so.
#[must_use]
pub fn left_out() -> Option<&'static str> {
    match ARCH {
        // Were its own programs given to an interpreter, none would run any more.
        "x86_64" => Some("x86-64 programs are this machine's own"),
        _ if !is_shared(Path::new(DEVICES)) => Some("the host gives no Rosetta"),
        _ => None,
    }
}

/// Whether a device has the tag.
fn is_shared(devices: &Path) -> bool {
    let devices = fs::read_dir(devices).into_iter().flatten().flatten();
    let mut tags = devices.filter_map(|device| fs::read_to_string(device.path().join("tag")).ok());
    tags.any(|tag| tag.trim_end() == TAG)
}

/// Mounts the host's folder, and registers what is in it.
///
/// # Errors
/// [`Error`]; then nothing is mounted and nothing registered.
pub fn register() -> Result<Rosetta, Error> {
    DirBuilder::new().mode(0o700).create(FOLDER).map_err(Error::Folder)?;
    mount(TAG, FOLDER, "virtiofs", FLAGS, c"").map_err(Error::Mount)?;
    let registered = register_program();
    if registered.is_err() {
        kmsg::best_effort(&format!("unmount `{FOLDER}`"), unmount(FOLDER, UnmountFlags::DETACH));
    }
    registered
}

fn register_program() -> Result<Rosetta, Error> {
    if !fs::metadata(PROGRAM).is_ok_and(|program| program.is_file()) {
        return Err(Error::NoProgram);
    }
    let registry = registry().map_err(Error::Registry)?;
    let form = openat(&registry, "register", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    let form = form.map_err(Error::Registry)?;
    // One write is one registration, whole or not at all.
    write(&form, line().as_bytes()).map_err(Error::Register)?;
    kmsg::notice("x86-64 programs run by the host's Rosetta");
    Ok(Rosetta { _registry: registry })
}

/// A mount of binfmt_misc that is in no folder.
fn registry() -> Result<OwnedFd, Errno> {
    let opened = fsopen("binfmt_misc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&opened)?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&opened, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// What the kernel reads: `:name:type:offset:magic:mask:interpreter:flags` (Documentation/admin-guide/binfmt-misc.rst).
fn line() -> String {
    let escaped = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    format!(":{TAG}:M::{}:{}:{PROGRAM}:{INTERPRETER_FLAGS}", escaped(&MAGIC), escaped(&MASK))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the kernel would give a program with these first bytes to the interpreter.
    fn matches(header: &[u8]) -> bool {
        header.iter().zip(MAGIC).zip(MASK).all(|((byte, magic), mask)| (byte ^ magic) & mask == 0)
    }

    #[test]
    fn x86_64_programs_match_and_no_others() {
        let with = |changes: &[(usize, u8)]| {
            let mut header = MAGIC;
            changes.iter().for_each(|(at, byte)| header[*at] = *byte);
            matches(&header)
        };
        let (class, abi, kind, machine) = (4, 7, 16, 18);
        assert!(with(&[]), "at fixed addresses");
        assert!(with(&[(kind, 3)]), "at any address");
        assert!(with(&[(abi, 3)]), "of the GNU ABI");
        for (what, change) in [
            ("aarch64", (machine, 0xb7)),
            ("i386", (machine, 3)),
            ("x32", (class, 1)),
            ("an object file", (kind, 1)),
            ("a core dump", (kind, 4)),
            ("a script", (0, b'#')),
        ] {
            assert!(!with(&[change]), "{what}");
        }
    }

    #[test]
    fn the_registration_is_a_line_that_the_kernel_reads() {
        let line = line();
        let fields: Vec<_> = line.split(':').collect();
        assert_eq!(fields[..4], ["", "rosetta", "M", ""]);
        assert_eq!(fields[4].replace("\\x", ""), "7f454c4602010100000000000000000002003e00");
        assert_eq!(fields[5].len(), fields[4].len());
        assert_eq!(fields[6..], [PROGRAM, "OCF"]);
        // `BINPRM_BUF_SIZE` and `MAX_REGISTER_LENGTH` of fs/binfmt_misc.c.
        assert!(PROGRAM.len() < 256 && line.len() < 1920);
        assert!(PROGRAM.starts_with(FOLDER));
    }

    #[test]
    fn a_device_is_known_by_its_whole_tag() {
        let folder = std::env::temp_dir().join(format!("eci-rosetta-{}", std::process::id()));
        let tag = |device: &str, tag: &str| {
            fs::create_dir_all(folder.join(device)).unwrap();
            fs::write(folder.join(device).join("tag"), tag).unwrap();
        };
        assert!(!is_shared(&folder), "no virtiofs");
        tag("1", "eci-share-0\n");
        tag("2", "rosetta-share\n");
        assert!(!is_shared(&folder));
        tag("3", "rosetta\n");
        assert!(is_shared(&folder));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_machine_with_x86_64_programs_of_its_own_never_has_it() {
        assert_eq!(left_out().is_some(), ARCH == "x86_64" || !is_shared(Path::new(DEVICES)));
    }

    #[test]
    fn errors_say_what_to_do() {
        assert!(Error::NoProgram.to_string().contains("softwareupdate --install-rosetta"));
        assert_eq!(Error::Mount(Errno::INVAL).to_string(), "cannot mount the host's folder `rosetta`");
        assert_eq!(
            Error::Register(Errno::NOEXEC).to_string(),
            "cannot have the kernel start `/run/eci/rosetta/rosetta` for x86-64 programs"
        );
    }
}
