//! What the user of a machine chooses (`run --isolation`), told to it by a small disk ([`eci_contract::choice`]).

use std::fs;
use std::io;
use std::path::Path;

use eci_contract::choice::{Choice, Switch, VERSION};
use eci_contract::json_disk::carrying;

/// Writes the disk.
///
/// # Errors
/// It cannot be written.
pub fn write_disk(isolation: Switch, path: &Path) -> io::Result<()> {
    let choice = Choice { version: VERSION, isolation };
    fs::write(path, carrying(serde_json::to_vec(&choice).expect("a number and a word are JSON")))
}
