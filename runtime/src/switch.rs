//! Whether isolation is on: for this machine, and for one container.
//!
//! Invariant: it is on unless PID 1 has said otherwise for this boot, and then off for the name `runc` alone: under every other name, that of
//! the engine's default runtime first, this program isolates always. How a container first ran it runs from then on: isolated at any time, or not isolated
//! while isolation is off.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use eci_contract::choice::Switch;
use eci_contract::paths::{ENGINE_CONTAINERS, FIRST_RAN, ISOLATION, RUNC};
use eci_policy::Verdict;
use eci_policy::rules::unisolated;

/// Where it is said.
#[derive(Debug)]
pub struct Ground<'a> {
    /// PID 1's word for this boot.
    isolation: &'a Path,
    /// The engine's folders of containers.
    containers: &'a Path,
}

/// That of this machine.
#[must_use]
pub fn ground() -> Ground<'static> {
    Ground { isolation: Path::new(ISOLATION), containers: Path::new(ENGINE_CONTAINERS) }
}

impl Ground<'_> {
    /// Whether container `id`, which is made under this name of the program, is isolated.
    #[must_use]
    pub fn isolates(&self, program: Option<&OsStr>, id: &str) -> bool {
        let name = program.and_then(|program| Path::new(program).file_name());
        self.is_on() || name != Path::new(RUNC).file_name() || self.first_ran(id) == Some(Switch::On)
    }

    /// Whether a process that enters container `id`, which runs, is judged.
    #[must_use]
    pub fn judges(&self, id: &str) -> bool {
        self.is_on() || self.first_ran(id) != Some(Switch::Off)
    }

    /// Refuses to isolate a container that ran while isolation was off.
    #[must_use]
    pub fn judge(&self, id: &str) -> Verdict {
        unisolated::judge(self.first_ran(id) == Some(Switch::Off))
    }

    /// Remembers how a container runs, in the engine's folder for it. A step of a build has none, and is never started again.
    ///
    /// # Errors
    /// It cannot be written: then the container must not run.
    pub fn remember(&self, id: &str, isolation: Switch) -> io::Result<()> {
        if self.first_ran(id) == Some(isolation) {
            return Ok(());
        }
        match fs::write(self.mark(id), isolation.word()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            written => written,
        }
    }

    /// Nothing but the one word says that it is off: neither a file that cannot be read, nor a folder of that name.
    fn is_on(&self) -> bool {
        read(self.isolation) != Some(Switch::Off)
    }

    fn first_ran(&self, id: &str) -> Option<Switch> {
        read(&self.mark(id))
    }

    fn mark(&self, id: &str) -> PathBuf {
        self.containers.join(id).join(FIRST_RAN)
    }
}

fn read(path: &Path) -> Option<Switch> {
    Switch::from_word(&fs::read_to_string(path).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [Option<&str>; 5] =
        [None, Some(""), Some("/usr/bin/eci-runc"), Some("eci-runc"), Some("/usr/bin/other")];
    const RUNCS: [Option<&str>; 2] = [Some("runc"), Some("/usr/bin/runc")];

    #[test]
    fn only_the_word_of_pid_1_and_the_name_runc_isolate_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let isolation = folder.path().join("isolation");
        let ground = Ground { isolation: &isolation, containers: folder.path() };
        let isolates = |name: Option<&str>| ground.isolates(name.map(OsStr::new), "c1");
        assert!(NAMES.into_iter().chain(RUNCS).all(isolates), "there is no file");
        // What the engine makes for a mount whose source is missing.
        fs::create_dir(&isolation).unwrap();
        assert!(NAMES.into_iter().chain(RUNCS).all(isolates), "there is a folder");
        fs::remove_dir(&isolation).unwrap();
        for other in ["", "on", "off\n", "Off"] {
            fs::write(&isolation, other).unwrap();
            assert!(NAMES.into_iter().chain(RUNCS).all(isolates), "{other:?}");
        }
        fs::write(&isolation, "off").unwrap();
        assert!(NAMES.into_iter().all(isolates));
        assert!(!RUNCS.into_iter().any(isolates));
    }

    #[test]
    fn a_container_runs_on_as_it_first_ran() {
        let folder = tempfile::tempdir().unwrap();
        let isolation = folder.path().join("isolation");
        let ground = Ground { isolation: &isolation, containers: folder.path() };
        let runc = Some(OsStr::new("runc"));
        for id in ["isolated", "free", "odd"] {
            fs::create_dir(folder.path().join(id)).unwrap();
        }
        ground.remember("isolated", Switch::On).unwrap();
        ground.remember("free", Switch::Off).unwrap();
        ground.remember("build", Switch::Off).unwrap();
        assert!(!folder.path().join("build").exists(), "which is never started again");
        fs::create_dir(folder.path().join("odd").join(FIRST_RAN)).unwrap();
        assert_eq!(
            [ground.judge("isolated"), ground.judge("odd"), ground.judge("build")],
            [const { Verdict::Allow }; 3]
        );
        assert_ne!(ground.judge("free"), Verdict::Allow);
        fs::write(&isolation, "off").unwrap();
        assert!(ground.isolates(runc, "isolated") && ground.judges("isolated"));
        assert!(!ground.isolates(runc, "free") && !ground.judges("free"));
        assert!(ground.remember("odd", Switch::Off).is_err(), "it must not run");
    }
}
