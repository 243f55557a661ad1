//! `SHA256SUMS`, as `sha256sum --check` reads it.
//!
//! Invariant: it speaks of files in its own folder, and in the one folder that an image may have there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::apple;
use super::digest::Sha256;

/// File name of the sums.
pub const FILE: &str = "SHA256SUMS";

/// Why sums cannot be computed or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not one of `sha256sum`'s.
    #[error("line {line} of {FILE} is not a digest and a file name")]
    Line {
        /// Line, from 1.
        line: usize,
    },
}

/// Digests by file name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums(pub BTreeMap<String, Sha256>);

impl Sums {
    /// Hashes files of a folder.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn of(folder: &Path, names: &[String]) -> Result<Self, Error> {
        let (mut sums, mut read) = (BTreeMap::new(), BTreeMap::new());
        for name in names {
            let path = folder.join(name);
            let digest = digest_of(&path, &mut read).map_err(|source| Error::Read { path, source })?;
            sums.insert(name.clone(), digest);
        }
        Ok(Self(sums))
    }

    /// The text of the file, sorted by name.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.0.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect()
    }

    /// Reads the text of the file.
    ///
    /// # Errors
    /// [`Error::Line`], for names with any other folder in them too.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut sums = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let entry = line.split_once("  ").and_then(|(digest, name)| Some((digest.parse().ok()?, name)));
            let sound =
                entry.filter(|(_, name)| is_plain(name) || apple::names().iter().any(|known| known == name));
            let (digest, name) = sound.ok_or(Error::Line { line: index + 1 })?;
            sums.insert(name.to_owned(), digest);
        }
        Ok(Self(sums))
    }
}

/// The digest of a file that may have been read under another name: a disk is the most that there is to read.
fn digest_of(path: &Path, read: &mut BTreeMap<(u64, u64), Sha256>) -> io::Result<Sha256> {
    let metadata = fs::metadata(path)?;
    let file = (metadata.dev(), metadata.ino());
    if let Some(digest) = read.get(&file) {
        return Ok(*digest);
    }
    let digest = Sha256::of_file(path)?;
    read.insert(file, digest);
    Ok(digest)
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_sorted_and_reads_back() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for name in ["b", "a"] {
            std::fs::write(folder.path().join(name), "abc").expect("file");
        }
        let sums = Sums::of(folder.path(), &["b".to_owned(), "a".to_owned()]).expect("both are there");
        let digest = Sha256::of(&[b"abc"]);
        assert_eq!(sums.to_text(), format!("{digest}  a\n{digest}  b\n"));
        assert_eq!(Sums::parse(&sums.to_text()).expect("our own"), sums);
    }

    #[test]
    fn lines_that_name_no_file_of_the_folder_are_refused() {
        let digest = Sha256::of(&[b"abc"]);
        for line in [
            format!("{digest}  ../x"),
            format!("{digest}  apple/../x"),
            format!("{digest} x"),
            format!("{digest}  "),
            "x  y".to_owned(),
        ] {
            let error = Sums::parse(&format!("{digest}  apple/Image\n{line}\n"))
                .expect_err("the second line is wrong");
            assert_eq!(error.to_string(), "line 2 of SHA256SUMS is not a digest and a file name");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Sums::of(Path::new("/nowhere"), &["x".to_owned()]).expect_err("not there");
        assert_eq!(error.to_string(), "cannot read `/nowhere/x`");
    }
}
