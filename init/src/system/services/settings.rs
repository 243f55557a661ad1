//! Settings that come through a pipe, when the service may go on: until then it waits, loaded, at its first read.
//!
//! Why: the engine takes a second to load and then, at once, needs a containerd that takes as long. Started one after the
//! other they take twice that; started together the engine may come first, and then loses two seconds to a retry.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::io::Errno;

use super::table::Settings;

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
    /// They are too long for a pipe.
    #[error("`{}` has more than {MAX_BYTES} bytes", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
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

/// Hands the settings over. `false` when the service does not read yet.
///
/// # Errors
/// The settings cannot be read or written.
pub fn hand_over(settings: &Settings) -> Result<bool, Error> {
    let path = settings.pipe.as_str();
    let mut pipe = match open(path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
        Ok(pipe) => File::from(pipe),
        Err(Errno::NXIO) => return Ok(false),
        Err(errno) => return Err(failed("open", path)(errno.into())),
    };
    let text = fs::read(&settings.file).map_err(failed("read", &settings.file))?;
    if text.len() > MAX_BYTES {
        return Err(Error::TooLong { path: settings.file.clone().into() });
    }
    pipe.write_all(&text).map_err(failed("write", path))?;
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
        let settings = Settings { file: path("file"), pipe: path("pipe"), after: vec![] };
        fs::write(&settings.file, "{}\n").unwrap();
        make_pipe(&settings).unwrap();
        make_pipe(&settings).unwrap();
        assert!(!hand_over(&settings).unwrap());
        let pipe = settings.pipe.clone();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            File::open(pipe).unwrap().read_to_string(&mut text).unwrap();
            text
        });
        while !hand_over(&settings).unwrap() {
            std::thread::yield_now();
        }
        assert_eq!(reader.join().unwrap(), "{}\n");
        fs::remove_file(&settings.pipe).unwrap();
        fs::write(&settings.pipe, "").unwrap();
        assert_eq!(make_pipe(&settings).unwrap_err().to_string(), format!("cannot make `{}`", settings.pipe));
    }

    #[test]
    fn errors_name_the_file() {
        let error = Error::TooLong { path: "/etc/x".into() };
        assert_eq!(error.to_string(), "`/etc/x` has more than 65536 bytes");
    }
}
