//! A small disk that carries JSON: the text, and zeros from there to the disk's end. A VM finds it by its serial number.
//!
//! A file system would have to be parsed before anything on it is believed.

/// The disk's length is a multiple of this, in bytes.
pub const BLOCK_BYTES: usize = 4096;

/// The text at the beginning of a disk.
#[must_use]
pub fn text(disk: &[u8]) -> &[u8] {
    disk.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The disk that carries a text. It has at least one zero, as that is where the text ends.
#[must_use]
pub fn carrying(mut text: Vec<u8>) -> Vec<u8> {
    text.resize((text.len() + 1).next_multiple_of(BLOCK_BYTES), 0);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_ends_before_the_first_zero_or_with_the_disk() {
        for (disk, found) in [(&b"{}\0\0{}"[..], &b"{}"[..]), (b"{}", b"{}"), (b"\0", b""), (b"", b"")] {
            assert_eq!(text(disk), found);
        }
    }

    #[test]
    fn a_disk_is_whole_blocks_and_gives_its_text_back() {
        for length in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 7] {
            let disk = carrying(vec![b'x'; length]);
            assert!(disk.len() % BLOCK_BYTES == 0 && disk.len() > length);
            assert_eq!(text(&disk).len(), length);
        }
    }
}
