//! Command lines: what reaches crun was thought of.

use eci_runc::arguments::{Flags, Invocation, Verb, parse};

/// Flags that crun 1.21 has before its command and that change nothing of a plan.
const GLOBAL: &[&str] = &["debug", "log=", "log-format=", "root=", "rootless=", "systemd-cgroup", "help"];
/// Flags of crun's `create` and `run`. `config` is not one of them: it names another `config.json`.
const CREATE: &[&str] = &[
    "console-socket=",
    "detach",
    "keep",
    "no-new-keyring",
    "no-pivot",
    "no-subreaper",
    "pid-file=",
    "preserve-fds=",
];
/// Flags of crun's `exec`. `cgroup` is not one of them: it names a cgroup of the VM.
const EXEC: &[&str] = &[
    "apparmor=",
    "cap=",
    "console-socket=",
    "cwd=",
    "detach",
    "env=",
    "no-new-privs",
    "pid-file=",
    "preserve-fds=",
    "process=",
    "tty",
    "tty=",
    "user=",
];
/// Flags of crun's `delete`. `regex` is not one of them: it deletes containers that were not named.
const DELETE: &[&str] = &["force"];
/// Commands of crun's that get a plan or start and mount past it, and so never pass as they are.
const PLANNED: &[&str] = &["create", "run", "exec", "delete", "checkpoint", "restore", "mounts"];

/// Reads `input`, a word a line, as a command line.
///
/// # Panics
/// A flag that is not in a table, an id that could be a path or a flag, or a planned command passes to crun.
pub fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let words: Vec<String> = text.lines().map(str::to_owned).collect();
    let Ok(Invocation { globals, verb }) = parse(&words) else { return };
    check_flags(&globals, GLOBAL);
    match verb {
        Verb::Create(create) => {
            assert!(matches!(create.verb.as_str(), "create" | "run"), "{words:?}");
            check_flags(&create.flags, CREATE);
            check_id(&create.id);
        }
        Verb::Exec(flags, rest) => {
            check_flags(&flags, EXEC);
            check_id(rest.first().expect("exec has a container"));
            assert!(words.ends_with(&rest), "the command of exec stays as it is");
        }
        Verb::Delete(flags, id) => {
            check_flags(&flags, DELETE);
            check_id(&id);
        }
        Verb::Pass(passed) => {
            let verb = passed.first().map_or("", String::as_str);
            assert!(!PLANNED.contains(&verb) && !verb.starts_with('-'), "{verb} passes without a plan");
            assert!(words.ends_with(&passed), "the words of other verbs stay as they are");
        }
        Verb::Version => {}
    }
}

/// A flag is one word, with `=` where the table has it.
fn check_flags(flags: &Flags, table: &[&str]) {
    for word in flags.to_arguments() {
        let name = word.strip_prefix("--").expect("a flag begins with two dashes");
        let name = name.split_inclusive('=').next().unwrap_or_default();
        // `--version` ends before crun is called.
        assert!(table.contains(&name) || name == "version", "{word} passes to crun");
    }
}

fn check_id(id: &str) {
    assert!(!id.is_empty() && !id.starts_with(['-', '.']), "{id} could be a flag or a hidden file");
    assert!(id.chars().all(|letter| letter.is_ascii_alphanumeric() || "_+-.".contains(letter)), "{id}");
}
