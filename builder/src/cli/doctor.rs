//! `eci-builder doctor`: what this host lacks, each with the line that mends it.

use std::env;
use std::path::Path;

use anyhow::anyhow;
use rustix::fs::statvfs;
use serde_json::{Value, json};

use super::exit::{Classify, Exit};
use super::print_data;
use crate::cache::Cache;
use crate::ui::{Ui, human_size};

/// Version of what `--json` prints.
const JSON_VERSION: u32 = 1;
/// A kernel build needs about 3 GiB, packages and artifacts 1 GiB.
const NEEDED_BYTES: u64 = 5 << 30;

/// What a row of the table needs.
enum Need {
    /// A program in PATH.
    Program(&'static str),
    /// One of these files.
    AnyFile(&'static [&'static str]),
}

struct Row {
    need: Need,
    why: &'static str,
    fix: &'static str,
}

const ROWS: &[Row] = &[
    program("qemu-system-x86_64", "runs the appliance", "apt-get install qemu-system-x86"),
    program("qemu-img", "writes the qcow2 image", "apt-get install qemu-utils"),
    program("mkfs.erofs", "makes the root file system", "apt-get install erofs-utils"),
    program("apt-get", "resolves and authenticates packages", "build on Debian or Ubuntu"),
    program("cargo", "compiles the guest programs", "install Rust 1.85 or later"),
    program("gcc", "compiles the kernel", "apt-get install gcc"),
    program("make", "compiles the kernel", "apt-get install make"),
    program("flex", "compiles the kernel", "apt-get install flex"),
    program("bison", "compiles the kernel", "apt-get install bison"),
    program("bc", "compiles the kernel", "apt-get install bc"),
    Row {
        need: Need::AnyFile(&["/usr/include/libelf.h", "/usr/include/x86_64-linux-gnu/libelf.h"]),
        why: "compiles the kernel's tools",
        fix: "apt-get install libelf-dev",
    },
    Row {
        need: Need::AnyFile(&["/usr/include/openssl/ssl.h"]),
        why: "compiles the kernel's tools",
        fix: "apt-get install libssl-dev",
    },
    Row {
        need: Need::AnyFile(&["/usr/share/keyrings/debian-archive-keyring.gpg"]),
        why: "authenticates Debian's packages",
        fix: "apt-get install debian-archive-keyring",
    },
];

const fn program(name: &'static str, why: &'static str, fix: &'static str) -> Row {
    Row { need: Need::Program(name), why, fix }
}

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

struct Finding {
    what: String,
    present: bool,
    why: &'static str,
    fix: &'static str,
}

/// Runs the subcommand.
///
/// # Errors
/// When something is missing.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let mut findings: Vec<Finding> = ROWS.iter().map(look).collect();
    findings.push(space()?);
    if args.json {
        let rows: Vec<Value> = findings.iter().map(Finding::to_json).collect();
        print_data(&json!({ "version": JSON_VERSION, "findings": rows }).to_string())?;
    } else {
        let rows: Vec<String> = findings.iter().map(|finding| finding.line(ui)).collect();
        print_data(&rows.join("\n"))?;
    }
    let missing = findings.iter().filter(|finding| !finding.present).count();
    if missing == 0 { Ok(()) } else { Err(anyhow!("this host lacks {missing} things")).or_exit(Exit::Host) }
}

impl Finding {
    fn to_json(&self) -> Value {
        json!({ "what": self.what, "present": self.present, "why": self.why, "fix": self.fix })
    }

    fn line(&self, ui: &Ui) -> String {
        if self.present {
            format!("{}       {:<24} {}", ui.paint("32", "ok"), self.what, self.why)
        } else {
            format!("{}  {:<24} {}: {}", ui.paint("31", "missing"), self.what, self.why, self.fix)
        }
    }
}

fn look(row: &Row) -> Finding {
    let (what, present) = match row.need {
        Need::Program(name) => (name.to_owned(), in_path(name)),
        Need::AnyFile(files) => (
            files.first().copied().unwrap_or_default().to_owned(),
            files.iter().any(|file| Path::new(file).exists()),
        ),
    };
    Finding { what, present, why: row.why, fix: row.fix }
}

fn in_path(name: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(name).is_file()))
}

fn space() -> anyhow::Result<Finding> {
    let cache = Cache::open().or_exit(Exit::Host)?.folder("").or_exit(Exit::Host)?;
    let system = statvfs(&cache)?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    Ok(Finding {
        what: format!("{} free", human_size(free)),
        present: free >= NEEDED_BYTES,
        why: "holds packages, kernel builds and artifacts",
        fix: "free 5 GiB, or set XDG_CACHE_HOME to a folder on another disk",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_comes_with_its_fix() {
        let missing = look(&program("eci-no-such-program", "is needed", "apt-get install it"));
        assert!(!missing.present);
        assert!(missing.line(&Ui::silent()).ends_with("is needed: apt-get install it"));
        assert!(look(&program("sh", "is needed", "")).present);
    }
}
