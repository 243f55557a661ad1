//! Whether two doors said the same. What differs from one question to the next, asked at one door, is in the tables of this file, each
//! with why; nothing else is overlooked.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::exchange::{Answer, Talk};

/// Headers that are not compared, and why.
const HEADERS: &[(&str, &str)] = &[("date", "when it was said")];

/// Keys of JSON whose values are not compared, and why. Their kind is.
const KEYS: &[(&str, &str)] = &[
    ("Created", "when it was made"),
    ("created", "the same in an image's configuration"),
    ("CreatedAt", "the same of a volume or a record of builds"),
    ("StartedAt", "when it was started"),
    ("FinishedAt", "when it ended"),
    ("SystemTime", "when it was asked"),
    ("LastTagTime", "when it was tagged"),
    ("LastUsedAt", "when it was used"),
    ("read", "when it was measured"),
    ("preread", "the same"),
    ("time", "when it happened"),
    ("timeNano", "the same"),
    ("mtime", "when a file was changed"),
    ("Pid", "the kernel's choice"),
    ("NFd", "open now"),
    ("NGoroutines", "at work now"),
    ("NEventsListener", "who listens now"),
    ("MacAddress", "by the address"),
    ("IPAddress", "the next one that is free"),
    ("IPv4Address", "the same"),
    ("Subnet", "the next one that is free"),
    ("Gateway", "the same"),
    ("SandboxKey", "by the sandbox's id"),
    ("cpu_stats", "measured"),
    ("precpu_stats", "measured"),
    ("memstats", "measured"),
    ("memory_stats", "measured"),
    ("pids_stats", "measured"),
    ("blkio_stats", "measured"),
    ("networks", "measured"),
    ("Status", "how long ago, in words; `running` and the like are the value of `State` as well"),
    ("Processes", "numbers and times of processes"),
    ("SharedSize", "a number of bytes that is reckoned anew"),
];

/// What numbers follow that are not compared, and why.
const NUMBERED: &[(&str, &str)] = &[
    ("docker-import-", "a folder for a moment, named by chance"),
    ("/proc/self/fd/", "the next descriptor that is free"),
];

/// A talk as it is compared: a line a fact.
pub fn told(talk: &Talk, own: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for answer in &talk.answers {
        lines.push(answer.line.clone());
        lines.extend(headers(answer, own));
        lines.extend(body(answer, own));
    }
    lines.push(format!("then: {:?}", talk.end));
    lines
}

fn headers(answer: &Answer, own: &str) -> Vec<String> {
    let compared =
        |(name, _): &&(String, String)| !HEADERS.iter().any(|(known, _)| name.eq_ignore_ascii_case(known));
    let mut lines: Vec<_> = answer
        .headers
        .iter()
        .filter(compared)
        .map(|(name, value)| {
            // Case means nothing in a name. That a length is the body's is what the reader goes by.
            let value = match name.to_ascii_lowercase().as_str() {
                "content-length" if !answer.body.is_empty() => "the body's".to_owned(),
                "x-docker-container-path-stat" => stat(value, own),
                _ => anonymous(value, own),
            };
            format!("  {}: {value}", name.to_ascii_lowercase())
        })
        .collect();
    // Their order means nothing.
    lines.sort();
    lines
}

/// What the engine says of a file is JSON in base64.
fn stat(value: &str, own: &str) -> String {
    let json = STANDARD.decode(value).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    json.map_or_else(|| value.to_owned(), |json| alike(&json, own).to_string())
}

/// A body as it is compared.
pub fn body(answer: &Answer, own: &str) -> Vec<String> {
    if answer.body.is_empty() {
        return Vec::new();
    }
    if answer.header("content-type").is_some_and(|kind| kind == "application/x-tar") {
        return files(&answer.body, own);
    }
    let text = String::from_utf8_lossy(&answer.body);
    if let Ok(json) = serde_json::from_str::<Value>(&text) {
        return vec![alike(&json, own).to_string()];
    }
    let line = |line: &str| match serde_json::from_str::<Value>(line) {
        Ok(json) => alike(&json, own).to_string(),
        Err(_) => anonymous(line, own),
    };
    text.lines().map(line).collect()
}

/// Names, kinds and lengths of an archive's files: it is made anew each time.
fn files(bytes: &[u8], own: &str) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    let Ok(entries) = archive.entries() else { return vec!["no archive".to_owned()] };
    let mut lines: Vec<_> = entries
        .map(|entry| match entry {
            Ok(entry) => {
                let path = entry.path().map(|path| path.display().to_string()).unwrap_or_default();
                format!("{:?} {} {}", entry.header().entry_type(), anonymous(&path, own), entry.size())
            }
            Err(error) => format!("no archive: {error}"),
        })
        .collect();
    lines.sort();
    lines
}

fn alike(json: &Value, own: &str) -> Value {
    match json {
        Value::Object(entries) => Value::Object(
            entries
                .iter()
                .map(|(key, value)| {
                    let value = if KEYS.iter().any(|(known, _)| known == key) {
                        kind(value)
                    } else {
                        alike(value, own)
                    };
                    (anonymous(key, own), value)
                })
                .collect(),
        ),
        // Go's maps, which many lists are made of, have another order each time.
        Value::Array(elements) => {
            let mut elements: Vec<_> = elements.iter().map(|element| alike(element, own)).collect();
            elements.sort_by_cached_key(Value::to_string);
            Value::Array(elements)
        }
        Value::String(text) => Value::String(anonymous(text, own)),
        other => other.clone(),
    }
}

/// What kind of thing a value that is not compared is.
fn kind(value: &Value) -> Value {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    };
    Value::String(format!("<{kind}>"))
}

/// Without ids, times and the name that is a door's own.
fn anonymous(text: &str, own: &str) -> String {
    let mut text = text.replace(own, "OWN");
    for (before, _) in NUMBERED {
        if let Some((start, end)) = text.split_once(before) {
            text =
                format!("{start}{before}N{}", end.trim_start_matches(|letter: char| letter.is_ascii_digit()));
        }
    }
    let mut parts = String::new();
    let mut run = String::new();
    for letter in text.chars().chain(['\0']) {
        if letter.is_ascii_hexdigit() && !letter.is_ascii_uppercase() {
            run.push(letter);
            continue;
        }
        // As long as the engine's ids are, whole or short.
        if [12, 32, 64].contains(&run.len()) && run.bytes().any(|byte| byte.is_ascii_digit()) {
            parts.push_str("ID");
        } else {
            parts.push_str(&run);
        }
        run.clear();
        if letter != '\0' {
            parts.push(letter);
        }
    }
    parts
}
