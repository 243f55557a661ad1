//! `/proc/self/mountinfo`, as proc_pid_mountinfo(5) describes it.

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Mount id, as `statx` gives it for anything opened there.
    pub id: u64,
    /// `major:minor` of the file system.
    pub device: String,
    /// The part of the file system that is mounted.
    pub root: String,
    /// Where it is mounted.
    pub mount_point: String,
    /// File system type.
    pub filesystem: String,
    /// What is mounted: a device, or a name.
    pub source: String,
    /// Options of the file system, not of the mount.
    pub options: String,
}

/// Reads the whole table; a line that is not understood is left out, and with it everything mounted there.
#[must_use]
pub fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let id = left.next()?.parse().ok()?;
    let device = left.nth(1)?.to_owned();
    let (root, mount_point) = (unescape(left.next()?), unescape(left.next()?));
    let mut right = right.split(' ');
    let filesystem = right.next()?.to_owned();
    let source = unescape(right.next().unwrap_or_default());
    let options = unescape(right.next().unwrap_or_default());
    Some(Mount { id, device, root, mount_point, filesystem, source, options })
}

/// Undoes the kernel's octal escapes of space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|digits| digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        let code = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code.filter(|_| first == b'\\') {
            Some(byte) => {
                plain.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_read() {
        let line = r"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let mount = parse(line).remove(0);
        assert_eq!((mount.id, mount.device.as_str(), mount.root.as_str()), (36, "98:0", "/mnt1"));
        assert_eq!((mount.mount_point.as_str(), mount.filesystem.as_str()), ("/mnt 2", "ext3"));
        assert_eq!(mount.options, "rw,errors=continue");
    }

    #[test]
    fn only_octal_digits_are_an_escape() {
        assert_eq!(unescape(r"a\134b\040"), r"a\b ");
        for text in [r"\+12", r"\08x", r"\12", r"\400", r"\"] {
            assert_eq!(unescape(text), text);
        }
    }

    #[test]
    fn a_line_without_the_separator_is_left_out() {
        assert!(parse("36 35 98:0 / / rw ext3 /dev/root rw").is_empty());
    }
}
