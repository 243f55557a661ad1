//! Attacks from inside of a container, a verb each: `eci-probe VERB[:ARGUMENT]…` makes one attempt after the other, each
//! in a child of its own, and prints `VERB[:ARGUMENT]: OUTCOME` for each. It exits with 0 whatever came of them: the
//! suites judge. `--list` prints the verbs with what each is for.
//!
//! An outcome is `allowed` (and the effect was read back where a call may succeed without one), an error's name such as
//! `EPERM`, `EPERM at STEP` when the way to the attempt was barred already, `no effect`, `nothing there`, or `killed
//! SIGNAL`.
//!
//! Under the name `rosetta` it is something else: see [`rosetta`].
//!
//! Never run it on a machine that is not to be attacked.

mod abi;
mod attempt;
mod cgroups;
mod clocks;
mod devices;
mod files;
mod handed;
mod handles;
mod held;
mod ids;
mod kernel;
mod keys;
mod making;
mod mounts;
mod namespaces;
mod nodes;
mod power;
mod processes;
mod rosetta;
mod sockets;

use std::io::{self, Write};
use std::process::ExitCode;

use attempt::Verb;

/// Every verb, a table per subject.
const VERBS: &[&[Verb]] = &[
    mounts::VERBS,
    namespaces::VERBS,
    ids::VERBS,
    handed::VERBS,
    handles::VERBS,
    keys::VERBS,
    kernel::VERBS,
    processes::VERBS,
    sockets::VERBS,
    devices::VERBS,
    making::VERBS,
    held::VERBS,
    files::VERBS,
    nodes::VERBS,
    cgroups::VERBS,
    clocks::VERBS,
    power::VERBS,
    abi::VERBS,
];

fn main() -> ExitCode {
    let done =
        if rosetta::is_meant() { rosetta::say() } else { run(&std::env::args().skip(1).collect::<Vec<_>>()) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // A probe that cannot print has nothing else to say.
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(arguments: &[String]) -> io::Result<()> {
    // Not locked: every child prints its own line.
    let mut out = io::stdout();
    if arguments.iter().any(|argument| argument == "--list") {
        return VERBS
            .iter()
            .copied()
            .flatten()
            .try_for_each(|verb| writeln!(out, "{:28} {}", verb.name, verb.why));
    }
    for wish in arguments {
        let (name, argument) = wish.split_once(':').unwrap_or((wish, ""));
        match VERBS.iter().copied().flatten().find(|verb| verb.name == name) {
            Some(verb) => attempt::make(wish, verb, argument)?,
            None => writeln!(out, "{wish}: no such verb")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_verb_has_a_name_of_its_own_and_a_reason() {
        let verbs: Vec<_> = VERBS.iter().copied().flatten().collect();
        let names: BTreeSet<_> = verbs.iter().map(|verb| verb.name).collect();
        assert_eq!(names.len(), verbs.len());
        assert!(names.len() >= 70, "{}", names.len());
        for verb in verbs {
            assert!(!verb.why.is_empty() && !verb.name.contains([':', ' ', '=']), "{}", verb.name);
        }
    }
}
