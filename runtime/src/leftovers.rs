//! Containers that nobody will delete any more.
//!
//! Runtime, crun and shim can be killed at any moment, and the one who would have cleaned up after them too. So each start
//! looks at the containers that are there, and takes away those whose makers are gone: crun's state, the cgroup, the
//! folder and the range. What it looks for stands in a file of the container's folder, `birth`.

use std::fs;
use std::io::{self, Write};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use eci_contract::paths::{CONTAINERS_DIR, CRUN, ENGINE, SHIM};
use serde::{Deserialize, Serialize};

use crate::bundle::{Spec, text};
use crate::container::{self, Container};
use crate::processes::{self, Process};

const CGROUPS: &str = "/sys/fs/cgroup";
/// How often a cgroup is tried to be removed while its processes die, and the pause between.
const REMOVALS: u32 = 40;
const REMOVAL_PAUSE: Duration = Duration::from_millis(5);

/// How a container came to be.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Birth {
    /// The process that makes it: this one, which becomes crun.
    maker: Process,
    /// Who will delete it: its shim, or the engine for a step of a build. None when somebody else runs the runtime.
    keeper: Option<Process>,
    /// crun's folder for it.
    state: PathBuf,
    /// Its cgroup, a path from the root of the tree, when no other container can be in it.
    cgroup: Option<String>,
}

/// What crun knows of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Nothing.
    No,
    /// It had begun to write it down.
    HalfWay,
    /// All.
    Yes,
}

impl Birth {
    /// Of a container that this process is about to make.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn of(id: &str, spec: &Spec, state: PathBuf) -> io::Result<Self> {
        let parent = parent_id();
        let program = Path::new("/proc").join(parent.to_string()).join("exe");
        let keeps = processes::is_one_of(&program, &[SHIM, ENGINE]);
        let keeper = keeps.then(|| Process::of(parent)).transpose()?;
        let cgroup = spec.get("linux").and_then(|linux| text(linux, "cgroupsPath"));
        let cgroup = cgroup.filter(|path| Path::new(path).file_name().is_some_and(|name| name == id));
        let maker = Process::of(std::process::id())?;
        Ok(Self { maker, keeper, state, cgroup: cgroup.map(str::to_owned) })
    }

    /// crun's folder for the container.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The container's cgroup, a path from the root of the tree, when no other can be in it.
    #[must_use]
    pub fn cgroup(&self) -> Option<&str> {
        self.cgroup.as_deref()
    }

    /// Writes it into the container's folder.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, container: &Container) -> io::Result<()> {
        fs::write(birth_file(container), serde_json::to_vec(self)?)
    }

    /// Reads it from the container's folder; none when the container was killed before it was written.
    #[must_use]
    pub fn read(container: &Container) -> Option<Self> {
        serde_json::from_slice(&fs::read(birth_file(container)).ok()?).ok()
    }

    /// Ends what is left in the cgroup and removes that. crun makes it before it writes anything down: killed in between, it
    /// knows nothing of it any more. What cannot be removed stays, and harms only by being there.
    pub fn clear_cgroup(&self) {
        self.clear_cgroup_below(Path::new(CGROUPS));
    }

    fn clear_cgroup_below(&self, root: &Path) {
        let Some(path) = &self.cgroup else { return };
        let cgroup = root.join(path.trim_start_matches('/'));
        // Mostly there is none any more.
        if let Ok(mut file) = fs::File::options().write(true).open(cgroup.join("cgroup.kill")) {
            drop(file.write_all(b"1"));
        }
        for _ in 0..REMOVALS {
            if !cgroup.exists() || remove_cgroup(&cgroup).is_ok() {
                return;
            }
            thread::sleep(REMOVAL_PAUSE);
        }
    }

    /// What crun knows is asked for once the maker has ended: asked before, it could be what crun knew half way.
    fn is_abandoned(&self, known: impl FnOnce() -> Known, is_alive: impl Fn(&Process) -> bool) -> bool {
        if is_alive(&self.maker) {
            return false;
        }
        known() != Known::Yes || self.keeper.as_ref().is_some_and(|keeper| !is_alive(keeper))
    }
}

/// Takes away every container that was abandoned; `asking` is left alone. The caller holds the lock on the ranges, so that
/// none is just being made. What cannot be taken away stays for the next time: it harms only by being there.
///
/// # Errors
/// The folder of the containers cannot be read.
pub fn sweep(asking: &str, give_back: impl Fn(&Container) -> Result<(), container::Error>) -> io::Result<()> {
    let entries = match fs::read_dir(CONTAINERS_DIR) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let Ok(id) = entry?.file_name().into_string() else { continue };
        if id == asking {
            continue;
        }
        let container = Container::named(&id);
        // Without a birth it was killed between making its folder and this file.
        let birth = Birth::read(&container);
        if birth.as_ref().is_none_or(|birth| birth.is_abandoned(|| known(&birth.state), Process::is_alive)) {
            if let Some(birth) = birth {
                clear(&id, &birth);
            }
            drop(give_back(&container));
        }
    }
    Ok(())
}

