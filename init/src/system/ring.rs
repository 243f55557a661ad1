//! The log that PID 1 keeps: the last [`CAPACITY`] bytes, addressed by how many bytes came before.

use std::collections::VecDeque;

/// How much is kept, in bytes. A boot with twenty containers logs 60 KiB; 1 MiB keeps days of ordinary work and is
/// 0.05 % of the smallest machine.
pub const CAPACITY: usize = 1024 * 1024;

/// A bounded log.
#[derive(Debug)]
pub struct Ring {
    bytes: VecDeque<u8>,
    /// Position of the first byte kept, counted from the first byte ever.
    first: u64,
}

impl Ring {
    /// An empty log. Its memory is taken now, so that logging never fails later.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: VecDeque::with_capacity(CAPACITY), first: 0 }
    }

    /// Appends a line; the oldest bytes make room.
    pub fn push_line(&mut self, line: &str) {
        let line = line.as_bytes();
        let line = line.get(..CAPACITY / 2).unwrap_or(line);
        let excess = (self.bytes.len() + line.len() + 1).saturating_sub(CAPACITY);
        self.bytes.drain(..excess);
        self.first += u64::try_from(excess).unwrap_or(0);
        self.bytes.extend(line);
        self.bytes.push_back(b'\n');
    }

    /// Position after the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first + u64::try_from(self.bytes.len()).unwrap_or(0)
    }

    /// Position of the first whole line.
    #[must_use]
    pub fn start(&self) -> u64 {
        if self.first == 0 {
            return 0;
        }
        let cut = self.bytes.iter().position(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        self.first + u64::try_from(cut).unwrap_or(0)
    }

    /// At most `limit` bytes from `position`, or from the first whole line if that was dropped already; and the
    /// position after them.
    #[must_use]
    pub fn read(&self, position: u64, limit: usize) -> (Vec<u8>, u64) {
        let position = if position < self.first { self.start() } else { position };
        let skip = usize::try_from(position - self.first).unwrap_or(usize::MAX);
        let bytes: Vec<u8> = self.bytes.iter().skip(skip).take(limit).copied().collect();
        let next = position + u64::try_from(bytes.len()).unwrap_or(0);
        (bytes, next)
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gets_everything_in_pieces() {
        let mut ring = Ring::new();
        ring.push_line("one");
        ring.push_line("two");
        assert_eq!(ring.read(0, 5), (b"one\nt".to_vec(), 5));
        assert_eq!(ring.read(5, 100), (b"wo\n".to_vec(), 8));
        assert_eq!(ring.read(8, 100), (vec![], 8));
        assert_eq!(ring.end(), 8);
    }

    #[test]
    fn the_oldest_lines_make_room_and_a_late_reader_starts_at_a_whole_line() {
        let mut ring = Ring::new();
        for number in 0..200_000 {
            ring.push_line(&format!("line {number}"));
        }
        let (bytes, next) = ring.read(0, usize::MAX);
        assert!(bytes.starts_with(b"line ") && bytes.ends_with(b"line 199999\n"));
        assert!(bytes.len() <= CAPACITY);
        assert_eq!(next, ring.end());
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut ring = Ring::new();
        ring.push_line(&"x".repeat(3 * CAPACITY));
        assert_eq!(ring.read(0, usize::MAX).0.len(), CAPACITY / 2 + 1);
    }
}
