//! The engine's side of a bundle.
//!
//! The tests write bundles by hand, as no engine does. `eci-runc` takes a root filesystem from the engine's layers alone,
//! and knows the flags that the engine's programs use. So before `create` and `run`:
//! - the root filesystem is moved to where a layer may be, and a link is left in its place;
//! - a bundle without a cgroup namespace gets one, which dockerd gives to every container;
//! - `--config` becomes the bundle's `config.json`, and `--cgroup-manager`, which only crun has, is left out.
//!
//! Nothing else is changed: what the runtime refuses in such a bundle is for the list of differences.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// The runtime under test.
const RUNC: &str = "/usr/bin/runc";
/// The engine's layers.
const LAYERS: &str = "/var/lib/docker/overlay2";
/// Flags before the verb that a value follows.
const GLOBALS_WITH_VALUE: &[&str] = &["root", "log", "log-format", "criu", "rootless", "cgroup-manager"];
/// Flags of `create` and `run` that a value follows.
const FLAGS_WITH_VALUE: &[&str] =
    &["bundle", "b", "config", "f", "console-socket", "pid-file", "preserve-fds"];

/// Becomes `runc` with these words. Only ever returns an error.
pub fn run(words: &[String]) -> io::Result<()> {
    let order = Order::read(words);
    if let Some(bundle) = &order.bundle {
        // What cannot be prepared is the runtime's to refuse.
        if let Err(error) = prepare(bundle) {
            eprintln!("engine-runc: the bundle stays as it is: {error}");
        }
    }
    Err(Command::new(RUNC).args(order.words).exec())
}

/// A command line for `runc`.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    words: Vec<String>,
    /// What is created.
    bundle: Option<Bundle>,
}

#[derive(Debug, PartialEq, Eq)]
struct Bundle {
    folder: PathBuf,
    config: PathBuf,
}

impl Order {
    fn read(words: &[String]) -> Self {
        let (globals, rest) = split(words, GLOBALS_WITH_VALUE);
        let mut words = keep(globals, &["cgroup-manager"]);
        match rest.split_first() {
            Some((verb, rest)) if verb == "create" || verb == "run" => {
                let (flags, rest) = split(rest, FLAGS_WITH_VALUE);
                let folder = PathBuf::from(value(&flags, &["bundle", "b"]).unwrap_or("."));
                let config = folder.join(value(&flags, &["config", "f"]).unwrap_or("config.json"));
                words.push(verb.clone());
                words.extend(keep(flags, &["config", "f"]));
                words.extend(rest.iter().cloned());
                Self { words, bundle: Some(Bundle { folder, config }) }
            }
            _ => {
                words.extend(rest.iter().cloned());
                Self { words, bundle: None }
            }
        }
    }
}

/// A flag with its value: in the same word, in the next, or none.
struct Flag<'a> {
    name: &'a str,
    value: Option<&'a str>,
    words: &'a [String],
}

fn value<'a>(flags: &[Flag<'a>], names: &[&str]) -> Option<&'a str> {
    flags.iter().rev().find(|flag| names.contains(&flag.name)).and_then(|flag| flag.value)
}

fn keep(flags: Vec<Flag<'_>>, left_out: &[&str]) -> Vec<String> {
    let kept = flags.into_iter().filter(|flag| !left_out.contains(&flag.name));
    kept.flat_map(|flag| flag.words.to_vec()).collect()
}

/// Flags up to the first word that is none.
fn split<'a>(words: &'a [String], with_value: &[&str]) -> (Vec<Flag<'a>>, &'a [String]) {
    let mut flags = Vec::new();
    let mut rest = words;
    while let Some(name) =
        rest.first().and_then(|word| word.strip_prefix('-')).filter(|name| !name.is_empty())
    {
        let name = name.strip_prefix('-').unwrap_or(name);
        let inline = name.split_once('=');
        let length = if inline.is_none() && with_value.contains(&name) { rest.len().min(2) } else { 1 };
        let (words, after) = rest.split_at(length);
        let (name, value) = match inline {
            Some((name, value)) => (name, Some(value)),
            None => (name, words.get(1).map(String::as_str)),
        };
        flags.push(Flag { name, value, words });
        rest = after;
    }
    (flags, rest)
}

fn prepare(bundle: &Bundle) -> io::Result<()> {
    let mut spec: Value = serde_json::from_slice(&fs::read(&bundle.config)?)?;
    if let Some(path) = spec.pointer("/root/path").and_then(Value::as_str) {
        move_to_layers(&bundle.folder.join(path))?;
    }
    let own = bundle.folder.join("config.json");
    if add_cgroup_namespace(&mut spec) || own != bundle.config {
        fs::write(own, serde_json::to_vec(&spec)?)?;
    }
    Ok(())
}

/// Gives whether there was none.
fn add_cgroup_namespace(spec: &mut Value) -> bool {
    let rows = spec.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut);
    rows.is_some_and(|rows| {
        let has = rows.iter().any(|row| row.get("type") == Some(&json!("cgroup")));
        if !has {
            rows.push(json!({"type": "cgroup"}));
        }
        !has
    })
}

fn move_to_layers(root: &Path) -> io::Result<()> {
    if fs::canonicalize(root)?.starts_with(LAYERS) {
        return Ok(());
    }
    // Process ids of two lanes are of one VM: no two layers get the same name, unless ids come round.
    let layer = Path::new(LAYERS).join(format!("conformance-{}", std::process::id()));
    fs::create_dir_all(&layer)?;
    let diff = layer.join("diff");
    fs::rename(root, &diff)?;
    symlink(diff, root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Order {
        Order::read(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn what_only_crun_knows_does_not_reach_the_runtime() {
        let order = read("--cgroup-manager cgroupfs --root /r run --config c/x.json --preserve-fds 3 -d id");
        assert_eq!(order.words.join(" "), "--root /r run --preserve-fds 3 -d id");
        assert_eq!(order.bundle, Some(Bundle { folder: ".".into(), config: "./c/x.json".into() }));
    }

    #[test]
    fn a_bundle_is_where_the_flag_says_and_other_verbs_have_none() {
        let order = read("create -b /b --pid-file=p id");
        assert_eq!(order.words.join(" "), "create -b /b --pid-file=p id");
        assert_eq!(order.bundle, Some(Bundle { folder: "/b".into(), config: "/b/config.json".into() }));
        let order = read("--root /r exec -e A=b id run --config x");
        assert_eq!(
            (order.words.join(" ").as_str(), order.bundle),
            ("--root /r exec -e A=b id run --config x", None)
        );
    }

    #[test]
    fn a_cgroup_namespace_is_added_once() {
        let mut spec = json!({"linux": {"namespaces": [{"type": "pid"}]}});
        assert!(add_cgroup_namespace(&mut spec) && !add_cgroup_namespace(&mut spec));
        assert!(!add_cgroup_namespace(&mut json!({})));
    }
}
