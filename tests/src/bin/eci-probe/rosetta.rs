//! Under the name `rosetta`, the program stands in for Apple's: it says what the kernel had it run, and as whom.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use rustix::process::{geteuid, getuid};

/// Its name.
const NAME: &str = "rosetta";
/// Key of a descriptor of the program in the auxiliary vector: `AT_EXECFD` of getauxval(3).
const EXECFD: u64 = 2;

/// Whether the kernel started it in place of another program.
pub fn is_meant() -> bool {
    env::args_os().next().is_some_and(|name| Path::new(&name).file_name() == Some(OsStr::new(NAME)))
}

/// Prints `rosetta: PROGRAM [ARGUMENTS] for MACHINE as UID/EUID`, where the machine is the one that the program's own header names.
pub fn say() -> io::Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [program, rest @ ..] = arguments.as_slice() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let (user, effective) = (getuid().as_raw(), geteuid().as_raw());
    let machine = machine_of_program()?;
    writeln!(io::stdout(), "{NAME}: {program} {rest:?} for {machine:#x} as {user}/{effective}")
}

/// `e_machine` of the program that was executed, read by the descriptor that the kernel opened.
fn machine_of_program() -> io::Result<u16> {
    let vector = fs::read("/proc/self/auxv")?;
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_ne_bytes).ok();
    let mut entries =
        vector.chunks_exact(16).filter_map(|entry| Some((number(&entry[..8])?, number(&entry[8..])?)));
    let (_, descriptor) =
        entries.find(|(key, _)| *key == EXECFD).ok_or(io::Error::other("no descriptor of the program"))?;
    let mut header = [0; 20];
    File::open(format!("/proc/self/fd/{descriptor}"))?.read_exact(&mut header)?;
    Ok(u16::from_le_bytes([header[18], header[19]]))
}
