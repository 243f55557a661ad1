//! `eci-builder doctor`: what this host lacks, each with the line that mends it.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use rustix::fs::statvfs;
use serde_json::{Value, json};

use super::build::SANDBOX_HINT;
use super::exit::{Classify, Exit};
use super::print_data;
use crate::cache::Cache;
use crate::instance::accel::{self, Kvm};
use crate::instance::shares;
use crate::tool;
use crate::toolchain;
use crate::ui::{Ui, human_size};

/// Version of what `--json` prints.
const JSON_VERSION: u32 = 1;
/// A kernel build needs about 3 GiB, packages and artifacts 1 GiB.
const NEEDED_BYTES: u64 = 5 << 30;

/// What a row of the table needs.
enum Need {
    /// A program in PATH.
    Program(&'static str),
    /// A file, and what it is called in the table.
    File(&'static str, &'static str),
}

/// What the lack of something means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// A subcommand cannot do its work.
    Needed,
    /// Everything works without it.
    Useful,
}

struct Row {
    need: Need,
    weight: Weight,
    why: &'static str,
    fix: &'static str,
}

const ROWS: &[Row] = &[
    program(OWN_QEMU.0, "runs the appliance", OWN_QEMU.1),
    program("qemu-img", "writes the qcow2 image, checks the VHDX one", "apt-get install qemu-utils"),
    program("apt-get", "resolves and authenticates packages", "build on Debian or Ubuntu"),
    program("dpkg-deb", "unpacks the toolchain", "build on Debian or Ubuntu"),
    program("cargo", "brings the crates of the guest's programs", "install Rust 1.85 or later"),
    program("openssl", "makes keys for Secure Boot", "apt-get install openssl"),
    file(
        "debian-archive-keyring",
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "authenticates Debian's packages",
        "apt-get install debian-archive-keyring",
    ),
    useful(OTHER_QEMU.0, "runs images for the other architecture", OTHER_QEMU.1),
    useful("swtpm", "is the TPM of `run --tpm`", "apt-get install swtpm"),
    useful("skopeo", "pushes images to registries and pulls them", "apt-get install skopeo"),
    useful(
        "docker",
        "talks to the engine; other clients can",
        "apt-get install docker-cli, or docker.io where there is none",
    ),
];

/// Programs for images of this host's architecture and of the other, each with what installs it.
const QEMU_X86_64: (&str, &str) = ("qemu-system-x86_64", "apt-get install qemu-system-x86");
const QEMU_AARCH64: (&str, &str) = ("qemu-system-aarch64", "apt-get install qemu-system-arm");
const IS_ARM: bool = cfg!(target_arch = "aarch64");
const OWN_QEMU: (&str, &str) = if IS_ARM { QEMU_AARCH64 } else { QEMU_X86_64 };
const OTHER_QEMU: (&str, &str) = if IS_ARM { QEMU_X86_64 } else { QEMU_AARCH64 };

const fn program(name: &'static str, why: &'static str, fix: &'static str) -> Row {
    Row { need: Need::Program(name), weight: Weight::Needed, why, fix }
}

const fn useful(name: &'static str, why: &'static str, fix: &'static str) -> Row {
    Row { need: Need::Program(name), weight: Weight::Useful, why, fix }
}

const fn file(shown: &'static str, path: &'static str, why: &'static str, fix: &'static str) -> Row {
    Row { need: Need::File(shown, path), weight: Weight::Needed, why, fix }
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
    weight: Weight,
    why: String,
    fix: &'static str,
}

/// Runs the subcommand.
///
/// # Errors
/// When something is missing that a subcommand cannot do without.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let cache = Cache::open().or_exit(Exit::Host)?;
    let mut findings: Vec<Finding> = ROWS.iter().map(look).collect();
    findings.push(sandbox(&toolchain::probe(ui)));
    findings.push(virtiofsd(&shares::program()));
    findings.push(kvm(&accel::known(&cache).or_exit(Exit::Host)?));
    findings.push(space(&cache)?);
    if args.json {
        let rows: Vec<Value> = findings.iter().map(Finding::to_json).collect();
        print_data(&json!({ "version": JSON_VERSION, "findings": rows }).to_string())?;
    } else {
        let rows: Vec<String> = findings.iter().map(|finding| finding.line(ui)).collect();
        print_data(&rows.join("\n"))?;
    }
    match findings.iter().filter(|finding| finding.is_lacking()).count() {
        0 => Ok(()),
        1 => Err(anyhow!("this host lacks one thing")).or_exit(Exit::Host),
        lacking => Err(anyhow!("this host lacks {lacking} things")).or_exit(Exit::Host),
    }
}

impl Finding {
    fn is_lacking(&self) -> bool {
        !self.present && self.weight == Weight::Needed
    }

