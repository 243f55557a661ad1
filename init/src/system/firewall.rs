//! The firewall of the VM itself: loaded whole, before there is an engine. The two programs take a fifth of a second under
//! emulation, so the data disk is looked at meanwhile.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use super::program;

/// A program and the rules that it loads.
const TABLES: [(&str, &str); 2] = [
    ("/usr/sbin/iptables-restore", "/etc/eci/firewall.v4"),
    ("/usr/sbin/ip6tables-restore", "/etc/eci/firewall.v6"),
];

/// Rules that are not in force.
#[derive(Debug, thiserror::Error)]
#[error("the firewall's rules `{rules}` are not in force")]
pub struct Error {
    rules: &'static str,
    source: program::Error,
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
        let child =
            child.map_err(|source| Error { rules, source: program::Error::Start { program, source } })?;
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
            let output = child.wait_with_output().map_err(|source| program::Error::Start { program, source });
            let judged = output.and_then(|output| program::judge(program, &output, 0));
            judged.map_err(|source| Error { rules, source })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
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
}
