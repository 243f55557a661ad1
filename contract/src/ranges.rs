//! Id ranges in use: what the runtime keeps of them in [`crate::paths::RANGES_DIR`], and what a host is told.
//!
//! A range in use is a file there, named after the first id of the VM that belongs to it. Its lines are the ids of the containers of
//! that user namespace (`runtime/src/ranges.rs` writes them).

use serde::{Deserialize, Serialize};

/// A range of the VM's ids, and who has it: a line of JSON each after the reply to [`crate::link::Request::Ranges`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The id that the root of these containers has in the VM.
    pub first: u32,
    /// How many ids belong to it.
    pub count: u32,
    /// Ids of the containers, as the engine has them. More than one where they share a user namespace.
    pub containers: Vec<String>,
}

impl IdRange {
    /// What a file of the folder says. None for what is no range: the lock, the cursor, what is being written.
    #[must_use]
    pub fn from_file(name: &str, text: &str, count: u32) -> Option<Self> {
        let first = name.parse().ok()?;
        let containers = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        Some(Self { first, count, containers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_named_after_a_number_is_a_range_and_no_other_is() {
        let range = IdRange::from_file("165536", "one\n\ntwo", 65_536).expect("a range");
        let expected =
            IdRange { first: 165_536, count: 65_536, containers: vec!["one".into(), "two".into()] };
        assert_eq!(range, expected);
        for name in ["lock", "cursor", "new", "-1", "4294967296", ""] {
            assert_eq!(IdRange::from_file(name, "one", 65_536), None, "{name}");
        }
    }
}
