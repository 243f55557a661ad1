//! Every file of the corpus, through the target that it belongs to: no libFuzzer, no unstable flag.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Bound of a file of the corpus in bytes: it is read by people.
const MAX_BYTES: usize = 4096;

/// The files of target `name`, with their bytes.
fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder =
        Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs this")).join("corpus").join(name);
    let entries = fs::read_dir(folder).expect("every target has a corpus");
    let files: Vec<_> = entries
        .map(|entry| entry.expect("the corpus can be listed").path())
        .map(|path| {
            let bytes = fs::read(&path).expect("the corpus can be read");
            (path, bytes)
        })
        .collect();
    assert!(!files.is_empty(), "target {name} has an empty corpus");
    files
}

fn replay(name: &str, check: fn(&[u8])) {
    for (path, bytes) in corpus(name) {
        assert!(bytes.len() < MAX_BYTES, "{} is large", path.display());
        eprintln!("{}", path.display());
        check(&bytes);
    }
}

#[test]
fn bundles_keep_their_promises() {
    replay("bundle", eci_fuzz::bundle::check);
}

#[test]
fn what_dockerd_and_buildkit_send_gets_a_plan() {
    for (path, bytes) in corpus("bundle") {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let planned = eci_fuzz::bundle::plan(&bytes).is_some();
        assert_eq!(planned, !name.starts_with("refused-"), "{name}");
    }
}

#[test]
fn mounts_keep_their_promises() {
    replay("mounts", eci_fuzz::mounts::check);
}

#[test]
fn arguments_keep_their_promises() {
    replay("arguments", eci_fuzz::arguments::check);
}

#[test]
fn seccomp_profiles_keep_their_promises() {
    replay("seccomp", eci_fuzz::seccomp::check);
}

#[test]
fn settings_keep_their_promises() {
    replay("settings", eci_fuzz::settings::check);
}

#[test]
fn settings_are_accepted_or_refused_as_their_names_say() {
    for (path, bytes) in corpus("settings") {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        assert_eq!(eci_policy::settings::read(&bytes).is_ok(), !name.starts_with("refused-"), "{name}");
    }
}

#[test]
fn notifications_keep_their_promises() {
    replay("notification", eci_fuzz::notification::check);
}

#[test]
fn requests_keep_their_promises() {
    replay("request", eci_fuzz::request::check);
}

#[test]
fn evidence_keeps_its_promises() {
    replay("evidence", eci_fuzz::evidence::check);
}