fn known(state: &Path) -> Known {
    match (state.exists(), processes::main_of(state)) {
        (false, _) => Known::No,
        (true, None) => Known::HalfWay,
        (true, Some(_)) => Known::Yes,
    }
}

/// Ends what is left of its processes and removes what crun made.
fn clear(id: &str, birth: &Birth) {
    let Some(root) = birth.state.parent() else { return };
    if birth.state.exists() {
        let mut crun = Command::new(CRUN);
        crun.arg(format!("--root={}", root.display())).args(["delete", "--force", id]);
        drop(crun.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status());
        drop(fs::remove_dir_all(&birth.state));
    }
    birth.clear_cgroup();
}

/// The files of a cgroup go with it; only cgroups below have to go first.
fn remove_cgroup(cgroup: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}

fn birth_file(container: &Container) -> PathBuf {
    container.folder.join("birth")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::cell::Cell;

    const MAKER: Process = Process { pid: 10, start: 100 };
    const KEEPER: Process = Process { pid: 5, start: 50 };

    fn abandoned(keeper: Option<Process>, known: Known, alive: &[Process]) -> bool {
        let birth = Birth { maker: MAKER, keeper, state: "/run/crun/c".into(), cgroup: None };
        birth.is_abandoned(|| known, |process| alive.contains(process))
    }

    #[test]
    fn nobody_takes_away_what_is_being_made() {
        for known in [Known::No, Known::HalfWay, Known::Yes] {
            assert!(!abandoned(Some(KEEPER), known, &[MAKER]));
        }
    }

    #[test]
    fn what_a_maker_does_until_it_ends_counts() {
        let birth = Birth { maker: MAKER, keeper: Some(KEEPER), state: "/run/crun/c".into(), cgroup: None };
        let known = Cell::new(Known::HalfWay);
        let is_alive = |process: &Process| {
            // It writes the rest and ends while it is looked for.
            known.set(Known::Yes);
            *process != MAKER
        };
        assert!(!birth.is_abandoned(|| known.get(), is_alive));
    }

    #[test]
    fn what_crun_does_not_know_whole_goes_when_its_maker_has_died() {
        for known in [Known::No, Known::HalfWay] {
            assert!(abandoned(Some(KEEPER), known, &[KEEPER]));
            assert!(abandoned(None, known, &[]));
        }
    }

    #[test]
    fn a_container_stays_as_long_as_its_keeper() {
        assert!(!abandoned(Some(KEEPER), Known::Yes, &[KEEPER]));
        assert!(abandoned(Some(KEEPER), Known::Yes, &[]));
        assert!(!abandoned(None, Known::Yes, &[]), "who made it by hand deletes it by hand");
    }

    #[test]
    fn a_process_that_got_the_number_of_another_is_not_that_one() {
        assert!(abandoned(Some(KEEPER), Known::Yes, &[Process { start: 51, ..KEEPER }]));
    }

    #[test]
    fn a_cgroup_is_its_own_when_it_has_its_name() {
        for (path, own) in [("/docker/c1", true), ("/docker/c2", false), ("/", false)] {
            let spec = json!({"linux": {"cgroupsPath": path}});
            let birth = Birth::of("c1", spec.as_object().unwrap(), "/run/crun/c1".into()).unwrap();
            assert_eq!(birth.cgroup.is_some(), own, "{path}");
        }
    }

    #[test]
    fn only_the_container_s_own_cgroup_is_cleared() {
        let root = tempfile::tempdir().unwrap();
        for name in ["docker/c1/inner", "docker/c2"] {
            fs::create_dir_all(root.path().join(name)).unwrap();
        }
        let birth = |cgroup: Option<&str>| Birth {
            maker: MAKER,
            keeper: None,
            state: "/run/crun/c1".into(),
            cgroup: cgroup.map(str::to_owned),
        };
        birth(None).clear_cgroup_below(root.path());
        birth(Some("/docker/none")).clear_cgroup_below(root.path());
        assert!(root.path().join("docker/c1/inner").exists());
        birth(Some("/docker/c1")).clear_cgroup_below(root.path());
        assert!(!root.path().join("docker/c1").exists());
        assert!(root.path().join("docker/c2").exists());
    }

    #[test]
    fn cgroups_are_removed_from_below() {
        let folder = tempfile::tempdir().unwrap();
        let cgroup = folder.path().join("c");
        fs::create_dir_all(cgroup.join("container/inner")).unwrap();
        remove_cgroup(&cgroup).unwrap();
        assert!(!cgroup.exists());
    }
}
