//! The place of each value in the administrator's file, and keys that are there twice.

use super::Problem;
use crate::json::Json;

/// Characters of a value that a message shows.
const SHOWN_CHARACTERS: usize = 60;

/// A value with its place in the file.
#[derive(Clone, Debug)]
pub struct At<'a> {
    path: String,
    json: &'a Json,
}

impl<'a> At<'a> {
    /// The whole file.
    #[must_use]
    pub fn top(json: &'a Json) -> Self {
        Self { path: String::new(), json }
    }

    /// Says what is wrong with it.
    #[must_use]
    pub fn problem(&self, reason: impl Into<String>, fix: impl Into<String>) -> Problem {
        Problem {
            path: if self.path.is_empty() { "the file".to_owned() } else { self.path.clone() },
            found: show(self.json),
            reason: reason.into(),
            fix: fix.into(),
        }
    }

    /// Says that it lacks a key.
    #[must_use]
    pub fn lacks(&self, key: &str, reason: &str, fix: &str) -> Problem {
        let found = "missing".to_owned();
        Problem { path: self.key_path(key), found, reason: reason.to_owned(), fix: fix.to_owned() }
    }

    /// Its keys, if it is an object.
    ///
    /// # Errors
    /// It is something else.
    pub fn table(&self) -> Result<Vec<(&'a str, At<'a>)>, Problem> {
        let Json::Table(entries) = self.json else {
            return Err(self.problem("it has to be an object", "write it as {…}"));
        };
        let at = |key: &'a String, json| (key.as_str(), At { path: self.key_path(key), json });
        Ok(entries.iter().map(|(key, json)| at(key, json)).collect())
    }

    /// Its elements, if it is an array.
    ///
    /// # Errors
    /// It is something else.
    pub fn list(&self) -> Result<Vec<At<'a>>, Problem> {
        let Json::List(elements) = self.json else {
            return Err(self.problem("it has to be a list", "write it as […]"));
        };
        let at = |(index, json)| At { path: format!("{}[{index}]", self.path), json };
        Ok(elements.iter().enumerate().map(at).collect())
    }

    /// Its text, if it is a string.
    ///
    /// # Errors
    /// It is something else.
    pub fn text(&self) -> Result<&'a str, Problem> {
        match self.json {
            Json::Text(text) => Ok(text),
            _ => Err(self.problem("it has to be text", "write it in quotes")),
        }
    }

    /// Its value, if it is `true` or `false`.
    ///
    /// # Errors
    /// It is something else.
    pub fn switch(&self) -> Result<bool, Problem> {
        match self.json {
            Json::Switch(value) => Ok(*value),
            _ => Err(self.problem("it has to be true or false", "write true or false, without quotes")),
        }
    }

    /// Its value, if it is a whole number from `least` to `most`.
    ///
    /// # Errors
    /// It is something else.
    pub fn number(&self, least: u64, most: u64) -> Result<u64, Problem> {
        let number = match self.json {
            Json::Number(number) => number.as_u64(),
            _ => None,
        };
        number.filter(|number| (least..=most).contains(number)).ok_or_else(|| {
            self.problem(
                format!("it has to be a whole number from {least} to {most}"),
                "write such a number, without quotes",
            )
        })
    }

    /// Keys that are there twice in one object, in it and in all that is inside.
    pub fn duplicates(&self, found: &mut Vec<Problem>) {
        for (index, (key, at)) in self.table().unwrap_or_default().into_iter().enumerate() {
            let Json::Table(entries) = self.json else { continue };
            if entries.iter().take(index).any(|(earlier, _)| earlier == key) {
                found.push(at.problem("the key is there twice", "leave one of the two out"));
            }
            at.duplicates(found);
        }
        for at in self.list().unwrap_or_default() {
            at.duplicates(found);
        }
    }

    fn key_path(&self, key: &str) -> String {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        match (key.chars().all(is_plain) && !key.is_empty(), self.path.as_str()) {
            (true, "") => key.to_owned(),
            (true, path) => format!("{path}.{key}"),
            (false, path) => format!("{path}[{}]", cut(&format!("{key:?}"))),
        }
    }
}

/// The value for a message: on one line, cut short, without what could steer a terminal.
fn show(json: &Json) -> String {
    match json {
        Json::Null => "null".to_owned(),
        Json::Switch(value) => value.to_string(),
        Json::Number(number) => number.to_string(),
        Json::Text(text) => cut(&format!("{text:?}")),
        Json::List(elements) if elements.is_empty() => "[]".to_owned(),
        Json::List(elements) => format!("a list of {}", elements.len()),
        Json::Table(entries) if entries.is_empty() => "{}".to_owned(),
        Json::Table(entries) => format!("an object of {}", entries.len()),
    }
}

fn cut(text: &str) -> String {
    if text.chars().count() <= SHOWN_CHARACTERS {
        return text.to_owned();
    }
    text.chars().take(SHOWN_CHARACTERS).chain("…".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Json {
        serde_json::from_str(text).unwrap()
    }

    fn duplicates(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        At::top(&parse(text)).duplicates(&mut found);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_key_that_is_there_twice_is_found_at_any_depth() {
        let twice = "the key is there twice; leave one of the two out";
        assert_eq!(duplicates(r#"{"a": 1, "b": {"a": 2}}"#), [""; 0]);
        assert_eq!(duplicates(r#"{"a": 1, "a": 1}"#), [format!("`a` is 1: {twice}")]);
        assert_eq!(
            duplicates(r#"{"a": [0, {"b c": null, "d": 1, "b c": "x"}]}"#),
            [format!("`a[1][\"b c\"]` is \"x\": {twice}")]
        );
        // The same key, written in two ways.
        assert_eq!(duplicates(r#"{"a": 1, "\u0061": 2}"#), [format!("`a` is 2: {twice}")]);
    }

    #[test]
    fn values_of_the_wrong_kind_are_named_with_what_they_are() {
        let json = parse(r#"{"a": [true, "7", 7.5, -1, {}, null]}"#);
        let [(_, list)] = At::top(&json).table().unwrap().try_into().unwrap();
        let elements = list.list().unwrap();
        let said = |at: &At<'_>| at.number(0, 9).unwrap_err().to_string();
        assert!(said(&elements[1]).starts_with("`a[1]` is \"7\": it has to be a whole number from 0 to 9; "));
        assert!(said(&elements[2]).starts_with("`a[2]` is 7.5: "));
        assert!(said(&elements[3]).starts_with("`a[3]` is -1: "));
        assert!(elements[0].text().is_err() && elements[0].list().is_err() && elements[0].switch().unwrap());
        assert!(elements[4].switch().unwrap_err().to_string().starts_with("`a[4]` is {}: "));
        assert!(elements[5].table().unwrap_err().to_string().starts_with("`a[5]` is null: "));
    }

    #[test]
    fn a_message_is_short_and_steers_no_terminal() {
        let json = parse(
            r#"["\u001b[2J\u202e\n", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"]"#,
        );
        let elements = At::top(&json).list().unwrap();
        let said = elements[0].problem("r", "f").to_string();
        assert_eq!(said, "`[0]` is \"\\u{1b}[2J\\u{202e}\\n\": r; f");
        assert!(elements[1].problem("r", "f").to_string().chars().count() < SHOWN_CHARACTERS + 20);
    }
}
