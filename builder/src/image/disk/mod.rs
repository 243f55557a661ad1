//! The disk: a GPT by the Discoverable Partitions Specification, with an EFI system partition, slots A and B and a data
//! partition.
//!
//! Slot B is as large as slot A and empty: it is for the next version. The data partition is last, so that it can grow
//! with the disk. The root and verity partitions' UUIDs are the halves of the root hash, every other UUID derives from
//! it too. Firmware boots what is on the EFI system partition; under a hypervisor's direct boot nobody looks at it.

mod layout;
mod read;
mod write;

use std::io;
use std::path::PathBuf;

use uuid::Uuid;

pub use layout::{Layout, READ_ONLY, Sizes, esp_uuid, esp_volume, plan, plan_cd, slot_uuids};
pub use read::{Table, partition, read};
pub use write::{Contents, copy_sparse, fill, rewrite, write};

/// Alignment of every partition and of the disk's size, in bytes.
pub const ALIGNMENT: u64 = 1024 * 1024;
/// Bytes of a sector: the unit of a GPT's addresses.
pub const SECTOR: u64 = 512;

/// Why a disk image cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A partition's size cannot be laid out.
    #[error("the size of the {partition} partition, {bytes} bytes, is not a positive multiple of 1 MiB")]
    Size {
        /// Which one.
        partition: &'static str,
        /// What was asked for.
        bytes: u64,
    },
    /// What goes into a partition is larger than it.
    #[error("{bytes} bytes do not fit in the partition `{partition}` of {room} bytes")]
    TooLarge {
        /// Name of the partition.
        partition: String,
        /// Size of what should go in.
        bytes: u64,
        /// Size of the partition.
        room: u64,
    },
    /// The partition table cannot be written.
    #[error("cannot write the partition table of `{}`", .path.display())]
    WriteTable {
        /// The disk image.
        path: PathBuf,
        /// What the GPT library said.
        source: gpt::GptError,
    },
    /// A file cannot be read or written.
    #[error("cannot {operation} `{}`", .path.display())]
    File {
        /// "read" or "write".
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no sound partition table.
    #[error("`{}` has no sound partition table", .path.display())]
    ReadTable {
        /// The disk image.
        path: PathBuf,
        /// What the GPT library said.
        source: gpt::GptError,
    },
    /// One of the two copies of the partition table is damaged.
    #[error("the {copy} partition table of `{}` is damaged", .path.display())]
    Header {
        /// "primary" or "backup".
        copy: &'static str,
        /// The disk image.
        path: PathBuf,
        /// What the GPT library said.
        source: gpt::header::HeaderError,
    },
}

/// A partition, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// GPT partition name.
    pub name: String,
    /// Partition type.
    pub kind: Uuid,
    /// The partition's own UUID.
    pub uuid: Uuid,
    /// Where it starts on the disk.
    pub start: u64,
    /// How long it is.
    pub length: u64,
    /// GPT attribute bits.
    pub attributes: u64,
}

#[cfg(test)]
mod tests;
