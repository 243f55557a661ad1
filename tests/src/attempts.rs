//! What the program of attacks (`/probe` of the busybox image) says, and whether that is what was expected.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use eci_contract::manifest::Architecture;

use crate::image;
use crate::vm::Vm;

/// Expected of an attempt that the kernel or a filter has to stop, by whatever error: neither `allowed` nor never made.
pub const REFUSED: &str = "refused";

/// Every profile of Docker's taken off: what podman's and others' documentation asks for instead of `--privileged`.
pub const UNCONFINED: &[&str] = &[
    "--security-opt",
    "seccomp=unconfined",
    "--security-opt",
    "apparmor=unconfined",
    "--security-opt",
    "systempaths=unconfined",
];

/// Outcomes of attempts, by what the program was called with.
pub type Outcomes = BTreeMap<String, String>;

/// Makes the attempts in one new container with these flags of `docker run`.
///
/// # Errors
/// When the container does not start, or the program does not come to its end.
pub fn make(vm: &Vm, flags: &[&str], verbs: &[&str]) -> Result<Outcomes> {
    make_of(vm, "busybox", flags, verbs)
}

/// The same of another image that has the program.
///
/// # Errors
/// As [`make`].
pub fn make_of(vm: &Vm, image: &str, flags: &[&str], verbs: &[&str]) -> Result<Outcomes> {
    let mut arguments = vec!["run", "--rm"];
    arguments.extend(flags);
    arguments.extend([image, "/probe"]);
    arguments.extend(verbs);
    read(vm, &arguments, verbs)
}

/// Makes the attempts in a running container, by `docker exec` with these flags.
///
/// # Errors
/// As [`make`].
pub fn make_in(vm: &Vm, container: &str, flags: &[&str], verbs: &[&str]) -> Result<Outcomes> {
    let mut arguments = vec!["exec"];
    arguments.extend(flags);
    arguments.extend([container, "/probe"]);
    arguments.extend(verbs);
    read(vm, &arguments, verbs)
}

fn read(vm: &Vm, arguments: &[&str], verbs: &[&str]) -> Result<Outcomes> {
    let outcome = vm.docker(arguments)?;
    // Details, such as which descriptor leaked, are on stderr; the harness shows them with the failure.
    eprint!("{}", outcome.stderr);
    let outcomes = parse(&outcome.ok()?);
    for verb in verbs {
        ensure!(outcomes.contains_key(*verb), "the probe says nothing about `{verb}`: {outcomes:#?}");
    }
    Ok(outcomes)
}

fn parse(text: &str) -> Outcomes {
    text.lines()
        .filter_map(|line| line.rsplit_once(": "))
        .map(|(verb, outcome)| (verb.to_owned(), outcome.to_owned()))
        .collect()
}

/// Whether `outcome` is the expected one: one of several between `|`, or [`REFUSED`].
#[must_use]
pub fn is_as_expected(expected: &str, outcome: &str) -> bool {
    let never_made =
        ["nothing there", "no such verb"].contains(&outcome) || outcome.starts_with("not understood");
    expected.split('|').any(|one| one == outcome || (one == REFUSED && outcome != "allowed" && !never_made))
}

/// Attempts that go by another way into the kernel than the machine's own, or by calls that x86 alone has.
const OF_X86: [&str; 6] = ["i386-", "x32-", "make-node-i386", "make-node-x32", "iopl", "ioperm"];
/// What comes of them elsewhere: there is no such way, and no filter lets the number of one through.
const NO_WAY: &str = "ENOSYS|EPERM";

/// What is expected of an attempt in the image under test.
fn expected_of<'e>(verb: &str, expected: &'e str, architecture: Architecture) -> &'e str {
    let of_x86 = OF_X86.iter().any(|prefix| verb.starts_with(prefix));
    if of_x86 && architecture != Architecture::X86_64 { NO_WAY } else { expected }
}

/// Fails with every attempt that ended otherwise.
///
/// # Errors
/// With those attempts.
pub fn check(outcomes: &Outcomes, expected: &[(&str, &str)]) -> Result<()> {
    check_on(image::manifest(&image::out()?)?.architecture, outcomes, expected)
}

fn check_on(architecture: Architecture, outcomes: &Outcomes, expected: &[(&str, &str)]) -> Result<()> {
    let mut wrong = Vec::new();
    for (verb, expected) in expected {
        let expected = expected_of(verb, expected, architecture);
        let outcome = outcomes.get(*verb).map_or("not made", String::as_str);
        if !is_as_expected(expected, outcome) {
            wrong.push(format!("{verb}: {outcome}, expected {expected}"));
        }
    }
    ensure!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), expected.len(), wrong.join("\n"));
    Ok(())
}

/// Makes the attempts in one new container and checks what came of them.
///
/// # Errors
/// As [`make`] and [`check`].
pub fn expect(vm: &Vm, flags: &[&str], expected: &[(&str, &str)]) -> Result<()> {
    let verbs: Vec<_> = expected.iter().map(|(verb, _)| *verb).collect();
    check(&make(vm, flags, &verbs)?, expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_that_was_never_made_is_not_refused() {
        assert!(is_as_expected(REFUSED, "EPERM"));
        assert!(is_as_expected(REFUSED, "no effect"));
        assert!(is_as_expected(REFUSED, "killed SIGSYS"));
        assert!(!is_as_expected(REFUSED, "allowed"));
        assert!(!is_as_expected(REFUSED, "nothing there"));
        assert!(is_as_expected("EPERM|nothing there", "nothing there"));
        assert!(!is_as_expected("EPERM", "EACCES"));
    }

    #[test]
    fn a_verb_s_argument_may_have_colons() {
        let outcomes = parse("vsock:2:1024: ENODEV\numount:/ro: EINVAL\n");
        assert_eq!(outcomes.get("vsock:2:1024").map(String::as_str), Some("ENODEV"));
        assert_eq!(outcomes.get("umount:/ro").map(String::as_str), Some("EINVAL"));
    }

    #[test]
    fn a_wrong_outcome_is_named() {
        let outcomes = parse("iopl: allowed\n");
        let error = |architecture| check_on(architecture, &outcomes, &[("iopl", "EPERM")]).unwrap_err();
        assert!(error(Architecture::X86_64).to_string().contains("iopl: allowed, expected EPERM"));
        assert!(error(Architecture::Aarch64).to_string().contains("iopl: allowed, expected ENOSYS|EPERM"));
    }
}
