//! Emptying what the engine began to remove, and could not.
//!
//! Why: its AppArmor profile goes by names, and AppArmor has none of more than 8,192 bytes. A container that leaves folders in each other deeper than
//! that would keep their space for good, as no removal gets to their end. Here nobody has a profile, and no name is longer than a folder
//! and a file in it. The engine, which marks what it began to remove, removes the rest when it is asked again.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eci_contract::paths::{ENGINE_CONTAINER_LAYERS, ENGINE_CONTAINERS, ENGINE_LAYERS};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, openat, renameat_with, unlinkat};
use rustix::io::Errno;
use serde::Deserialize;

/// How long a boot waits for it. What is left then is for the next one.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is read of the engine's `config.v2.json`.
#[derive(Deserialize)]
struct Config {
    #[serde(rename = "State")]
    state: State,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct State {
    dead: bool,
    removal_in_progress: bool,
}

/// Why something is still there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine's folder of containers cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A layer cannot be emptied.
    #[error("cannot empty `{}`, which the engine began to remove", .path.display())]
    Empty {
        /// Its folder.
        path: PathBuf,
        /// What the kernel said.
        source: Errno,
    },
    /// There is too much of it.
    #[error("emptying `{}`, which the engine began to remove, takes longer than {} s: the next boot goes on", .path.display(), PATIENCE.as_secs())]
    Late {
        /// Its folder.
        path: PathBuf,
    },
}

/// Empties the layers of containers that the engine began to remove. It does not run yet, and nothing else does.
///
/// # Errors
/// [`Error`]; whatever could be removed is.
pub fn empty() -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    let removed = removed(Path::new(ENGINE_CONTAINERS), Path::new(ENGINE_CONTAINER_LAYERS))?;
    let emptied = removed.iter().map(|layer| {
        let path = Path::new(ENGINE_LAYERS).join(layer).join("diff");
        match openat(CWD, &path, FOLDER, Mode::empty()) {
            Ok(folder) => empty_folder(folder.as_fd(), &path, deadline),
            // It got that far.
            Err(Errno::NOENT) => Ok(()),
            Err(source) => Err(Error::Empty { path, source }),
        }
    });
    emptied.fold(Ok(()), Result::and)
}

/// Names of layers whose removal the engine began. They are containers' alone: what becomes an image goes through an archive, whose names end sooner.
fn removed(containers: &Path, mounts: &Path) -> Result<Vec<String>, Error> {
    let mut layers = Vec::new();
    for id in names(containers)? {
        let text = fs::read(containers.join(&id).join("config.v2.json")).unwrap_or_default();
        let is_dead = serde_json::from_slice(&text)
            .is_ok_and(|Config { state }| state.dead || state.removal_in_progress);
        if is_dead {
            layers.extend(layer(&mounts.join(&id).join("mount-id")));
        }
    }
    Ok(layers)
}

/// The layer that a file of the engine's store names.
fn layer(file: &Path) -> Option<String> {
    let name = fs::read_to_string(file).ok()?;
    (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
        .then_some(name)
}

/// Names in a folder; none where there is no such folder.
fn names(path: &Path) -> Result<Vec<String>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    match fs::read_dir(path) {
        Ok(entries) => entries
            .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
            .collect::<Result<_, _>>()
            .map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes everything in a folder, however deep. What a folder in it has of folders moves up first: two are open at a time, and no way
/// leads back up.
fn empty_folder(top: BorrowedFd<'_>, path: &Path, deadline: Instant) -> Result<(), Error> {
    let failed = |source| Error::Empty { path: path.to_owned(), source };
    let mut moved = 0_u64;
    loop {
        let mut is_empty = true;
        for entry in Dir::read_from(top).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            is_empty = false;
            if Instant::now() > deadline {
                return Err(Error::Late { path: path.to_owned() });
            }
            if let Some(folder) = remove(top, name).map_err(failed)? {
                lift(folder.as_fd(), top, &mut moved, deadline).map_err(failed)?;
            }
        }
        if is_empty {
            return Ok(());
        }
    }
}

/// Removes a file or an empty folder; gives a folder that has something in it.
fn remove(folder: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>, Errno> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        outcome => return outcome.map(|()| None),
    }
    match unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY) => openat(folder, name, FOLDER, Mode::empty()).map(Some),
        outcome => outcome.map(|()| None),
    }
}

