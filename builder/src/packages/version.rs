//! Debian's order of versions.
//!
//! Source: Debian Policy 5.6.12, <https://www.debian.org/doc/debian-policy/ch-controlfields.html#version>. Forty lines; the crate
//! `debversion` was weighed, which brings parsers of dates, expressions and long numbers along.

use std::cmp::Ordering;

/// Compares two versions: by epoch, then upstream version, then revision.
#[must_use]
pub fn compare(one: &str, other: &str) -> Ordering {
    let pairs = parts(one).into_iter().zip(parts(other));
    pairs.map(|(one, other)| compare_part(one, other)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// Epoch, upstream version and revision; the first is 0 and the last empty where there is none.
fn parts(version: &str) -> [&[u8]; 3] {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    [epoch, upstream, revision].map(str::as_bytes)
}

/// Compares what is no number and what is one by turns, until either differs.
fn compare_part(mut one: &[u8], mut other: &[u8]) -> Ordering {
    while !(one.is_empty() && other.is_empty()) {
        let order = compare_text(cut(&mut one, false), cut(&mut other, false))
            .then_with(|| compare_number(cut(&mut one, true), cut(&mut other, true)));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Takes the longest start that has digits alone, or none.
fn cut<'a>(text: &mut &'a [u8], digits: bool) -> &'a [u8] {
    let end = text.iter().position(|byte| byte.is_ascii_digit() != digits).unwrap_or(text.len());
    let (start, rest) = text.split_at(end);
    *text = rest;
    start
}

/// `~` is before the end, letters are before everything else.
fn compare_text(one: &[u8], other: &[u8]) -> Ordering {
    let weight = |byte: Option<&u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    let weights = (0..one.len().max(other.len())).map(|at| (weight(one.get(at)), weight(other.get(at))));
    weights.map(|(one, other)| one.cmp(&other)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// Of any length: versions have dates and more in them.
fn compare_number(one: &[u8], other: &[u8]) -> Ordering {
    let plain = |digits: &[u8]| digits.iter().copied().skip_while(|digit| *digit == b'0').collect::<Vec<_>>();
    let (one, other) = (plain(one), plain(other));
    one.len().cmp(&other.len()).then_with(|| one.cmp(&other))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Each is before the next.
    const RISING: [&str; 22] = [
        "0",
        "1.0~~",
        "1.0~~a",
        "1.0~",
        "1.0~rc1-1",
        "1.0",
        "1.0-1~deb13u1",
        "1.0-1",
        "1.0-1+b1",
        "1.0-1+deb13u1",
        "1.0-2",
        "1.0-10",
        "1.0a-1",
        "1.0+dfsg-1",
        "1.0.1-1",
        "1.9",
        "1.10",
        "20240203-1",
        "99999999999999999999999",
        "1:0.1",
        "1:1-1-2",
        "2:0",
    ];

    #[test]
    fn versions_rise_as_debian_has_them() {
        for (at, one) in RISING.iter().enumerate() {
            for (other_at, other) in RISING.iter().enumerate() {
                assert_eq!(compare(one, other), at.cmp(&other_at), "{one} {other}");
            }
        }
    }

    #[test]
    fn zeros_and_what_is_left_out_do_not_count() {
        for (one, other) in [("1.0", "0:1.0-0"), ("1.01-1", "1.1-1"), ("1.0-", "1.0"), ("00:1", "1")] {
            assert_eq!(compare(one, other), Ordering::Equal, "{one} {other}");
        }
    }

    #[test]
    fn dpkg_agrees() {
        for pair in RISING.windows(2) {
            let dpkg = Command::new("dpkg").args(["--compare-versions", pair[0], "lt", pair[1]]).status();
            let Ok(status) = dpkg else {
                eprintln!("skipped: dpkg is not installed");
                return;
            };
            assert!(status.success(), "{pair:?}");
        }
    }
}
