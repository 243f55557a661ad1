//! Settings that come through a pipe, when the service may go on: until then it waits, loaded, at its first read.
//!
//! Why: the engine takes a second to load and then, at once, needs a containerd that takes as long. Started one after the
//! other they take twice that; started together the engine may come first, and then loses two seconds to a retry.
//!
//! Invariant: what the engine's own settings say, which come with the image, no administrator's setting changes, but for the runtime that
//! containers have where isolation is off.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use eci_contract::choice::Switch;
use eci_policy::settings::engine::{Engine, Taken};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::io::Errno;
use serde_json::{Map, Value};

use super::table::Settings;

/// The key of the runtime that containers have which name none, and the one that isolates nothing while isolation is off: `docker inspect`
/// shows it.
const RUNTIME: (&str, &str) = ("default-runtime", "runc");
/// Largest settings that a pipe takes in one write (pipe(7), default capacity).
const MAX_BYTES: usize = 65_536;

/// Why settings do not reach a service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be used.
    #[error("cannot {operation} `{}`", .path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file or pipe.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file is not JSON.
    #[error("`{path}` is not a JSON object")]
    Parse {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The administrator sets what the image does.
    #[error("cannot add the administrator's settings to those of `{path}`")]
    Taken {
        /// The file.
        path: String,
        /// Which.
        source: Taken,
    },
    /// They are too long for a pipe.
    #[error("the settings of `{path}` have more than {MAX_BYTES} bytes")]
    TooLong {
        /// The file.
        path: String,
    },
}

/// Makes the pipe, or keeps the one that is there.
///
/// # Errors
/// It cannot be made, or something else is in its place.
pub fn make_pipe(settings: &Settings) -> Result<(), Error> {
    let path = settings.pipe.as_str();
    match mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
        Err(Errno::EXIST) if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_fifo()) => {
            Ok(())
        }
        outcome => outcome.map_err(|errno| failed("make", path)(errno.into())),
    }
}

/// What a service gets: its file, with what the administrator set besides, and isolation as it is.
///
/// # Errors
/// The file cannot be read or is not JSON, both have a setting, or it does not fit into the pipe.
pub fn text(settings: &Settings, set: Option<(&Engine, Switch)>) -> Result<Vec<u8>, Error> {
    let path = settings.file.as_str();
    let own = fs::read(path).map_err(failed("read", path))?;
    let text = match set {
        Some((set, isolation)) => added(path, &own, set, isolation)?,
        None => own,
    };
    if text.len() > MAX_BYTES {
        return Err(Error::TooLong { path: path.to_owned() });
    }
    Ok(text)
}

fn added(path: &str, own: &[u8], set: &Engine, isolation: Switch) -> Result<Vec<u8>, Error> {
    let parse = |source| Error::Parse { path: path.to_owned(), source };
    let own: Map<String, Value> = serde_json::from_slice(own).map_err(parse)?;
    let mut all = set.added_to(&own).map_err(|source| Error::Taken { path: path.to_owned(), source })?;
    if isolation == Switch::Off {
        let (key, runtime) = RUNTIME;
        all.insert(key.to_owned(), runtime.into());
    }
    serde_json::to_vec(&all).map_err(parse)
}

/// Hands the settings over. `false` when the service does not read yet.
///
/// # Errors
/// They cannot be written.
pub fn hand_over(settings: &Settings, text: &[u8]) -> Result<bool, Error> {
    let path = settings.pipe.as_str();
    let mut pipe = match open(path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
        Ok(pipe) => File::from(pipe),
        Err(Errno::NXIO) => return Ok(false),
        Err(errno) => return Err(failed("open", path)(errno.into())),
    };
    pipe.write_all(text).map_err(failed("write", path))?;
    Ok(true)
}

fn failed(operation: &'static str, path: &str) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { operation, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn settings_wait_for_a_reader_and_end_after_the_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let settings = Settings { file: path("file"), file_in_wsl: None, pipe: path("pipe"), after: vec![] };
        fs::write(&settings.file, "{}\n").unwrap();
        let given = text(&settings, None).unwrap();
        make_pipe(&settings).unwrap();
        make_pipe(&settings).unwrap();
        assert!(!hand_over(&settings, &given).unwrap());
        let pipe = settings.pipe.clone();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            File::open(pipe).unwrap().read_to_string(&mut text).unwrap();
            text
        });
        while !hand_over(&settings, &given).unwrap() {
            std::thread::yield_now();
        }
        assert_eq!(reader.join().unwrap(), "{}\n");
        fs::remove_file(&settings.pipe).unwrap();
        fs::write(&settings.pipe, "").unwrap();
        assert_eq!(make_pipe(&settings).unwrap_err().to_string(), format!("cannot make `{}`", settings.pipe));
    }

    fn administered(engine: &str) -> Engine {
        let text = format!("{{\"configurationFileVersion\": 2, \"eci\": {{\"engine\": {engine}}}}}");
        eci_policy::settings::read(text.as_bytes()).unwrap().engine
    }

    #[test]
    fn what_the_administrator_set_is_added_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("daemon.json").to_string_lossy().into_owned();
        let settings = Settings { file: file.clone(), file_in_wsl: None, pipe: String::new(), after: vec![] };
        let set = administered(r#"{"mtu": 1400}"#);
        let given = |own: &str| {
            fs::write(&file, own).unwrap();
            text(&settings, Some((&set, Switch::On)))
        };
        let all: Value = serde_json::from_slice(&given(r#"{"hosts": ["unix:///x"]}"#).unwrap()).unwrap();
        assert_eq!((&all["hosts"][0], &all["mtu"]), (&"unix:///x".into(), &1400.into()));
        assert_eq!(all["log-opts"]["max-size"], "10m");
        let own = r#"{"default-runtime": "eci-runc"}"#;
        for (isolation, runtime) in [(Switch::On, "eci-runc"), (Switch::Off, "runc")] {
            fs::write(&file, own).unwrap();
            let all: Value =
                serde_json::from_slice(&text(&settings, Some((&set, isolation))).unwrap()).unwrap();
            assert_eq!(all["default-runtime"], runtime);
        }
        let error = given(r#"{"mtu": 1500}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot add the administrator's settings to those of `{file}`")
        );
        assert_eq!(given("[]").unwrap_err().to_string(), format!("`{file}` is not a JSON object"));
        let long = format!("{{\"labels\": \"{}\"}}", "x".repeat(MAX_BYTES));
        assert_eq!(
            given(&long).unwrap_err().to_string(),
            format!("the settings of `{file}` have more than 65536 bytes")
        );
    }
}
