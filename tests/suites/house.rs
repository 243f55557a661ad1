//! The house's rules: which crate may depend on which, and where `unsafe` and async may stand.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use eci_tests::image;
use serde_json::Value;

/// The table of ARCHITECTURE.md, section "The house": a crate and the crates of ours that it may depend on.
const EDGES: [(&str, &[&str]); 16] = [
    ("eci-builder", &["eci-policy", "eci-sys", "eci-contract", "eci-link", "eci-slots", "eci-tpm"]),
    ("eci-init", &["eci-policy", "eci-sys", "eci-contract", "eci-slots", "eci-tpm"]),
    ("eci-runc", &["eci-policy", "eci-sys", "eci-contract", "eci-audit"]),
    ("eci-nodes", &["eci-policy", "eci-sys", "eci-contract", "eci-service"]),
    ("eci-procfs", &["eci-policy", "eci-contract", "eci-service"]),
    ("eci-egress", &["eci-policy", "eci-contract", "eci-service", "eci-audit"]),
    ("eci-gate", &["eci-policy", "eci-contract", "eci-link", "eci-service", "eci-audit"]),
    ("eci-publish", &["eci-contract", "eci-service"]),
    ("eci-service", &["eci-sys", "eci-contract"]),
    ("eci-audit", &["eci-contract"]),
    ("eci-slots", &["eci-contract"]),
    ("eci-link", &["eci-contract"]),
    ("eci-policy", &["eci-contract"]),
    ("eci-contract", &[]),
    ("eci-sys", &[]),
    ("eci-tpm", &[]),
];

/// Folders of crates without `unsafe`: all but `sys`, and the suites.
const SAFE: [&str; 16] = [
    "audit", "builder", "contract", "egress", "fuzz", "gate", "init", "link", "nodes", "policy", "procfs",
    "publish", "runtime", "service", "slots", "tpm",
];

/// Crates that may use an async runtime: the two ends of the link, and what they share.
const ASYNC: [&str; 3] = ["eci-gate", "eci-link", "eci-builder"];

/// Crates from outside that `contract`, `sys`, `policy` and `tpm` may use.
const LEAVES: [(&str, &[&str]); 4] = [
    ("eci-contract", &["serde", "serde_json"]),
    ("eci-sys", &["rustix", "libc", "thiserror"]),
    ("eci-policy", &["serde", "serde_json", "thiserror"]),
    ("eci-tpm", &["ring", "thiserror"]),
];

fn root() -> PathBuf {
    image::repository().expect("cargo runs this")
}

/// Dependencies of each workspace crate, development ones left out.
fn dependencies() -> Vec<(String, BTreeSet<String>)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .expect("cargo metadata runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("packages is a list");
    packages
        .iter()
        .map(|package| {
            let names = package["dependencies"].as_array().expect("dependencies is a list");
            let names = names
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .filter_map(|dependency| dependency["name"].as_str())
                .map(str::to_owned)
                .collect();
            (package["name"].as_str().expect("a package has a name").to_owned(), names)
        })
        .collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn crates_depend_only_on_those_the_house_allows() {
    let all = dependencies();
    for (name, allowed) in EDGES {
        let (_, found) =
            all.iter().find(|(found, _)| found == name).expect("every crate of the table exists");
        let ours: Vec<_> = found.iter().filter(|dependency| dependency.starts_with("eci-")).collect();
        for dependency in ours {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
    let known: BTreeSet<_> = EDGES.iter().map(|(name, _)| *name).chain(["eci-tests"]).collect();
    for (name, _) in &all {
        assert!(known.contains(name.as_str()), "{name} is not in the table of the house");
    }
}

#[test]
fn leaves_stay_free_of_heavy_dependencies() {
    let all = dependencies();
    for (name, allowed) in LEAVES {
        let (_, found) =
            all.iter().find(|(found, _)| found == name).expect("every crate of the table exists");
        for dependency in found.iter().filter(|dependency| !dependency.starts_with("eci-")) {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn async_runtimes_stand_only_at_the_two_ends_of_the_link() {
    for (name, found) in dependencies() {
        let is_async =
            found.iter().any(|dependency| dependency.starts_with("tokio") || dependency == "futures");
        assert!(!is_async || ASYNC.contains(&name.as_str()), "{name} must not be async");
    }
    for file in rust_files(&root().join("builder/src")) {
        let text = fs::read_to_string(&file).expect("a source file is text");
        let inside = file.components().any(|part| part.as_os_str() == "instance");
        assert!(inside || !text.contains("tokio::"), "{} must not be async", file.display());
    }
}

#[test]
fn unsafe_stands_only_in_sys() {
    for folder in SAFE {
        for file in rust_files(&root().join(folder).join("src")) {
            let text = fs::read_to_string(&file).expect("a source file is text");
            let found = text.lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("allow(unsafe_code")
            });
            assert!(!found, "{} has unsafe code", file.display());
        }
    }
}

/// Settings of the engine, below `rootfs/`.
fn settings(path: &str) -> Value {
    let path = root().join("rootfs").join(path);
    serde_json::from_slice(&fs::read(path).expect("settings of the engine")).expect("JSON")
}

/// What the test flavour measures would say nothing about the appliance if its engine were set up in another way.
#[test]
fn the_test_flavour_s_engine_has_two_more_runtimes_and_is_the_same_otherwise() {
    let shipped = settings("overlay/etc/docker/daemon.json");
    let mut test = settings("test-overlay/etc/docker/daemon.json");
    let runtimes = test["runtimes"].as_object_mut().expect("a table of runtimes");
    for name in ["bare-crun", "bare-runc"] {
        assert!(runtimes.remove(name).is_some(), "no runtime {name}");
    }
    assert_eq!(test, shipped);
}

/// A distro has no host at the other end of a link: the engine publishes there as on any machine, and WSL does the rest.
#[test]
fn in_a_distro_the_engine_publishes_ports_by_itself_and_is_the_same_otherwise() {
    let mut shipped = settings("overlay/etc/docker/daemon.json");
    let table = shipped.as_object_mut().expect("a table");
    assert!(table.remove("userland-proxy-path").is_some(), "no program for published ports");
    assert_eq!(table.insert("userland-proxy".to_owned(), false.into()), Some(true.into()));
    assert_eq!(settings("overlay/etc/docker/daemon-wsl.json"), shipped);
}

/// What users and newcomers read.
fn documents() -> Vec<PathBuf> {
    let of = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let found = of(root()).chain(of(root().join("docs")));
    let found: Vec<_> =
        found.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    assert!(found.len() >= 4, "{found:?}");
    found
}

#[test]
fn links_of_the_documents_lead_to_files() {
    for document in documents() {
        let text = fs::read_to_string(&document).expect("a document is text");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            let is_ours = !file.is_empty() && !file.contains("://");
            let path = document.with_file_name(file);
            assert!(!is_ours || path.exists(), "{}: nothing is at `{target}`", document.display());
        }
    }
}

#[test]
fn sources_that_the_documents_name_are_there() {
    for document in documents() {
        let text = fs::read_to_string(&document).expect("a document is text");
        for named in text.split('`').skip(1).step_by(2) {
            let is_path = named
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/._-".contains(&byte));
            let folder = named.split('/').next().unwrap_or_default();
            let is_source =
                !folder.is_empty() && is_path && named.contains('/') && root().join(folder).is_dir();
            assert!(
                !is_source || folder == "out" || root().join(named).exists(),
                "{}: there is no `{named}`",
                document.display()
            );
        }
    }
}
