//! Folders of this host that a machine has (`run --share`), each served by a `virtiofsd` of its own.
//!
//! Every id of the VM is this user's on the host, whose files look like root's in the VM, and what others own like nobody's. So containers
//! create files as the user who started the machine, their root can do there what that user can, and nobody more. `virtiofsd` has the
//! folder as its root, in namespaces of its own: no link leads out of it.
//!
//! A folder is named without links on the way, so that what a container puts in its place is not what is shared the next time.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use eci_contract::json_disk::carrying;
use eci_contract::shares::{Share, ShareDisk, VERSION};
use eci_policy::rules::share::{Refusal, judge_places};
use rustix::process::{getegid, geteuid};

use super::home::Home;
use crate::tool;

/// The program.
pub const PROGRAM: &str = "virtiofsd";
/// Where packages of Debian, Fedora and Arch put it: not on PATH, for no user starts it.
const FOLDERS: [&str; 3] = ["/usr/libexec", "/usr/lib", "/usr/lib/qemu"];
/// The oldest that lets the VM map ids, which is how a container owns its files, and translates them itself.
const OLDEST: (u32, u32) = (1, 13);
/// The id of nobody, as the kernel's `overflowuid` has it.
const NOBODY: u32 = 65_534;

/// Why a folder is not shared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there.
    #[error("cannot share `{}`", .path.display())]
    Open {
        /// As it was given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is something else.
    #[error("cannot share `{}`: it is not a folder", .path.display())]
    NotAFolder {
        /// As it was given.
        path: PathBuf,
    },
    /// Its name is no text.
    #[error("cannot share `{}`: its name is not UTF-8; rename it", .path.display())]
    NotText {
        /// As it was given.
        path: PathBuf,
    },
    /// Its name leads elsewhere.
    #[error("cannot share `{}`: by a link it is `{}`; name that, if it is what containers are to have", .path.display(), .folder.display())]
    Elsewhere {
        /// As it was given.
        path: PathBuf,
        /// What it is.
        folder: PathBuf,
    },
    /// It may not be in a VM.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Containers could change the machine that they are in.
    #[error("cannot share `{}`: {what} `{}` is in it, and containers would get to {verb} that; share folders beside it", .path.display(), .holds.display())]
    Ours {
        /// As it was given.
        path: PathBuf,
        /// What it holds.
        what: &'static str,
        /// Where that is.
        holds: PathBuf,
        /// What containers could do with it.
        verb: &'static str,
    },
    /// There is no program that serves it.
    #[error("`{PROGRAM}` was found neither in PATH and `~/.cargo/bin` nor in {}", FOLDERS.join(", "))]
    NoProgram,
    /// It does not say its version.
    #[error("cannot ask `{}` for its version", .program.display())]
    Version {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is too old.
    #[error("`{}` is {found:?}, and shares need {}.{} or later", .program.display(), OLDEST.0, OLDEST.1)]
    Old {
        /// The program.
        program: PathBuf,
        /// What it says that it is.
        found: String,
    },
    /// The disk that names the shares, or a socket, cannot be made.
    #[error("cannot make `{}`", .path.display())]
    Make {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What must not be in a folder that containers write to, or not in any.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// The instance.
    pub home: &'a Home,
    /// Folder of the image that it boots.
    pub image: &'a Path,
    /// Its data disk.
    pub data: &'a Path,
}

/// A folder as `run --share` has it: a path, and `:ro` behind it where it is not to be written to. It becomes absolute.
///
/// # Errors
/// [`Error::Open`] and [`Error::NotText`].
pub fn parse(text: &str) -> Result<Share, Error> {
    let (named, read_only) = text.strip_suffix(":ro").map_or((text, false), |path| (path, true));
    let opened = |source| Error::Open { path: named.into(), source };
    let absolute = std::path::absolute(named).map_err(opened)?;
    // What is above a link is not what its name says.
    let has_parent = absolute.components().any(|part| part == std::path::Component::ParentDir);
    let absolute = if has_parent { absolute.canonicalize().map_err(opened)? } else { absolute };
    let plain: PathBuf = absolute.components().collect();
    let path = plain.into_os_string().into_string().map_err(|path| Error::NotText { path: path.into() })?;
    Ok(Share { path, read_only })
}

/// Judges the folders.
///
/// # Errors
/// The first that cannot be shared.
pub fn judge(shares: &[Share], kept: Kept<'_>) -> Result<(), Error> {
    judge_places(shares)?;
    shares.iter().try_for_each(|share| judge_one(share, kept))
}

fn judge_one(share: &Share, kept: Kept<'_>) -> Result<(), Error> {
    let path = PathBuf::from(&share.path);
    let folder = path.canonicalize().map_err(|source| Error::Open { path: path.clone(), source })?;
    if folder != path {
        return Err(Error::Elsewhere { path, folder });
    }
    if !folder.is_dir() {
        return Err(Error::NotAFolder { path });
    }
    // That of all instances: the sockets of each make their user root of its engine.
    let instances = kept.home.root().parent().unwrap_or(kept.home.root());
    let ours = [
        ("the folder of instances", instances, true),
        ("the data disk", kept.data, true),
        ("the image", kept.image, !share.read_only),
    ];
    for (what, holds, matters) in ours {
        let holds = holds.canonicalize().unwrap_or_else(|_| holds.to_owned());
        if matters && (holds.starts_with(&folder) || folder.starts_with(&holds)) {
            let verb = if share.read_only { "read" } else { "change" };
            return Err(Error::Ours { path, what, holds, verb });
        }
    }
    Ok(())
}

/// Writes the disk that tells the VM of them.
///
/// # Errors
/// [`Error::Make`].
pub fn write_disk(shares: &[Share], path: &Path) -> Result<(), Error> {
    let disk = ShareDisk { version: VERSION, shares: shares.to_vec() };
    let bytes = carrying(serde_json::to_vec(&disk).expect("texts and numbers are JSON"));
    fs::write(path, bytes).map_err(|source| Error::Make { path: path.to_owned(), source })
}

/// The program, if this host has one that is new enough.
///
/// # Errors
/// [`Error::NoProgram`], [`Error::Version`] and [`Error::Old`].
pub fn program() -> Result<PathBuf, Error> {
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let folders = FOLDERS.iter().map(PathBuf::from).chain(cargo.map(|home| home.join("bin")));
    let elsewhere = || folders.map(|folder| folder.join(PROGRAM)).find(|path| path.is_file());
    let program = tool::find(PROGRAM).or_else(elsewhere).ok_or(Error::NoProgram)?;
    let output = Command::new(&program).arg("--version").output();
    let output = output.map_err(|source| Error::Version { program: program.clone(), source })?;
    let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if version_of(&found).is_some_and(|version| version >= OLDEST) {
        Ok(program)
    } else {
        Err(Error::Old { program, found })
    }
}

/// `virtiofsd 1.13.2`
fn version_of(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.split_whitespace().nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The socket that QEMU speaks with the program on. The program gets it as its stdin, so that it is there before QEMU is.
///
/// # Errors
/// [`Error::Make`].
pub fn listen(path: &Path) -> Result<OwnedFd, Error> {
    let socket = UnixListener::bind(path).map_err(|source| Error::Make { path: path.to_owned(), source })?;
    Ok(socket.into())
}

/// The program's arguments: a share in, arguments out, nothing done.
#[must_use]
pub fn arguments(share: &Share) -> Vec<OsString> {
    let options = [
        "--fd=0",
        "--sandbox=namespace",
        "--log-level=error",
        "--cache=auto",
        // A file system that is mounted in the folder is part of it: as one of its own in the VM, it would not have the ids of the rest.
        "--no-announce-submounts",
        // Files are held open by descriptors alone: opening them by handle would take a capability that reads everything.
        "--inode-file-handles=never",
        "--modcaps=-mknod:-setfcap",
    ];
    let mut arguments: Vec<_> = options.into_iter().map(OsString::from).collect();
    arguments.extend(translation(geteuid().as_raw(), getegid().as_raw()).into_iter().map(OsString::from));
    if share.read_only {
        arguments.push("--readonly".into());
    }
    arguments.extend(["--shared-dir".into(), OsString::from(&share.path)]);
    arguments
}

/// This user is root in the program's user namespace, where it has the power over files that it then gives up but for what it needs, and
/// nobody else is anybody. Every id of the VM is that root.
fn translation(user: u32, group: u32) -> Vec<String> {
    let most = u32::MAX;
    let mut rules = Vec::new();
    for (kind, own) in [("uid", user), ("gid", group)] {
        // Root has no such namespace: there the others of the host are.
        if user == 0 {
            rules.push(format!("--translate-{kind}=squash-host:1:{NOBODY}:{}", most - 1));
        } else {
            rules.push(format!("--{kind}-map=:0:{own}:1:"));
        }
        rules.push(format!("--translate-{kind}=squash-guest:0:0:{most}"));
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(read_only: bool) -> Share {
        Share { path: "/home/a,b".to_owned(), read_only }
    }

    #[test]
    fn a_folder_is_named_as_the_shell_names_it() {
        let here = std::env::current_dir().expect("a folder").display().to_string();
        for (text, path, read_only) in [
            ("/home/a", "/home/a".to_owned(), false),
            ("/home/a/", "/home/a".to_owned(), false),
            ("/home//a/.:ro", "/home/a".to_owned(), true),
            (".", here.clone(), false),
            ("src:ro", format!("{here}/src"), true),
        ] {
            assert_eq!(parse(text).expect(text), Share { path, read_only });
        }
        assert!(matches!(parse("no-such-folder/.."), Err(Error::Open { .. })));
        assert!(matches!(parse(""), Err(Error::Open { .. })));
    }

    #[test]
    fn what_the_machine_itself_is_made_of_is_not_shared() {
        let state = tempfile::tempdir().expect("temporary folder");
        let (root, image) = (state.path().canonicalize().expect("there"), state.path().join("out"));
        let home = Home::under(&root, "x").expect("legal");
        home.create().expect("made");
        fs::create_dir_all(root.join("src")).expect("made");
        fs::create_dir_all(&image).expect("made");
        let data = home.data_disk();
        let kept = Kept { home: &home, image: &image, data: &data };
        let open =
            |path: &Path, read_only| judge_one(&Share { path: path.display().to_string(), read_only }, kept);
        open(&root.join("src"), false).expect("nothing of ours");
        for path in [root.clone(), root.join("eci"), root.join("eci/x")] {
            for read_only in [false, true] {
                let error = open(&path, read_only).expect_err("ours").to_string();
                assert!(error.contains("the folder of instances"), "{error}");
            }
        }
        let error = open(&image, false).expect_err("ours").to_string();
        assert!(error.contains("the image") && error.contains("would get to change that"), "{error}");
        open(&image, true).expect("everybody may read it");
        let file = root.join("file");
        fs::write(&file, "").expect("written");
        assert!(matches!(open(&file, false), Err(Error::NotAFolder { .. })));
        assert!(matches!(open(&root.join("none"), false), Err(Error::Open { .. })));
        // What a container put there.
        std::os::unix::fs::symlink("../file", root.join("src/link")).expect("made");
        let error = open(&root.join("src/link"), false).expect_err("a link").to_string();
        assert!(error.contains("by a link it is") && error.contains("/file`; name that"), "{error}");
    }

    #[test]
    fn every_id_of_the_vm_is_this_user_s_and_no_other_of_the_host_is_root_s() {
        assert_eq!(
            translation(1000, 100),
            [
                "--uid-map=:0:1000:1:",
                "--translate-uid=squash-guest:0:0:4294967295",
                "--gid-map=:0:100:1:",
                "--translate-gid=squash-guest:0:0:4294967295",
            ]
        );
        assert_eq!(
            translation(0, 0)[..2],
            ["--translate-uid=squash-host:1:65534:4294967294", "--translate-uid=squash-guest:0:0:4294967295"]
        );
    }

    #[test]
    fn a_share_that_is_read_is_served_so_and_its_path_is_one_argument() {
        let text =
            |read_only| arguments(&share(read_only)).into_iter().map(|a| a.into_string().expect("text"));
        assert!(text(true).any(|argument| argument == "--readonly"));
        assert!(text(false).all(|argument| argument != "--readonly"));
        assert!(text(false).any(|argument| argument == "/home/a,b"));
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version_of("virtiofsd 1.13.2"), Some((1, 13)));
        assert!(version_of("virtiofsd 1.9.0").expect("a version") < OLDEST);
        for none in ["", "virtiofsd", "virtiofsd x.y", "virtiofsd backend version 1.10"] {
            assert_eq!(version_of(none), None, "{none}");
        }
    }
}
