//! The audit log, followed for as long as the dashboard runs: the last refusals, and how often each rule refused.
//!
//! Followed and not read anew: the log has up to 2 MiB, and the page asks every other second.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use eci_contract::audit::Denial;
use eci_contract::errors::chain;
use serde::Serialize;

use super::data::{Part, cut};
use crate::instance::client;
use crate::instance::home::Home;

/// How many refusals the page shows.
const MOST_SHOWN: usize = 50;
/// Most rules that are counted by name; the policy has some forty. What a VM makes up beyond that is [`OTHERS`].
const MOST_RULES: usize = 100;
/// Stands for the rules beyond [`MOST_RULES`].
const OTHERS: &str = "(others)";
/// Longest line in bytes. The log cuts messages at 2,000 characters, each of six bytes of JSON at most.
const MAX_LINE_BYTES: u64 = 32 * 1024;
/// Pause before a log that ended is asked for again.
const PAUSE: Duration = Duration::from_secs(2);

/// What the log says.
#[derive(Debug, Default, Serialize)]
pub struct Denials {
    /// The last ones, newest first.
    last: VecDeque<Denial>,
    /// How often each rule refused, as far as the log goes back.
    #[serde(serialize_with = "as_list")]
    rules: BTreeMap<String, Count>,
    /// Lines that are no refusal that this version knows.
    not_understood: u64,
}

#[derive(Clone, Debug, Default)]
struct Count {
    count: u64,
    last: String,
}

impl Denials {
    /// Takes in the log's next line.
    fn add(&mut self, line: &[u8]) {
        let Ok(denial) = serde_json::from_slice::<Denial>(line) else {
            self.not_understood += 1;
            return;
        };
        let denial = shortened(denial);
        let known = self.rules.len() < MOST_RULES || self.rules.contains_key(&denial.rule);
        let rule = if known { denial.rule.clone() } else { OTHERS.to_owned() };
        let counted = self.rules.entry(rule).or_default();
        counted.count += 1;
        counted.last.clone_from(&denial.time);
        self.last.push_front(denial);
        self.last.truncate(MOST_SHOWN);
    }
}

/// The log of one instance, read by a thread of its own.
#[derive(Clone)]
pub struct Log(Arc<Mutex<Part<Denials>>>);

impl Log {
    /// Follows the log of this instance from now on, over its restarts.
    #[must_use]
    pub fn follow(home: Home) -> Self {
        let log = Self(Arc::new(Mutex::new(Part::Missing("the log is not read yet".to_owned()))));
        let reader = log.clone();
        thread::spawn(move || {
            loop {
                let why = reader.read(&home);
                reader.change(|part| *part = Part::Missing(why));
                thread::sleep(PAUSE);
            }
        });
        log
    }

    /// What it says now, as JSON.
    #[must_use]
    pub fn now(&self) -> serde_json::Value {
        let part = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::to_value(&*part).expect("refusals have only text and numbers")
    }

    /// Reads to the end of the connection, and gives why that came.
    fn read(&self, home: &Home) -> String {
        let mut lines = match client::audit(home, true) {
            Ok(lines) => lines,
            Err(error) => return chain(&error),
        };
        self.change(|part| *part = Part::Found(Denials::default()));
        loop {
            let mut line = Vec::new();
            match lines.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
                Ok(0) => return "the VM ended the log".to_owned(),
                Ok(_) => self.change(|part| {
                    if let Part::Found(denials) = part {
                        denials.add(&line);
                    }
                }),
                Err(error) => return error.to_string(),
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Part<Denials>)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn shortened(mut denial: Denial) -> Denial {
    let Denial { time, by, action, container, rule, message, remedy, image, .. } = &mut denial;
    for text in [time, by, action, container, rule, message, remedy].into_iter().chain(image) {
        cut(text);
    }
    denial
}

/// As objects: a rule's name is data, and no key of a document.
fn as_list<S: serde::Serializer>(rules: &BTreeMap<String, Count>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Rule<'a> {
        rule: &'a str,
        count: u64,
        last: &'a str,
    }
    let list = rules.iter().map(|(rule, counted)| Rule { rule, count: counted.count, last: &counted.last });
    serializer.collect_seq(list)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn line(time: &str, rule: &str, message: &str) -> Vec<u8> {
        let line = json!({
            "version": 1, "time": time, "by": "eci-runc", "action": "create", "container": "0123", "rule": rule,
            "message": message, "remedy": "leave it out",
        });
        line.to_string().into_bytes()
    }

    fn after(lines: impl IntoIterator<Item = Vec<u8>>) -> Value {
        let mut denials = Denials::default();
        lines.into_iter().for_each(|line| denials.add(&line));
        serde_json::to_value(&denials).expect("JSON")
    }

    #[test]
    fn the_newest_is_first_and_each_rule_is_counted() {
        let told =
            after([line("1", "a", "x"), line("2", "b", "y"), line("3", "a", "z"), b"half a li".to_vec()]);
        assert_eq!(told["last"][0]["message"], "z");
        assert_eq!(told["last"][2]["message"], "x");
        let rules = json!([{"rule": "a", "count": 2, "last": "3"}, {"rule": "b", "count": 1, "last": "2"}]);
        assert_eq!(told["rules"], rules);
        assert_eq!(told["not_understood"], 1);
    }

    #[test]
    fn whatever_a_vm_makes_up_has_bounds() {
        let told = after((0..500).map(|number| line("1", &format!("rule-{number}"), &"x".repeat(100_000))));
        assert_eq!(told["last"].as_array().map(Vec::len), Some(MOST_SHOWN));
        assert_eq!(told["rules"].as_array().map(Vec::len), Some(MOST_RULES + 1));
        assert_eq!(told["rules"][0], json!({"rule": OTHERS, "count": 400, "last": "1"}));
        assert!(told.to_string().len() < 200_000, "{}", told.to_string().len());
    }
}