    fn to_json(&self) -> Value {
        json!({ "what": self.what, "present": self.present, "needed": self.weight == Weight::Needed,
            "why": self.why, "fix": self.fix })
    }

    fn line(&self, ui: &Ui) -> String {
        // Padded before it is painted: escape sequences have no width.
        let (colour, verdict) = match (self.present, self.weight) {
            (true, _) => ("32", "ok"),
            (false, Weight::Needed) => ("31", "missing"),
            (false, Weight::Useful) => ("33", "note"),
        };
        let verdict = ui.paint(colour, &format!("{verdict:<8}"));
        let fix = if self.present { String::new() } else { format!(": {}", self.fix) };
        format!("{verdict} {:<24} {}{fix}", self.what, self.why)
    }
}

fn look(row: &Row) -> Finding {
    let (what, present) = match row.need {
        Need::Program(name) => (name, tool::is_in_path(name)),
        Need::File(shown, path) => (shown, Path::new(path).exists()),
    };
    Finding { what: what.to_owned(), present, weight: row.weight, why: row.why.to_owned(), fix: row.fix }
}

/// Compilers run in it, and nothing else of this host is there.
fn sandbox(probed: &Result<(), tool::Error>) -> Finding {
    let why = match probed {
        Ok(()) => "gives compilers a sandbox".to_owned(),
        Err(error) => format!("gives compilers a sandbox: {error}").replace("\n    ", ": "),
    };
    let what = toolchain::PROGRAM.to_owned();
    Finding { what, present: probed.is_ok(), weight: Weight::Needed, why, fix: SANDBOX_HINT }
}

/// Only shares need it.
fn virtiofsd(program: &Result<PathBuf, shares::Error>) -> Finding {
    let why = match program {
        Ok(_) => "shares folders of this host with containers (`run --share`)".to_owned(),
        Err(error) => format!("shares folders of this host with containers: {error}"),
    };
    let fix = "apt-get install virtiofsd, or `cargo install --locked virtiofsd`";
    let what = shares::PROGRAM.to_owned();
    Finding { what, present: program.is_ok(), weight: Weight::Useful, why, fix }
}

/// KVM only makes the VM faster; some hosts have one that does not run guests.
fn kvm(known: &Kvm) -> Finding {
    let (present, why, fix) = match known {
        Kvm::Works => (true, "usable: it ran a guest".to_owned(), ""),
        Kvm::NotTried => {
            (false, "not tried since the host was booted".to_owned(), "`eci-builder run` tries it")
        }
        Kvm::Silent => (
            false,
            "not usable: a guest under it prints nothing".to_owned(),
            "this host's hypervisor does not let it nest; `run` emulates, which is slower",
        ),
        Kvm::Closed(error) => (false, format!("not usable: cannot open /dev/kvm: {error}"), kvm_fix(error)),
    };
    Finding { what: "KVM".to_owned(), present, weight: Weight::Useful, why, fix }
}

fn kvm_fix(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "add yourself to the group `kvm` and log in again"
    } else {
        "switch virtualization on in the firmware or the hypervisor; `run` emulates otherwise, which is slower"
    }
}

fn space(cache: &Cache) -> anyhow::Result<Finding> {
    let system = statvfs(&cache.folder("").or_exit(Exit::Host)?)?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    Ok(Finding {
        what: format!("{} free", human_size(free)),
        present: free >= NEEDED_BYTES,
        weight: Weight::Needed,
        why: "holds packages, kernel builds and artifacts".to_owned(),
        fix: "free 5 GiB, or set XDG_CACHE_HOME to a folder on another disk",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_comes_with_its_fix() {
        let missing = look(&program("eci-no-such-program", "is needed", "apt-get install it"));
        assert!(missing.is_lacking());
        let line = missing.line(&Ui::silent());
        assert!(line.starts_with("missing ") && line.ends_with("is needed: apt-get install it"), "{line}");
        assert!(look(&program("sh", "is needed", "")).present);
    }

    #[test]
    fn kvm_is_shown_with_its_reason_and_is_never_lacking() {
        let closed = |kind: io::ErrorKind| Kvm::Closed(kind.into());
        for (known, words) in [
            (Kvm::Works, "usable: it ran a guest"),
            (Kvm::NotTried, "not tried since the host was booted: `eci-builder run` tries it"),
            (Kvm::Silent, "a guest under it prints nothing: this host's hypervisor"),
            (closed(io::ErrorKind::NotFound), "entity not found: switch virtualization on"),
            (closed(io::ErrorKind::PermissionDenied), "permission denied: add yourself to the group `kvm`"),
        ] {
            let finding = kvm(&known);
            assert!(!finding.is_lacking());
            let line = finding.line(&Ui::silent());
            assert!(line.contains(words), "{line}");
        }
    }
}
