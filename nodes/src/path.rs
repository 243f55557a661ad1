//! A path, split at its last name: the folder is looked up as the caller, the name is used once, by `mknodat`.

/// Bytes of the longest path that the kernel takes, with its NUL.
pub const MAX_BYTES: usize = 4096;

/// The folder that a node is made in, and its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split<'a> {
    /// The folder.
    pub folder: &'a [u8],
    /// The last name, with the slashes behind it: the kernel has its own answers to those, and to `.` and `..`. No slash
    /// stands before another byte, so that it names something in the folder or nothing.
    pub name: &'a [u8],
}

/// Splits `path`, which is not empty and has no NUL.
#[must_use]
pub fn split(path: &[u8]) -> Split<'_> {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let begin = path.iter().take(end).rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (folder, name) = path.split_at(begin);
    match (folder, end) {
        // Nothing but slashes: the root, which is there already.
        (_, 0) => Split { folder: b"/", name: b"." },
        ([], _) => Split { folder: b".", name },
        _ => Split { folder, name },
    }
}

/// Whether `path` starts at the root.
#[must_use]
pub fn is_absolute(path: &[u8]) -> bool {
    path.first() == Some(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_split_at_its_last_name() {
        for (path, folder, name) in [
            ("/dev/null", "/dev/", "null"),
            ("null", ".", "null"),
            ("a//b", "a//", "b"),
            ("/null", "/", "null"),
            ("a/b//", "a/", "b//"),
            ("a/..", "a/", ".."),
            (".", ".", "."),
            ("///", "/", "."),
            ("../x", "../", "x"),
        ] {
            let split = split(path.as_bytes());
            assert_eq!((split.folder, split.name), (folder.as_bytes(), name.as_bytes()), "{path}");
        }
    }

    #[test]
    fn a_path_without_a_slash_in_front_is_relative() {
        assert!(is_absolute(b"/x") && !is_absolute(b"x/") && !is_absolute(b""));
    }
}
