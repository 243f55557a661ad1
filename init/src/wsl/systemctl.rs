//! The few words of `systemctl` that WSL says to a distro with systemd, and one for the user.
//!
//! WSL waits for `is-system-running` to answer `running` or `degraded`, and says `reboot` when the distro is to end. It says so by
//! `popen(3)`, so as `/bin/sh -c LINE`: this program answers under that name, too, to these lines alone. It is no shell.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use eci_contract::link::{Reply, Request};
use eci_contract::status::{State, Status};
use eci_contract::wsl::CONTROL_SOCKET;

/// How long PID 1 may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// How long an orderly end may take until WSL goes on without it. The engine has 25 s to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// What a session without a command, or with another, is told.
const HELP: &str = "This distro is Docker's engine and has no shell. In other distros, as root: \
                    docker --host unix:///mnt/wsl/eci/docker.sock\n\
                    Here: systemctl is-system-running | status | poweroff";
/// Answers are a few KiB.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// One word about the distro's state, as systemd words it.
    IsSystemRunning,
    /// The same from `/bin/sh`, where `grep` would say whether the word is one of two.
    IsSystemRunningAndWell,
    /// An orderly end of the distro.
    Poweroff,
    /// All that PID 1 knows, as JSON.
    Status,
    /// Anything else, a session without a command included.
    Unknown,
}

impl Verb {
    /// The verb that these arguments (without the program) say.
    #[must_use]
    pub fn of(arguments: &[&str]) -> Self {
        match arguments {
            ["is-system-running"] => Self::IsSystemRunning,
            ["poweroff" | "reboot"] => Self::Poweroff,
            ["status"] => Self::Status,
            // C libraries put `--` between option and command since 2023.
            ["-c", line] | ["-c", "--", line] => match *line {
                "systemctl is-system-running | grep -E \"running|degraded\"" => Self::IsSystemRunningAndWell,
                "systemctl poweroff" | "systemctl reboot" => Self::Poweroff,
                _ => Self::Unknown,
            },
            _ => Self::Unknown,
        }
    }
}

/// Asks PID 1 and prints what it says. Does not return.
pub fn run(verb: Verb) -> ! {
    let (text, code) = match verb {
        Verb::IsSystemRunning | Verb::IsSystemRunningAndWell => answer(verb, state()),
        Verb::Poweroff => stop(),
        Verb::Status => match status() {
            Some(status) => (serde_json::to_string_pretty(&status).unwrap_or_default(), 0),
            None => ("PID 1 does not answer".to_owned(), 1),
        },
        Verb::Unknown => (HELP.to_owned(), 64),
    };
    if !text.is_empty() {
        // Nobody reads it then.
        drop(writeln!(io::stdout(), "{text}"));
    }
    std::process::exit(code)
}

fn answer(verb: Verb, state: Option<State>) -> (String, i32) {
    let word = match state {
        Some(State::Ready) => "running",
        Some(State::Refused) => "degraded",
        Some(State::Stopping) => "stopping",
        // PID 1 has ended with its namespace, this process included, or has not come so far yet.
        Some(State::Starting) | None => "starting",
    };
    let is_found = matches!(word, "running" | "degraded");
    match verb {
        Verb::IsSystemRunningAndWell if is_found => (word.to_owned(), 0),
        Verb::IsSystemRunningAndWell => (String::new(), 1),
        _ => (word.to_owned(), i32::from(word != "running")),
    }
}

/// Asks for the end and waits for it: PID 1 takes this process along.
fn stop() -> (String, i32) {
    if let Err(err) = ask(&Request::Shutdown {}) {
        return (format!("PID 1 does not answer: {err}"), 1);
    }
    let asked = Instant::now();
    while asked.elapsed() < STOP_DEADLINE {
        std::thread::sleep(Duration::from_millis(100));
    }
    ("PID 1 has not ended in time".to_owned(), 1)
}

fn state() -> Option<State> {
    status().map(|status| status.state)
}

fn status() -> Option<Status> {
    match ask(&Request::Status {}) {
        Ok(Reply::Status(status)) => Some(*status),
        _ => None,
    }
}

fn ask(request: &Request) -> io::Result<Reply> {
    let mut stream = UnixStream::connect(CONTROL_SOCKET)?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    stream.set_write_timeout(Some(ANSWER_DEADLINE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_ANSWER_BYTES)).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_wsl_are_understood_and_no_others() {
        let polled = "systemctl is-system-running | grep -E \"running|degraded\"";
        assert_eq!(Verb::of(&["-c", polled]), Verb::IsSystemRunningAndWell);
        assert_eq!(Verb::of(&["-c", "--", polled]), Verb::IsSystemRunningAndWell);
        assert_eq!(Verb::of(&["-c", "systemctl reboot"]), Verb::Poweroff);
        assert_eq!(Verb::of(&["poweroff"]), Verb::Poweroff);
        for line in ["systemctl reboot; id", "id", "systemctl", ""] {
            assert_eq!(Verb::of(&["-c", line]), Verb::Unknown, "{line}");
        }
        assert_eq!(Verb::of(&[]), Verb::Unknown);
        assert_eq!(Verb::of(&["poweroff", "--force"]), Verb::Unknown);
    }

    #[test]
    fn words_and_codes_are_those_of_systemd() {
        let plain = |state| answer(Verb::IsSystemRunning, state);
        assert_eq!(plain(Some(State::Ready)), ("running".to_owned(), 0));
        assert_eq!(plain(Some(State::Refused)), ("degraded".to_owned(), 1));
        assert_eq!(plain(Some(State::Starting)), ("starting".to_owned(), 1));
        assert_eq!(plain(None), ("starting".to_owned(), 1));
        let found = |state| answer(Verb::IsSystemRunningAndWell, state);
        assert_eq!(found(Some(State::Refused)), ("degraded".to_owned(), 0));
        assert_eq!(found(Some(State::Starting)), (String::new(), 1));
    }
}
