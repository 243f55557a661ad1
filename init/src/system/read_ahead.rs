//! Reads the programs of services into memory before they are started, beside the other boot steps.
//!
//! dockerd and containerd are position-independent and 150 MB together: their relocations touch nearly every page, and
//! each fault decompresses 64 KiB for the 4 KiB it wants. In order and whole, the same bytes come in 1.4 s instead of
//! 3.5 s under TCG, on a processor that boot leaves idle.

use std::fs::File;
use std::io::{self, Read};
use std::process::{Command, Stdio};

use super::services::Supervisor;

/// The argument that makes `init` this helper; never PID 1.
pub const ROLE: &str = "read-ahead";

/// Bytes a read asks for: enough for the kernel's own read-ahead to run in its largest steps.
const STEP: usize = 1 << 20;

/// Starts the helper for the programs of all services, in the order of start.
///
/// # Errors
/// When no process can be made.
pub fn start(supervisor: &Supervisor) -> io::Result<()> {
    let programs = supervisor.services.iter().filter_map(|service| service.program());
    let mut command = Command::new("/usr/sbin/init");
    command.arg(ROLE).args(programs).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // PID 1 reaps it with all other orphans.
    command.spawn().map(drop)
}

/// The helper: reads the files that it was given, one after another.
pub fn run() -> ! {
    let mut buffer = vec![0; STEP];
    for program in std::env::args_os().skip(2) {
        // A program that cannot be read is told of when it is started.
        let Ok(mut file) = File::open(program) else { continue };
        while file.read(&mut buffer).is_ok_and(|length| length > 0) {}
    }
    std::process::exit(0)
}
