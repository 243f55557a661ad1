//! The calls that are made at each door: every family of the engine's API, well and badly asked.
//!
//! `@` in a call stands for a word of the door's own, as long as the others', so that each door has objects of its own and answers
//! of one length; `{name}` for what an earlier answer gave.

use super::doors::Door;
use super::exchange::Step;

/// Characters of a request that a failure shows.
const SHOWN: usize = 400;

/// What a call is expected to come to at a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// What the engine says.
    Same,
    /// What the engine says to this, which means the same.
    As(&'static str),
    /// An answer with this status, whatever the engine says; and why.
    Done(u16, &'static str),
    /// A refusal with this status, whose message has these words: a rule of the gate's.
    Refused(u16, &'static str),
    /// What the engine says, but for these lines of it and these in their place, and why.
    But(&'static [&'static str], &'static [&'static str], &'static str),
}

/// A call.
#[derive(Clone, Debug)]
pub struct Call {
    /// What is done.
    pub steps: Vec<Step>,
    /// Asked by HEAD.
    pub is_head: bool,
    /// Where something else is expected than what the engine says.
    pub expected: Vec<(Door, Expected)>,
    /// What an `Id` in the answer is called from then on.
    pub keeps: Option<&'static str>,
    /// Made on a connection of its own, not on the one that the call before was made on.
    pub is_first: bool,
    /// Made at one door after the other: the engine does one of its kind at a time.
    pub is_alone: bool,
    /// Asked at each door as often as it says something else than that, for what takes its time.
    pub until: Option<&'static str>,
}

impl Call {
    /// With an answer that only some doors give.
    pub fn at(mut self, door: Door, expected: Expected) -> Self {
        self.expected.push((door, expected));
        self
    }

    /// Keeps the `Id` of the answer.
    pub fn keeps(mut self, name: &'static str) -> Self {
        self.keeps = Some(name);
        self
    }

    /// With other steps after what is sent.
    pub fn then(mut self, steps: &[Step]) -> Self {
        self.steps.truncate(1);
        self.steps.extend_from_slice(steps);
        self
    }

    /// At one door after the other.
    pub fn alone(mut self) -> Self {
        self.is_alone = true;
        self
    }

    /// On a connection of its own.
    pub fn first(mut self) -> Self {
        self.is_first = true;
        self
    }

    /// Asked again until the answer has these words.
    pub fn until(mut self, words: &'static str) -> Self {
        self.until = Some(words);
        self
    }
}

/// What is shown of what is done: the beginning of what is sent.
pub fn shown(steps: &[Step]) -> String {
    let bytes = steps.iter().find_map(|step| match step {
        Step::Send(bytes) | Step::Slowly(bytes, ..) => Some(bytes.as_slice()),
        _ => None,
    });
    let text = String::from_utf8_lossy(bytes.unwrap_or_default());
    text.chars().take(SHOWN).collect::<String>().escape_debug().to_string()
}

/// These bytes, as they are.
pub fn raw(bytes: impl AsRef<[u8]>) -> Call {
    let bytes = bytes.as_ref();
    Call {
        is_head: bytes.starts_with(b"HEAD "),
        steps: vec![Step::Send(bytes.to_vec()), Step::Answers(1), Step::Ping],
        expected: Vec::new(),
        keeps: None,
        is_first: true,
        is_alone: false,
        until: None,
    }
}

/// A request with these headers, a line each, and this body.
pub fn ask(method: &str, target: &str, headers: &str, body: &str) -> Call {
    let length = if body.is_empty() && ["GET", "HEAD", "DELETE", "OPTIONS"].contains(&method) {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let headers: String = headers.lines().map(|line| format!("{line}\r\n")).collect();
    let bytes = format!("{method} {target} HTTP/1.1\r\nHost: d\r\n{length}{headers}\r\n{body}");
    Call { is_first: false, ..raw(bytes) }
}

/// By GET.
pub fn get(target: &str) -> Call {
    ask("GET", target, "", "")
}

/// By HEAD.
pub fn head(target: &str) -> Call {
    ask("HEAD", target, "", "")
}

/// By DELETE.
pub fn delete(target: &str) -> Call {
    ask("DELETE", target, "", "")
}

/// By POST, with JSON or nothing.
pub fn post(target: &str, json: &str) -> Call {
    ask("POST", target, "Content-Type: application/json", json)
}
