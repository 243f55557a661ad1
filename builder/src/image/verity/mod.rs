//! dm-verity in Rust: hash tree and superblock, byte for byte what `veritysetup format` writes.
//!
//! Format: hash type 1 (salt before data), SHA-256, blocks of 4096 bytes on both sides, superblock in hash block 0,
//! then the levels of the tree from the top down. Documented in the kernel's `device-mapper/verity.rst` and
//! cryptsetup's `DMVerity` page.

mod lanes;
mod superblock;
mod tree;

use std::io;

use super::digest::Sha256;
use super::region::Region;

pub use superblock::{SUPERBLOCK_BYTES, Superblock, SuperblockError};
pub use tree::{Difference, Tree, first_difference};

/// Size of data and hash blocks, in bytes; the page size of every platform we boot on.
pub const BLOCK_BYTES: u64 = 4096;
/// The same, as the length of a buffer.
pub(crate) const BLOCK: usize = 4096;
/// Where the tree begins in its partition, in blocks: after the superblock.
pub const HASH_START_BLOCK: u64 = 1;
/// Bytes of salt that our images carry: one digest.
pub const SALT_BYTES: usize = 32;

/// Why a hash tree cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data is empty or ends inside a block.
    #[error("{bytes} bytes of data are not a whole number of blocks of {BLOCK_BYTES} bytes, at least one")]
    Size {
        /// Size of the data.
        bytes: u64,
    },
    /// The tree does not fit in this machine's memory; it is a 128th of the data.
    #[error("{bytes} bytes of data are too many to hash on this machine")]
    TooLarge {
        /// Size of the data.
        bytes: u64,
    },
    /// The data cannot be read.
    #[error("cannot read data block {block}")]
    Read {
        /// Number of the first block of the read.
        block: u64,
        /// What the system said.
        source: io::Error,
    },
}

/// Salt and UUID of a tree. Both derive from the data, so that equal data gives equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Hashed before every block.
    pub salt: [u8; SALT_BYTES],
    /// UUID in the superblock.
    pub uuid: uuid::Uuid,
}

impl Identity {
    /// Identity for data with this SHA-256.
    #[must_use]
    pub fn of_data(data: Sha256) -> Self {
        let salt = Sha256::of(&[b"eci verity salt", &data.0]);
        Self { salt: salt.0, uuid: super::content_uuid("eci verity uuid", &data.0) }
    }
}

/// Computes the hash tree of `data` with `salt` on all cores.
///
/// # Errors
/// [`Error`]; nothing is written anywhere.
pub fn hash(data: Region<'_>, salt: &[u8]) -> Result<Tree, Error> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    tree::compute(data, salt, threads)
}

/// The verity partition's bytes: superblock, padded to a block, and tree.
#[must_use]
pub fn partition_bytes(identity: &Identity, tree: &Tree) -> Vec<u8> {
    let superblock =
        Superblock { uuid: identity.uuid, salt: identity.salt.to_vec(), data_blocks: tree.data_blocks() };
    let mut bytes = superblock.to_bytes().to_vec();
    bytes.resize(BLOCK, 0);
    bytes.extend_from_slice(tree.bytes());
    bytes
}

#[cfg(test)]
mod tests;
