//! The administrator's settings: whatever a file says, isolation is on, and dockerd gets nothing else than the table has.

use std::net::IpAddr;

use eci_contract::socket::ListKind;
use eci_policy::rules::engine_command::is_known;
use eci_policy::rules::engine_socket::Images;
use eci_policy::rules::share::judge_places;
use eci_policy::settings::{Error, Settings, read};
use serde_json::{Map, Value};

/// The engine's own settings.
const SHIPPED: &str = include_str!("../../rootfs/overlay/etc/docker/daemon.json");
/// What an administrator may set of the engine.
const KEYS: [&str; 12] = [
    "default-address-pools",
    "dns",
    "dns-opts",
    "dns-search",
    "insecure-registries",
    "log-driver",
    "log-opts",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "mtu",
    "proxies",
    "registry-mirrors",
];
/// Bytes of a pipe.
const PIPE_BYTES: usize = 65_536;

/// Reads `input` as a file.
///
/// # Panics
/// A file is accepted that should not be, or a message could steer a terminal.
pub fn check(input: &[u8]) {
    match read(input) {
        Ok(settings) => check_accepted(input, &settings),
        Err(Error::Refused(problems)) => {
            assert!(!problems.is_empty(), "refused for nothing");
            for problem in problems {
                let said = problem.to_string();
                assert!(!said.chars().any(char::is_control), "{said:?}");
                assert!(said.len() < 2048 + input.len(), "{} bytes of {}", said.len(), input.len());
            }
        }
        Err(_) => {}
    }
}

fn check_accepted(input: &[u8], settings: &Settings) {
    let file: Value = serde_json::from_slice(input).expect("what is accepted is JSON");
    assert_eq!(keys_of(&file), colons(input), "a key is there twice");
    assert_eq!(file["configurationFileVersion"], 2);
    let top = file.as_object().expect("an object");
    if let Some(isolation) = top.get("enhancedContainerIsolation") {
        assert_eq!(isolation["value"], true);
        assert_eq!(isolation["locked"], settings.isolation.locked);
        let (mount, socket) = (&isolation["dockerSocketMount"], &settings.isolation.socket);
        for (list, read) in [
            (&mount["imageList"]["images"], &socket.images),
            (&mount["commandList"]["commands"], &socket.commands.commands),
        ] {
            assert!(
                list.as_array().map_or(read.is_empty(), |list| list.iter().eq(read)),
                "{list} is read over"
            );
        }
        assert_eq!(socket.allow_derived_images, mount["imageList"]["allowDerivedImages"] == true);
        assert_eq!(socket.commands.kind == ListKind::Allow, mount["commandList"]["type"] == "allow");
        assert!(socket.images.iter().all(|image| Images::parse(image).is_ok()), "{socket:?}");
        assert!(socket.commands.commands.iter().all(|name| is_known(name)), "{socket:?}");
    } else {
        assert!(settings.isolation.locked, "unlocked by nobody");
        assert!(settings.isolation.socket.images.is_empty(), "given away by nobody");
    }
    let ours = ["configurationFileVersion", "enhancedContainerIsolation", "eci"];
    let apart = top.keys().filter(|key| !ours.contains(&key.as_str())).count();
    assert_eq!(settings.kept_apart.len(), apart);
    let eci = top.get("eci").and_then(Value::as_object);
    let known = |key: &String| ["engine", "registryAccess", "shares"].contains(&key.as_str());
    assert!(eci.is_none_or(|eci| eci.keys().all(known)), "a key of ours is read over");
    let allowed = serde_json::to_value(&settings.shares.allow).expect("texts and switches are JSON");
    let mut list = file["eci"]["shares"]["allow"].clone();
    for folder in list.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        folder.entry("readOnly").or_insert(Value::Bool(false));
    }
    assert_eq!(allowed, list, "folders are read over");
    judge_places(settings.shares.allow.as_deref().unwrap_or_default().get(..1).unwrap_or_default())
        .expect("a place");
    let registries = settings.registries.as_ref().map(|registries| registries.written().to_vec());
    let listed = serde_json::to_value(&registries).expect("texts are JSON");
    assert_eq!(listed, file["eci"]["registryAccess"]["allowed"], "registries are read over");
    check_engine(file["eci"]["engine"].as_object(), settings);
}

/// What is in the file is what dockerd gets, and the engine's own settings stay.
fn check_engine(set: Option<&Map<String, Value>>, settings: &Settings) {
    let own: Map<String, Value> = serde_json::from_str(SHIPPED).expect("JSON");
    let given = settings.engine.added_to(&own).expect("no key is both's");
    for (key, value) in &own {
        assert_eq!(&given[key], value, "{key} was changed");
    }
    for (key, value) in given.iter().filter(|(key, _)| !own.contains_key(*key)) {
        assert!(KEYS.contains(&key.as_str()), "{key} reaches dockerd");
        check_texts(key, value);
    }
    for (key, value) in set.into_iter().flatten() {
        match value.as_object().filter(|_| key == "log-opts") {
            Some(limits) => assert!(limits.iter().all(|(name, limit)| given[key][name] == *limit), "{value}"),
            None => assert_eq!(&given[key], value, "{key} is read over"),
        }
    }
    for address in given.get("dns").and_then(Value::as_array).into_iter().flatten() {
        let address: IpAddr = address.as_str().expect("text").parse().expect("an address");
        assert!(!address.is_loopback() && !address.is_unspecified(), "{address}");
    }
    let size = given["log-opts"]["max-size"].as_str().expect("logs have a limit");
    assert!(size.len() <= 5 && !size.starts_with(['0', '-']), "{size}");
    assert!(serde_json::to_vec(&given).expect("JSON").len() <= PIPE_BYTES);
}

/// No text has what could be more than one word to anybody who reads it.
fn check_texts(key: &str, value: &Value) {
    match value {
        Value::String(text) => {
            let is_plain = |c: char| c.is_ascii_graphic() && !"\"'\\@#?%`$".contains(c);
            assert!(text.chars().all(|c| is_plain(c) || c == ' ' && key == "no-proxy"), "{key}: {text:?}");
        }
        Value::Array(elements) => elements.iter().for_each(|element| check_texts(key, element)),
        Value::Object(table) => table.iter().for_each(|(key, value)| check_texts(key, value)),
        Value::Number(number) => assert!(number.as_u64().is_some(), "{key}: {number}"),
        Value::Null | Value::Bool(_) => panic!("{key} is {value}"),
    }
}

/// Keys in a value, of which `serde_json` keeps one where there are two.
fn keys_of(value: &Value) -> usize {
    match value {
        Value::Object(table) => table.len() + table.values().map(keys_of).sum::<usize>(),
        Value::Array(elements) => elements.iter().map(keys_of).sum(),
        _ => 0,
    }
}

/// Colons outside of strings: each is behind a key.
fn colons(text: &[u8]) -> usize {
    let (mut count, mut inside, mut escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => inside = !inside,
            b':' if !inside => count += 1,
            _ => {}
        }
    }
    count
}
