//! The firewall of the VM itself: loaded whole, before there is an engine. The two programs take a fifth of a second under
//! emulation, so the data disk is looked at meanwhile.

use std::fs::File;
use std::io;
use std::process::{Child, Command, Output, Stdio};

/// A program and the rules that it loads.
const TABLES: [(&str, &str); 2] = [
    ("/usr/sbin/iptables-restore", "/etc/eci/firewall.v4"),
    ("/usr/sbin/ip6tables-restore", "/etc/eci/firewall.v6"),
];

/// Why it is not in force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules or the program are missing.
    #[error("cannot start `{program}` with `{rules}`")]
    Start {
        /// The program.
        program: &'static str,
        /// Its rules.
        rules: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The rules are not taken.
    #[error("`{program}` does not take `{rules}`: {said}")]
    Refused {
        /// The program.
        program: &'static str,
        /// Its rules.
        rules: &'static str,
        /// The last line of what it said.
        said: String,
    },
}

/// The programs, at work.
#[derive(Debug, Default)]
pub struct Loading(Vec<(&'static str, &'static str, Child)>);

/// Begins to load the rules of IPv4 and of IPv6.
///
/// # Errors
/// When a program or its rules are missing.
pub fn start() -> Result<Loading, Error> {
    let start = |(program, rules)| {
        let child = File::open(rules).and_then(|file| {
            let mut command = Command::new(program);
            command.env_clear().stdin(file).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
        });
        let child = child.map_err(|source| Error::Start { program, rules, source })?;
        Ok((program, rules, child))
    };
    TABLES.into_iter().map(start).collect::<Result<_, _>>().map(Loading)
}

impl Loading {
    /// Waits until all rules are in force.
    ///
    /// # Errors
    /// When they are not.
    pub fn finish(self) -> Result<(), Error> {
        for (program, rules, child) in self.0 {
            let output = child.wait_with_output();
            judge(program, rules, &output.map_err(|source| Error::Start { program, rules, source })?)?;
        }
        Ok(())
    }
}

fn judge(program: &'static str, rules: &'static str, output: &Output) -> Result<(), Error> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    Err(Error::Refused { program, rules, said: last.unwrap_or("no output").trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    const SHIPPED: [&str; 2] = [
        include_str!("../../../rootfs/overlay/etc/eci/firewall.v4"),
        include_str!("../../../rootfs/overlay/etc/eci/firewall.v6"),
    ];

    #[test]
    fn the_shipped_rules_drop_what_they_do_not_name() {
        for rules in SHIPPED {
            assert!(rules.contains(":INPUT DROP") && rules.trim_end().ends_with("COMMIT"));
            assert!(!rules.contains("--dport"), "no port is open");
        }
    }

    #[test]
    fn refused_rules_are_told_with_the_last_line() {
        let output = Output {
            status: ExitStatus::from_raw(2 << 8),
            stdout: vec![],
            stderr: b"one\niptables-restore: line 6 failed\n".to_vec(),
        };
        let error = judge("iptables-restore", "/r", &output).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`iptables-restore` does not take `/r`: iptables-restore: line 6 failed"
        );
    }
}
