//! Which processors a container may use: `/proc/cpuinfo` and `/sys/devices/system/cpu/online`.
//!
//! A limit on processor time (`--cpus 1.5`) counts as so many processors, rounded up: the first ones of its set.

use std::fmt::Write;

/// Numbers of processors, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus(pub Vec<u32>);

impl Cpus {
    /// Reads a list as the kernel writes it, such as `0-3,7`; `None` when it is none, or empty.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = Vec::new();
        for part in text.trim().split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            // Linux has at most 8,192 (`CONFIG_NR_CPUS`).
            numbers.extend((first..=last).take(8192));
        }
        (!numbers.is_empty()).then_some(Self(numbers))
    }

    /// The first `most` of them, at least one.
    #[must_use]
    pub fn limited_to(mut self, most: Option<u64>) -> Self {
        let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        self.0.truncate(most.max(1));
        self
    }

    /// The list as the kernel writes it, with a line end.
    #[must_use]
    pub fn to_list(&self) -> String {
        let mut text = String::new();
        for part in self.0.chunk_by(|one, next| one + 1 == *next) {
            let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
            let comma = if text.is_empty() { "" } else { "," };
            // Writing to a string cannot fail.
            let _written = if first == last {
                write!(text, "{comma}{first}")
            } else {
                write!(text, "{comma}{first}-{last}")
            };
        }
        text + "\n"
    }

    /// The paragraphs of the VM's `/proc/cpuinfo` that are about them.
    #[must_use]
    pub fn cpuinfo(&self, machine: &str) -> String {
        let is_theirs = |paragraph: &&str| {
            let mut words = paragraph.lines().next().unwrap_or_default().split_whitespace();
            let number = (words.next() == Some("processor")).then(|| words.nth(1)).flatten();
            number.and_then(|number| number.parse().ok()).is_some_and(|number| self.0.contains(&number))
        };
        machine.split_inclusive("\n\n").filter(is_theirs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPUINFO: &str = "processor\t: 0\nflags\t\t: a b\n\nprocessor\t: 1\nflags\t\t: a b\n\nprocessor\t: 10\nflags\t\t: a\n\n";

    #[test]
    fn lists_are_read_and_written_as_the_kernel_does() {
        for (text, numbers) in
            [("0\n", vec![0]), ("0-1", vec![0, 1]), ("0-2,4,6-7\n", vec![0, 1, 2, 4, 6, 7])]
        {
            let cpus = Cpus::parse(text).unwrap();
            assert_eq!(cpus.0, numbers);
            assert_eq!(cpus.to_list().trim(), text.trim());
        }
        for text in ["", "\n", "x", "1-", "3-1", "-1"] {
            assert_eq!(Cpus::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_limit_on_time_takes_the_first_and_never_all() {
        let cpus = || Cpus(vec![2, 3, 5]);
        for (most, left) in
            [(None, "2-3,5\n"), (Some(9), "2-3,5\n"), (Some(2), "2-3\n"), (Some(1), "2\n"), (Some(0), "2\n")]
        {
            assert_eq!(cpus().limited_to(most).to_list(), left);
        }
    }

    #[test]
    fn cpuinfo_has_their_paragraphs_and_no_other() {
        assert_eq!(Cpus(vec![0, 1, 10]).cpuinfo(CPUINFO), CPUINFO);
        assert_eq!(Cpus(vec![1]).cpuinfo(CPUINFO), "processor\t: 1\nflags\t\t: a b\n\n");
        assert_eq!(Cpus(vec![7]).cpuinfo(CPUINFO), "");
    }
}
