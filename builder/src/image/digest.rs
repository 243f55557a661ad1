//! SHA-256 digests as values: 32 bytes inside, 64 lower-case hexadecimal digits outside.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use ring::digest::{Context, SHA256};

/// Bytes read at a time; large enough that system calls do not show, small enough for the second-level cache.
const BUFFER_BYTES: usize = 256 * 1024;

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

/// A text is not a SHA-256 digest.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not 64 lower-case hexadecimal digits")]
pub struct NotADigest {
    /// The text.
    pub text: String,
}

impl Sha256 {
    /// Digest of the concatenation of `parts`.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(part);
        }
        Self::finish(context)
    }

    /// Digest of everything that `reader` gives.
    ///
    /// # Errors
    /// What reading gave.
    pub fn of_reader(mut reader: impl Read) -> io::Result<Self> {
        let mut context = Context::new(&SHA256);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => return Ok(Self::finish(context)),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            context.update(&buffer[..count]);
        }
    }

    /// Digest of a file.
    ///
    /// # Errors
    /// What opening or reading gave.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        Self::of_reader(File::open(path)?)
    }

    fn finish(context: Context) -> Self {
        let digest = context.finish();
        Self(digest.as_ref().try_into().expect("SHA-256 gives 32 bytes"))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Sha256 {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let bytes = from_hex(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| NotADigest { text: text.to_owned() })
    }
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a text of lower-case hexadecimal digits, `None` for anything else.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = (text.as_bytes().chunks_exact(2), text.len() % 2);
    if rest != 0 {
        return None;
    }
    pairs.map(|pair| Some((digit(pair[0])? << 4) | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn parts_are_hashed_as_one_message() {
        assert_eq!(Sha256::of(&[b"a", b"bc"]).to_string(), ABC);
        assert_eq!(Sha256::of_reader(&b"abc"[..]).expect("a slice reads").to_string(), ABC);
    }

    #[test]
    fn text_form_is_strict() {
        assert_eq!(ABC.parse::<Sha256>().expect("a digest").to_string(), ABC);
        for bad in [&ABC[1..], &ABC.to_uppercase(), &format!("{ABC}00"), ""] {
            assert!(bad.parse::<Sha256>().is_err(), "{bad}");
        }
        assert_eq!(from_hex("0g"), None);
        assert_eq!(from_hex("abc"), None);
    }

    #[test]
    fn the_error_names_the_text() {
        let error = "xyz".parse::<Sha256>().expect_err("not hexadecimal");
        assert_eq!(error.to_string(), "`xyz` is not 64 lower-case hexadecimal digits");
    }
}
