//! `--version`, in the form that dockerd parses.

use eci_contract::paths::CRUN;
use std::process::Command;

/// The lines: dockerd takes name and version from the last line with the word "version" in it, so crun's has none.
#[must_use]
pub fn text() -> String {
    let output = Command::new(CRUN).arg("--version").output();
    let crun = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    format(&crun)
}

fn format(crun: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let features = crun.lines().find(|line| line.starts_with('+')).unwrap_or_default();
    let crun = crun.lines().next().and_then(|line| line.strip_prefix("crun version ")).unwrap_or("not found");
    format!("eci-runc version {version}\ncommit: {version}\nspec: 1.0.0\ncrun: {crun}\n{features}\n")
        .trim_end()
        .to_owned()
        + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockerd_finds_our_name_and_version() {
        let text = format("crun version 1.21\ncommit: x\n+SYSTEMD +SECCOMP\n");
        assert!(text.starts_with("eci-runc version ") && text.ends_with("crun: 1.21\n+SYSTEMD +SECCOMP\n"));
        assert_eq!(text.matches("version").count(), 1);
    }
}
