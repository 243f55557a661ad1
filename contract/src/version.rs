//! The order of image versions, where one is the least that may be booted.

use std::cmp::Ordering;

/// A version of dotted whole numbers, such as `1.12.0`; zeros at the end do not count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(Vec<u64>);

impl Version {
    /// Reads it; `None` for anything but whole numbers with dots between them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let number = |part: &str| is_number(part).then(|| part.parse().ok()).flatten();
        let mut parts = text.split('.').map(number).collect::<Option<Vec<u64>>>()?;
        while parts.last() == Some(&0) {
            parts.pop();
        }
        Some(Self(parts))
    }
}

/// Whether `version` is `minimum` or later. What is not a version of numbers has no order, and is not.
#[must_use]
pub fn is_at_least(version: &str, minimum: &str) -> bool {
    match (Version::parse(version), Version::parse(minimum)) {
        (Some(version), Some(minimum)) => version.cmp(&minimum) != Ordering::Less,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_as_numbers() {
        assert!(is_at_least("0.10", "0.9") && is_at_least("1.0.0", "1") && is_at_least("1", "1.0"));
        assert!(!is_at_least("0.9.9", "0.10") && !is_at_least("1", "1.0.1"));
    }

    #[test]
    fn what_has_no_order_is_never_late_enough() {
        for text in ["", "1.", ".1", "1.x", "+1", "-1", "1.0-rc1", "99999999999999999999"] {
            assert!(!is_at_least(text, "0"), "{text}");
            assert!(!is_at_least("1", text), "{text}");
        }
    }
}