/// Removes the files in a folder, and moves its folders to `top` by names that nothing has there. At the deadline the rest stays.
fn lift(
    folder: BorrowedFd<'_>,
    top: BorrowedFd<'_>,
    moved: &mut u64,
    deadline: Instant,
) -> Result<(), Errno> {
    for entry in Dir::read_from(folder)?.take_while(|_| Instant::now() <= deadline) {
        let entry = entry?;
        let name = entry.file_name();
        if [c".", c".."].contains(&name) || remove(folder, name)?.is_none() {
            continue;
        }
        loop {
            *moved += 1;
            match renameat_with(folder, name, top, format!("moved-{moved}"), RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                outcome => break outcome?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{mkdirat, statat};
    use std::os::unix::fs::symlink;

    #[test]
    fn a_folder_is_emptied_whatever_is_in_it_and_however_deep() {
        let folder = tempfile::tempdir().unwrap();
        let beside = folder.path().join("beside");
        let top = folder.path().join("top");
        for path in [&beside, &top] {
            fs::create_dir(path).unwrap();
        }
        fs::write(beside.join("file"), "kept").unwrap();
        symlink(&beside, top.join("link")).unwrap();
        symlink("nowhere", top.join("dangling")).unwrap();
        // Names that what is in them would get on its way up.
        for name in ["moved-1", "moved-2", "wide"] {
            fs::create_dir_all(top.join(name).join("a/b")).unwrap();
            fs::create_dir_all(top.join(name).join("c")).unwrap();
            fs::write(top.join(name).join("a/file"), "").unwrap();
        }
        let name = "d".repeat(255);
        let mut deep: OwnedFd = fs::File::open(&top).unwrap().into();
        for _ in 0..300 {
            mkdirat(&deep, &name, Mode::RWXU).unwrap();
            deep = openat(&deep, &name, FOLDER, Mode::empty()).unwrap();
        }
        symlink("up", top.join("up")).unwrap();
        let opened = fs::File::open(&top).unwrap();
        empty_folder(opened.as_fd(), &top, Instant::now() + PATIENCE).unwrap();
        assert_eq!(fs::read_dir(&top).unwrap().count(), 0);
        assert_eq!(statat(&deep, "", AtFlags::EMPTY_PATH).unwrap().st_nlink, 0);
        assert_eq!(fs::read_to_string(beside.join("file")).unwrap(), "kept");
    }

    #[test]
    fn what_takes_too_long_is_left_in_words() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        let opened = fs::File::open(folder.path()).unwrap();
        let late = empty_folder(opened.as_fd(), folder.path(), Instant::now() - Duration::from_secs(1));
        assert!(late.unwrap_err().to_string().ends_with("takes longer than 60 s: the next boot goes on"));
    }

    #[test]
    fn the_engine_s_files_tell_what_it_began_to_remove() {
        let folder = tempfile::tempdir().unwrap();
        let [containers, mounts] = ["containers", "mounts"].map(|name| folder.path().join(name));
        let put = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(removed(&containers, &mounts).unwrap(), [""; 0]);
        for (id, state, layer) in [
            ("dead", r#"{"Running":false,"Dead":true,"RemovalInProgress":false}"#, "l-dead"),
            ("cut", r#"{"Dead":false,"RemovalInProgress":true}"#, "l-cut"),
            ("alive", r#"{"Running":true,"Dead":false,"RemovalInProgress":false}"#, "l-alive"),
            ("led", r#"{"Dead":true}"#, "../containers"),
        ] {
            put(containers.join(id).join("config.v2.json"), &format!(r#"{{"ID":"{id}","State":{state}}}"#));
            put(mounts.join(id).join("mount-id"), layer);
        }
        put(containers.join("half/config.v2.json"), "{");
        let mut found = removed(&containers, &mounts).unwrap();
        found.sort();
        assert_eq!(found, ["l-cut", "l-dead"]);
    }
}
