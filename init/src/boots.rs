//! Boot counting: what a boot leaves in the partition table of the disk that it came from.
//!
//! Why: whatever stops a machine for good stops it at every boot, and hypervisors start a machine that panicked again. A slot has
//! three tries. One on trial uses them up, and the version before is booted; a proven one gets all of them back as soon as a boot has
//! come to an end that somebody can see, and is not booted without any.

use std::fs::File;
use std::io;
use std::path::Path;

use eci_slots::{Table, table};

use crate::handover::Handover;
use crate::kmsg;

/// Why a boot is not counted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk cannot be opened to be written.
    #[error("cannot open disk {disk} to count boots")]
    Open {
        /// Disk name.
        disk: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The disk can be opened.
    #[error("cannot count boots on disk {disk}")]
    Table {
        /// Disk name.
        disk: String,
        /// Why the partition table was not changed.
        source: eci_slots::Error,
    },
}

impl Error {
    /// Whether nobody writes to the disk, as to an image that many machines boot from.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        matches!(self, Self::Open { source, .. } if [PermissionDenied, ReadOnlyFilesystem].contains(&source.kind()))
    }
}

/// Changes the partition table of a disk, with sectors of `sector` bytes.
///
/// # Errors
/// The table is as it was.
pub fn change(
    disk: &str,
    sector: u64,
    change: impl FnOnce(&mut Table) -> Result<(), eci_slots::Error>,
) -> Result<(), Error> {
    let name = || disk.to_owned();
    let file = File::options().read(true).write(true).open(Path::new("/dev").join(disk));
    let file = file.map_err(|source| Error::Open { disk: name(), source })?;
    table::change(&file, sector, change).map_err(|source| Error::Table { disk: name(), source })
}

/// A boot of a proven slot has come to an end: an engine, a refusal, or a shutdown.
pub fn note_end(handover: &mut Handover) {
    if !handover.counted || handover.on_trial {
        return;
    }
    handover.counted = false;
    let slot = handover.slot;
    let give_back = |table: &mut Table| table.set_count(slot, table.count(slot)?.after_an_end());
    if let Err(error) = change(&handover.disk, handover.sector, give_back) {
        kmsg::error(&format!("slot {slot}: {}", kmsg::chain(&error)));
    }
}
