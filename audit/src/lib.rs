//! The audit log on the data disk: what a rule refused, to whom, and what can be done instead.
//!
//! Invariant: the log never takes more than two files of `MOST_BYTES` and a line; writers at once lose no line of another's.

pub mod limit;
pub mod time;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::Path;

use eci_contract::audit::{Denial, older};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};

/// A file of this length becomes the older one.
const MOST_BYTES: u64 = 1 << 20;
/// A message names what the user chose.
const MOST_CHARS: usize = 2000;

/// Writes a refusal down in `log`. What can be chosen at will is cut.
///
/// # Errors
/// When the log cannot be written: nothing of it is then.
pub fn append(log: &Path, mut denial: Denial) -> io::Result<()> {
    denial.message = denial.message.chars().take(MOST_CHARS).collect();
    append_to(log, &denial, MOST_BYTES)
}

fn append_to(path: &Path, denial: &Denial, most: u64) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut line = serde_json::to_vec(denial)?;
    line.push(b'\n');
    let mut file = open(path)?;
    if file.metadata()?.len() >= most {
        fs::rename(path, older(path))?;
        file = open(path)?;
    }
    let length = file.metadata()?.len();
    if !ends_a_line(&file, length)? {
        line.insert(0, b'\n');
    }
    let written = file.write_all(&line).and_then(|()| file.sync_data());
    if written.is_err() {
        // Where the disk is full, half a line is worse than none: the next one would be its end.
        file.set_len(length)?;
    }
    written
}

/// Whether what is there ends with a line: power that went may have left half of one.
fn ends_a_line(file: &File, length: u64) -> io::Result<bool> {
    let mut last = [b'\n'];
    if let Some(at) = length.checked_sub(1) {
        file.read_exact_at(&mut last, at)?;
    }
    Ok(last == *b"\n")
}

/// Opens the log and waits for those that write to it, until it is not one that became the older file meanwhile.
fn open(path: &Path) -> io::Result<File> {
    loop {
        // Not what a link leads to.
        let how = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, how, Mode::RUSR | Mode::WUSR)?);
        flock(&file, FlockOperation::LockExclusive)?;
        if fs::metadata(path).is_ok_and(|now| file.metadata().is_ok_and(|held| now.ino() == held.ino())) {
            return Ok(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use eci_contract::audit::VERSION;

    use super::*;

    fn denial(container: &str) -> Denial {
        Denial {
            version: VERSION,
            time: "2026-11-27T00:00:00Z".to_owned(),
            by: "eci-runc".to_owned(),
            action: "create".to_owned(),
            container: container.to_owned(),
            image: None,
            rule: "no-host-namespace".to_owned(),
            message: "no \"quotes\" or\nlines break it".to_owned(),
            remedy: "leave it out".to_owned(),
        }
    }

    fn lines(path: &Path) -> Vec<Denial> {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_denial_is_a_line_and_a_long_log_becomes_the_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eci/audit.jsonl");
        append_to(&path, &denial("a"), 1000).unwrap();
        append_to(&path, &denial("b"), 1000).unwrap();
        assert_eq!(lines(&path), [denial("a"), denial("b")]);
        let length = fs::metadata(&path).unwrap().len();
        append_to(&path, &denial("c"), length).unwrap();
        assert_eq!((lines(&path), lines(&older(&path)).len()), (vec![denial("c")], 2));
        append_to(&path, &denial("d"), 1).unwrap();
        assert_eq!((lines(&path), lines(&older(&path))), (vec![denial("d")], vec![denial("c")]));
    }

    #[test]
    fn half_a_line_that_was_left_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        fs::write(&path, "{\"version\":1,\"ti").unwrap();
        append_to(&path, &denial("a"), 1000).unwrap();
        append_to(&path, &denial("b"), 1000).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let whole: Vec<Denial> =
            text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(whole, [denial("a"), denial("b")]);
    }

    #[test]
    fn writers_at_once_lose_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let length = u64::try_from(serde_json::to_vec(&denial("0")).unwrap().len()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10).for_each(|_| append_to(&path, &denial("0"), length * 30).unwrap()));
            }
        });
        assert_eq!(lines(&path).len() + lines(&older(&path)).len(), 40);
    }
}
