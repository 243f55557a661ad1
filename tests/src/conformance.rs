//! Verdicts of other projects' test suites under two runtimes, and the list of how they may differ.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// How a test went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As the test expects.
    Pass,
    /// Not so.
    Fail,
    /// The test did not want to run.
    Skip,
    /// The test was not reached, or does not exist.
    Absent,
}

impl Verdict {
    fn from_name(name: &str) -> Option<Self> {
        [Self::Pass, Self::Fail, Self::Skip, Self::Absent]
            .into_iter()
            .find(|verdict| verdict.to_string() == name)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Skip => "skip",
            Self::Absent => "absent",
        })
    }
}

/// Verdicts by `FILE: NAME`.
pub type Verdicts = BTreeMap<String, Verdict>;

/// Reads what `tests/conformance/root/conformance/lane` printed: the Test Anything Protocol, between `== FILE` lines.
///
/// # Errors
/// When a file did not end by itself or did not run all the tests that it had promised.
pub fn read(text: &str) -> Result<Verdicts> {
    let mut verdicts = Verdicts::new();
    let mut file = "";
    let (mut promised, mut found) = (None, 0);
    for line in text.lines().map(str::trim_end) {
        if let Some(mark) = line.strip_prefix("== ") {
            match mark.split_once(": code ") {
                Some((name, end)) => {
                    let code = end.split(' ').next().unwrap_or_default();
                    ensure!(
                        promised == Some(found) && matches!(code, "0" | "1"),
                        "{name} ran {found} of {promised:?} tests and ended with {code}"
                    );
                }
                None => (file, promised, found) = (mark, None, 0),
            }
        } else if let Some(count) = line.strip_prefix("1..") {
            promised = count.parse().ok();
        } else if let Some((name, verdict)) = read_test(line) {
            found += 1;
            verdicts.insert(format!("{file}: {name}"), verdict);
        }
    }
    Ok(verdicts)
}

/// `ok 3 - name`, `not ok 3 name`, `ok 3 name # skip reason`. Colours of a message may stand before.
fn read_test(line: &str) -> Option<(&str, Verdict)> {
    let line = line.rsplit_once("\u{1b}[0m").map_or(line, |(_, rest)| rest);
    let (rest, passed) = match line.strip_prefix("not ") {
        Some(rest) => (rest, false),
        None => (line, true),
    };
    let (number, name) = rest.strip_prefix("ok ")?.split_once(' ')?;
    number.parse::<u32>().ok()?;
    let name = name.strip_prefix("- ").unwrap_or(name);
    let skip = name.find("#SKIP").or_else(|| name.find("# skip"));
    Some(match skip {
        Some(at) => (name.get(..at)?.trim_end(), Verdict::Skip),
        None => (name, if passed { Verdict::Pass } else { Verdict::Fail }),
    })
}

/// Tests that may differ, with the pair of verdicts that they have.
pub type Differences = BTreeMap<String, (Verdict, Verdict)>;

/// Reads the list of differences.
///
/// # Errors
/// When it is not understood, says no why, or has a test twice.
pub fn read_differences(path: &Path) -> Result<Differences> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let table: toml::Table = text.parse().with_context(|| format!("cannot parse {}", path.display()))?;
    let mut differences = Differences::new();
    for row in
        table.get("difference").and_then(toml::Value::as_array).context("the list has no differences")?
    {
        let field = |name| {
            row.get(name).and_then(toml::Value::as_str).with_context(|| format!("{row} has no {name}"))
        };
        ensure!(!field("why")?.is_empty(), "{row} has no why");
        let verdict =
            |name| Verdict::from_name(field(name)?).with_context(|| format!("{row}: {name} is no verdict"));
        let pair = (verdict("crun")?, verdict("eci-runc")?);
        for test in row.get("tests").and_then(toml::Value::as_array).context("a difference has no tests")? {
            let test = test.as_str().context("a test has a name")?;
            ensure!(differences.insert(test.to_owned(), pair).is_none(), "`{test}` is in the list twice");
        }
    }
    Ok(differences)
}

/// What is not as the list says, a line each: differences that it does not have, and those that it has and that are none.
/// Only tests of `files` count.
#[must_use]
pub fn surprises(crun: &Verdicts, ours: &Verdicts, list: &Differences, files: &[&str]) -> Vec<String> {
    let counts = |test: &str| test.split_once(": ").is_some_and(|(file, _)| files.contains(&file));
    let mut names: Vec<&String> = crun.keys().chain(ours.keys()).chain(list.keys()).collect();
    names.sort();
    names.dedup();
    let verdict = |verdicts: &Verdicts, name| verdicts.get(name).copied().unwrap_or(Verdict::Absent);
    names
        .into_iter()
        .filter(|name| counts(name))
        .filter_map(|name| {
            let found = (verdict(crun, name), verdict(ours, name));
            let listed = list.get(name).copied();
            let expected = listed.unwrap_or((found.0, found.0));
            (found != expected).then(|| {
                let (known, (crun, ours)) =
                    (if listed.is_some() { "listed otherwise" } else { "not listed" }, found);
                format!("{name}: crun {crun}, eci-runc {ours}; {known}")
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
== test_a.py
warning
1..3
ok 1 - start
not ok 2 - stop
\u{1b}[1;31mmessage\u{1b}[0mok 3 - pause #SKIP
== test_a.py: code 0 after 3 s
== b.bats
1..1
ok 1 runc run [tty: owner] # skip test requires rootless
== b.bats: code 1 after 2 s
";

    #[test]
    fn verdicts_are_read_from_both_suites() {
        let verdicts = read(TEXT).unwrap();
        let found: Vec<_> = verdicts.iter().map(|(name, verdict)| format!("{name} {verdict}")).collect();
        assert_eq!(
            found,
            [
                "b.bats: runc run [tty: owner] skip",
                "test_a.py: pause skip",
                "test_a.py: start pass",
                "test_a.py: stop fail"
            ]
        );
    }

    #[test]
    fn a_file_that_did_not_run_to_its_end_is_an_error() {
        for (whole, cut) in [("ok 1 - start\n", ""), ("code 0", "code 124"), ("1..3\n", "")] {
            assert!(read(&TEXT.replacen(whole, cut, 1)).is_err(), "{whole}");
        }
    }

    #[test]
    fn a_difference_surprises_unless_it_is_listed_as_it_is() {
        let verdicts = |pairs: &[(&str, Verdict)]| {
            pairs.iter().map(|(name, verdict)| ((*name).to_owned(), *verdict)).collect::<Verdicts>()
        };
        let crun = verdicts(&[("a: x", Verdict::Pass), ("a: y", Verdict::Pass), ("b: z", Verdict::Pass)]);
        let ours = verdicts(&[("a: x", Verdict::Fail), ("a: y", Verdict::Pass)]);
        let mut list = Differences::new();
        assert_eq!(surprises(&crun, &ours, &list, &["a"]), ["a: x: crun pass, eci-runc fail; not listed"]);
        assert_eq!(surprises(&crun, &ours, &list, &["b"]), ["b: z: crun pass, eci-runc absent; not listed"]);
        list.insert("a: x".to_owned(), (Verdict::Pass, Verdict::Fail));
        assert!(surprises(&crun, &ours, &list, &["a"]).is_empty());
        list.insert("a: y".to_owned(), (Verdict::Pass, Verdict::Fail));
        assert_eq!(
            surprises(&crun, &ours, &list, &["a"]),
            ["a: y: crun pass, eci-runc pass; listed otherwise"]
        );
    }
}
