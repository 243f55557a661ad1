//! Factory reset: an instance as it is when it boots its version for the first time.
//!
//! Invariant: the version that last got the engine ready stays, and is booted next. An older one would be a downgrade.

use eci_contract::disk::{BootCount, Slot};
use eci_slots::Table;

use super::home::{Home, Lock, UpdateLock};
use super::own_disk::{Error, OwnDisk, proven, remove_file, remove_folder};

/// What becomes of the data disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// It stays.
    Keep,
    /// It is removed; the next start makes an empty one.
    Wipe,
}

/// Drops an update that waits or is on trial, and the data. Cut off at any moment, it is done by the next call.
///
/// # Errors
/// [`Error`]; the instance boots all the same.
pub fn reset(home: &Home, _held: &Lock, _updating: &UpdateLock, data: Data) -> Result<(), Error> {
    remove_folder(&home.next())?;
    if let Some(own) = OwnDisk::of(home) {
        own.change(settle)?;
    }
    if data == Data::Wipe {
        remove_file(&home.data_disk())?;
        // The TPM stays the one that it is, as on a board.
        remove_file(&home.firmware_variables())?;
    }
    Ok(())
}

/// Leaves the proven slot that goes before the other. Where none is proven, nothing is changed: something has to boot.
fn settle(table: &mut Table) -> Result<(), eci_slots::Error> {
    let Some(kept) = proven(table) else { return Ok(()) };
    for slot in Slot::ALL.into_iter().filter(|slot| *slot != kept) {
        if !table.count(slot)?.successful {
            table.set_count(slot, BootCount::NEVER)?;
        }
    }
    table.set_count(kept, BootCount::PROVEN)
}
