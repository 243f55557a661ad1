//! A resolved kernel configuration, and whether everything that was asked for survived in it.

use std::collections::BTreeMap;
use std::fmt;

use super::fragments::{Place, Request};

/// A `.config` after `olddefconfig`: options that are set, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    values: BTreeMap<String, String>,
}

impl Config {
    /// Reads a `.config`. Lines that set nothing are passed over: the kernel's own tools wrote it.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let set =
            text.lines().filter(|line| line.starts_with("CONFIG_")).filter_map(|line| line.split_once('='));
        Self { values: set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
    }

    /// The value of an option; `n` when it is not set.
    #[must_use]
    pub fn get(&self, option: &str) -> &str {
        self.values.get(option).map_or("n", String::as_str)
    }

    /// The value of an option that is a string, without its quotes; `None` when it is not set.
    #[must_use]
    pub fn text(&self, option: &str) -> Option<String> {
        let quoted = self.values.get(option)?.strip_prefix('"')?.strip_suffix('"')?;
        Some(quoted.replace("\\\"", "\"").replace("\\\\", "\\"))
    }

    /// Options that are set, with their values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The requests whose value is not the one that was asked for.
    #[must_use]
    pub fn lost(&self, requests: &[Request]) -> Vec<Lost> {
        requests
            .iter()
            .filter(|request| self.get(&request.option) != request.value)
            .map(|request| Lost {
                option: request.option.clone(),
                asked: request.value.clone(),
                got: self.get(&request.option).to_owned(),
                place: request.place.clone(),
            })
            .collect()
    }
}

/// An option that did not get the value that a fragment asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Name of the option.
    pub option: String,
    /// Value that was asked for.
    pub asked: String,
    /// Value in the resolved configuration.
    pub got: String,
    /// Where it was asked for.
    pub place: Place,
}

impl fmt::Display for Lost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={}, got {} ({})", self.option, self.asked, self.got, self.place)
    }
}

/// The option that a line of a configuration speaks of: `CONFIG_A=…` or `# CONFIG_A is not set`.
pub(super) fn option_of(line: &str) -> Option<&str> {
    let unset = line.strip_prefix("# ").and_then(|line| line.strip_suffix(" is not set"));
    let name = unset.or_else(|| line.split_once('=').map(|(name, _)| name))?;
    name.starts_with("CONFIG_").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::super::fragments::Fragments;
    use super::*;

    #[test]
    fn lists_every_request_that_was_lost() {
        let text = "# why: x\nCONFIG_A=y\nCONFIG_B=n\nCONFIG_C=64\nCONFIG_D=\"a b\"\n".to_owned();
        let fragments = Fragments::parse(vec![("f".to_owned(), text)]).expect("sound");
        let good =
            Config::parse("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=64\nCONFIG_D=\"a b\"\nCONFIG_E=y\n");
        assert_eq!(good.lost(fragments.requests()), []);
        let bad = Config::parse("# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_C=32\nCONFIG_D=\"a b\"\n");
        let lost: Vec<_> = bad.lost(fragments.requests()).iter().map(ToString::to_string).collect();
        assert_eq!(lost, ["CONFIG_A=y, got n (f:2)", "CONFIG_B=n, got y (f:3)", "CONFIG_C=64, got 32 (f:4)"]);
    }

    #[test]
    fn a_text_is_given_without_its_quotes() {
        let config = Config::parse("CONFIG_A=\"a \\\"b\\\"\"\nCONFIG_B=y\n");
        assert_eq!(config.text("CONFIG_A").as_deref(), Some("a \"b\""));
        assert_eq!(config.text("CONFIG_B"), None);
        assert_eq!(config.text("CONFIG_C"), None);
    }

    #[test]
    fn names_the_option_of_a_line() {
        assert_eq!(option_of("CONFIG_A=\"x=y\""), Some("CONFIG_A"));
        assert_eq!(option_of("# CONFIG_A is not set"), Some("CONFIG_A"));
        assert_eq!(option_of("# A comment = prose"), None);
    }
}
