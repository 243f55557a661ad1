//! Requests to the engine where the gate reads them: whatever is let through, in every way in which a reader might take it, makes no
//! volume of a folder and looks into no container unasked.

use std::fmt;

use eci_contract::socket::{CommandList, ListKind};
use eci_policy::Verdict;
use eci_policy::rules::engine_command::{Asked, Commands};
use eci_policy::rules::engine_mount::{Request, classify, judge_container, judge_volume};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Options of mount(2), as the engine's volumes take them, that a tmpfs may have.
const HARMLESS: [&str; 6] = ["ro", "rw", "nosuid", "nodev", "noexec", "noatime"];
/// Those with a value.
const SIZES: [&str; 5] = ["size", "mode", "uid", "gid", "nr_inodes"];

/// Judges `input`: a byte that says what it is, and the path or body.
///
/// # Panics
/// Something is let through that should not be.
pub fn check(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind {
        b'p' => check_path(&String::from_utf8_lossy(rest)),
        b'c' => check_command(&String::from_utf8_lossy(rest)),
        b'v' => check_body(rest, &judge_volume(rest), &["driveropts"]),
        _ => {
            let verdict = judge_container(rest);
            for keys in [&["hostconfig", "mounts"][..], &["mounts"]] {
                let options = [keys, &["", "volumeoptions", "driverconfig", "options"]].concat();
                check_body(rest, &verdict, &options);
                check_targets(rest, &verdict, &[keys, &["", "target"]].concat());
            }
        }
    }
}

/// However it is written, what the engine's router would take for a push is one.
fn check_command(path: &str) {
    let asked = Asked { method: "POST", decoded: path, pulls: true, shown: path };
    let list = |kind, name: &str| Commands::new(&CommandList { kind, commands: vec![name.to_owned()] });
    let mut clean = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(clean.pop()),
            part => clean.push(part),
        }
    }
    let is_version = |part: &&str| {
        part.strip_prefix('v').is_some_and(|rest| rest.chars().all(|c| c == '.' || c.is_ascii_digit()))
    };
    let parts = if clean.first().is_some_and(is_version) { &clean[1..] } else { &clean[..] };
    let pushes = parts.len() >= 3 && parts.first() == Some(&"images") && parts.last() == Some(&"push");
    if pushes {
        assert_ne!(list(ListKind::Deny, "push").judge(asked), Verdict::Allow, "{path:?}");
    } else {
        assert_ne!(list(ListKind::Allow, "push").judge(asked), Verdict::Allow, "{path:?}");
    }
}

/// The engine's router takes a version of digits and dots, or none.
fn check_path(path: &str) {
    let request = classify(path);
    let mut paths = vec![path];
    if let Some((version, _)) = path.strip_prefix("/v").and_then(|rest| rest.split_once('/')) {
        let is_version = version.chars().all(|c| c == '.' || c.is_ascii_digit());
        paths.extend(path.get(2 + version.len()..).filter(|_| is_version && !version.is_empty()));
    }
    for path in paths {
        match path {
            "/volumes/create" => assert_eq!(request, Request::MakesVolume),
            "/containers/create" => assert_eq!(request, Request::MakesContainer),
            _ if path.starts_with("/containers/") && path.ends_with("/archive") && path.len() >= 20 => {
                assert_ne!(request, Request::Plain, "{path}");
            }
            _ => {
                let makes = ["/plugins/", "/services/", "/swarm/init", "/swarm/join"];
                if makes.iter().any(|start| path.starts_with(start)) {
                    assert!(matches!(&request, Request::Refused(_)), "{path}: {request:?}");
                }
            }
        }
    }
    if let Request::LooksInto(name) = request {
        assert!(
            !name.is_empty() && !name.contains(['/', '%', '?', '\0']) && !name.starts_with('.'),
            "{name}"
        );
    }
}

fn check_body(body: &[u8], verdict: &Verdict, keys: &[&str]) {
    if *verdict != Verdict::Allow {
        return;
    }
    let all: All = serde_json::from_slice(body).expect("what is let through is JSON");
    all.each(keys, &mut |options| match options {
        All::Table(entries) => check_options(entries),
        All::Null => {}
        _ => panic!("options that are none"),
    });
}

/// Nothing is mounted at the three files that the engine would bind by name.
fn check_targets(body: &[u8], verdict: &Verdict, keys: &[&str]) {
    if *verdict != Verdict::Allow {
        return;
    }
    let all: All = serde_json::from_slice(body).expect("what is let through is JSON");
    all.each(keys, &mut |target| {
        if let All::Text(target) = target {
            let file = std::path::Path::new(target).file_name().and_then(|name| name.to_str());
            let plain = !target.contains("..") && !target.contains("//") && !target.contains("/./");
            let is_there = ["hosts", "hostname", "resolv.conf"].iter().any(|name| file == Some(name));
            assert!(
                !(plain
                    && is_there
                    && target
                        .trim_end_matches('/')
                        .rsplit_once('/')
                        .is_some_and(|(folder, _)| folder == "/etc")),
                "{target}"
            );
        }
    });
}

fn check_options(entries: &[(String, All)]) {
    for (key, value) in entries {
        let All::Text(value) = value else { panic!("{key} is no text") };
        match key.as_str() {
            "type" => assert_eq!(value, "tmpfs"),
            "device" => assert!(["tmpfs", "none", ""].contains(&value.as_str()), "{value}"),
            "o" => {
                for option in value.split(',').filter(|_| !value.is_empty()) {
                    let sized = option.split_once('=').is_some_and(|(name, _)| SIZES.contains(&name));
                    assert!(sized || HARMLESS.contains(&option), "{option}");
                }
            }
            _ => panic!("{key} is an option"),
        }
    }
    assert!(entries.is_empty() || entries.iter().any(|(key, _)| key == "type"), "a volume without a type");
}

/// JSON with all its entries, those that are there twice as well.
enum All {
    Null,
    Text(String),
    List(Vec<All>),
    Table(Vec<(String, All)>),
    Other,
}

impl All {
    /// Calls `judge` with every value that some reader could find by these keys, in any case; an empty one is each element of a list.
    fn each(&self, keys: &[&str], judge: &mut impl FnMut(&All)) {
        let Some((key, rest)) = keys.split_first() else { return judge(self) };
        match self {
            Self::List(elements) if key.is_empty() => {
                elements.iter().for_each(|element| element.each(rest, judge));
            }
            Self::Table(entries) => {
                let folded = |name: &str| name.to_lowercase().replace('\u{17f}', "s");
                let found: Vec<_> = entries.iter().filter(|(name, _)| folded(name) == *key).collect();
                assert!(found.len() < 2, "`{key}` is there twice");
                found.iter().for_each(|(_, value)| value.each(rest, judge));
            }
            Self::Null | Self::Text(_) | Self::List(_) | Self::Other => {}
        }
    }
}

impl<'de> Deserialize<'de> for All {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = All;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<All, E> {
        Ok(All::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<All, E> {
        Ok(All::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<All, E> {
        Ok(All::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<All, E> {
        Ok(All::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<All, E> {
        Ok(All::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<All, E> {
        Ok(All::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<All, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            list.push(element);
        }
        Ok(All::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<All, A::Error> {
        let mut table = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            table.push(entry);
        }
        Ok(All::Table(table))
    }
}
