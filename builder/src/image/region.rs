//! A stretch of a file: a whole image, or a partition inside a disk image.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// `length` bytes of `file` from `offset`.
#[derive(Clone, Copy, Debug)]
pub struct Region<'a> {
    file: &'a File,
    offset: u64,
    length: u64,
}

impl<'a> Region<'a> {
    /// All of a file.
    ///
    /// # Errors
    /// What asking for the size gave.
    pub fn whole(file: &'a File) -> io::Result<Self> {
        Ok(Self { file, offset: 0, length: file.metadata()?.len() })
    }

    /// A part of a file. Reading beyond the file's end fails when it is tried.
    #[must_use]
    pub fn part(file: &'a File, offset: u64, length: u64) -> Self {
        Self { file, offset, length }
    }

    /// The first `length` bytes of this region, or all of it when it is shorter.
    #[must_use]
    pub fn first(self, length: u64) -> Self {
        Self { length: self.length.min(length), ..self }
    }

    /// Size in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Fills `buffer` with the bytes at `position`, relative to the region's start.
    ///
    /// # Errors
    /// `UnexpectedEof` when that is not all inside the region, and what reading gave.
    pub fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        let wanted = u64::try_from(buffer.len()).map_err(io::Error::other)?;
        let end = position.checked_add(wanted).filter(|end| *end <= self.length);
        let start = end.and_then(|_| self.offset.checked_add(position));
        let start = start.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.file.read_exact_at(buffer, start)
    }

    /// Reads the region from its start to its end.
    #[must_use]
    pub fn reader(self) -> RegionReader<'a> {
        RegionReader { region: self, position: 0 }
    }
}

/// Reads a [`Region`] in order.
#[derive(Debug)]
pub struct RegionReader<'a> {
    region: Region<'a>,
    position: u64,
}

impl Read for RegionReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.region.length.saturating_sub(self.position);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let start = self.region.offset.checked_add(self.position).ok_or(io::ErrorKind::UnexpectedEof)?;
        let read = self.region.file.read_at(&mut buffer[..count], start)?;
        if read == 0 && count > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += u64::try_from(read).map_err(io::Error::other)?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("temporary file");
        file.write_all(bytes).expect("written");
        file
    }

    #[test]
    fn reads_only_what_is_inside() {
        let file = file(b"0123456789");
        let region = Region::part(&file, 2, 5);
        let mut two = [0; 2];
        region.read_exact_at(&mut two, 3).expect("the last two bytes");
        assert_eq!(&two, b"56");
        assert!(region.read_exact_at(&mut two, 4).is_err());
        assert!(region.read_exact_at(&mut two, u64::MAX).is_err());
        let mut all = Vec::new();
        region.first(4).reader().read_to_end(&mut all).expect("four bytes");
        assert_eq!(all, b"2345");
    }

    #[test]
    fn a_region_beyond_the_end_of_the_file_is_an_error_and_not_short_data() {
        let file = file(b"0123");
        let mut all = Vec::new();
        let error =
            Region::part(&file, 2, 5).reader().read_to_end(&mut all).expect_err("two bytes are there");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
