//! The superblock of a verity partition, 512 bytes little-endian, as cryptsetup's `struct verity_sb` lays it out.

use uuid::Uuid;

use super::BLOCK_BYTES;

/// Size of the superblock, in bytes.
pub const SUPERBLOCK_BYTES: usize = 512;

const MAGIC: &[u8; 8] = b"verity\0\0";
const VERSION: u32 = 1;
/// Salt is hashed before the block; 0 would be Chrome OS's, after it.
const HASH_TYPE: u32 = 1;
const ALGORITHM: &[u8] = b"sha256";
/// What the field can hold; cryptsetup's own limit.
const MAX_SALT_BYTES: usize = 256;

/// What a superblock of ours says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// UUID of the tree.
    pub uuid: Uuid,
    /// Salt, 256 bytes at most.
    pub salt: Vec<u8>,
    /// Number of data blocks that the tree covers.
    pub data_blocks: u64,
}

/// Why bytes are not a superblock of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// Too few bytes, or no magic number.
    #[error("there is no verity superblock")]
    Absent,
    /// A field that has one right value has another.
    #[error("the verity superblock's {field} is not `{expected}`")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// The only accepted value.
        expected: &'static str,
    },
    /// The salt's length is more than the field holds.
    #[error("the verity superblock's salt is {bytes} bytes long, more than {MAX_SALT_BYTES}")]
    Salt {
        /// Its length as given.
        bytes: u16,
    },
    /// Bytes that must be zero are not.
    #[error("the verity superblock has other bytes than zeros in its padding")]
    Padding,
}

impl Superblock {
    /// The 512 bytes.
    ///
    /// # Panics
    /// When the salt is longer than 256 bytes, which no superblock can say.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SUPERBLOCK_BYTES] {
        assert!(self.salt.len() <= MAX_SALT_BYTES, "a verity salt has 256 bytes at most");
        let salt_size = u16::try_from(self.salt.len()).expect("256 fits in 16 bits");
        let block_size = u32::try_from(BLOCK_BYTES).expect("4096 fits in 32 bits").to_le_bytes();
        let mut bytes = [0; SUPERBLOCK_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&HASH_TYPE.to_le_bytes());
        bytes[16..32].copy_from_slice(self.uuid.as_bytes());
        bytes[32..32 + ALGORITHM.len()].copy_from_slice(ALGORITHM);
        bytes[64..68].copy_from_slice(&block_size);
        bytes[68..72].copy_from_slice(&block_size);
        bytes[72..80].copy_from_slice(&self.data_blocks.to_le_bytes());
        bytes[80..82].copy_from_slice(&salt_size.to_le_bytes());
        bytes[88..88 + self.salt.len()].copy_from_slice(&self.salt);
        bytes
    }

    /// Reads a superblock, accepting only what [`Superblock::to_bytes`] can write.
    ///
    /// # Errors
    /// [`SuperblockError`] names the field.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SuperblockError> {
        let bytes: &[u8; SUPERBLOCK_BYTES] = bytes
            .get(..SUPERBLOCK_BYTES)
            .and_then(|bytes| bytes.try_into().ok())
            .filter(|bytes: &&[u8; SUPERBLOCK_BYTES]| bytes.starts_with(MAGIC))
            .ok_or(SuperblockError::Absent)?;
        let salt_size = u16::from_le_bytes([bytes[80], bytes[81]]);
        if usize::from(salt_size) > MAX_SALT_BYTES {
            return Err(SuperblockError::Salt { bytes: salt_size });
        }
        let read = Self {
            uuid: Uuid::from_bytes(bytes[16..32].try_into().expect("16 bytes")),
            salt: bytes[88..88 + usize::from(salt_size)].to_vec(),
            data_blocks: u64::from_le_bytes(bytes[72..80].try_into().expect("8 bytes")),
        };
        read.explain_difference(bytes)?;
        Ok(read)
    }

    /// Says which fixed field keeps `bytes` from being what we would write.
    fn explain_difference(&self, bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<(), SuperblockError> {
        let ours = self.to_bytes();
        for (field, range, expected) in [
            ("version", 8..12, "1"),
            ("hash type", 12..16, "1"),
            ("algorithm", 32..64, "sha256"),
            ("data block size", 64..68, "4096"),
            ("hash block size", 68..72, "4096"),
        ] {
            if bytes[range.clone()] != ours[range] {
                return Err(SuperblockError::Field { field, expected });
            }
        }
        if *bytes == ours { Ok(()) } else { Err(SuperblockError::Padding) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Superblock {
        Superblock { uuid: Uuid::from_bytes([7; 16]), salt: vec![9; 32], data_blocks: 51_200 }
    }

    #[test]
    fn reads_back_what_it_wrote() {
        assert_eq!(Superblock::from_bytes(&example().to_bytes()), Ok(example()));
    }

    #[test]
    fn any_changed_fixed_byte_is_refused_with_its_field() {
        for (position, message) in [
            (0, "there is no verity superblock"),
            (8, "the verity superblock's version is not `1`"),
            (12, "the verity superblock's hash type is not `1`"),
            (37, "the verity superblock's algorithm is not `sha256`"),
            (65, "the verity superblock's data block size is not `4096`"),
            (69, "the verity superblock's hash block size is not `4096`"),
            (81, "the verity superblock's salt is 288 bytes long, more than 256"),
            (83, "the verity superblock has other bytes than zeros in its padding"),
            (511, "the verity superblock has other bytes than zeros in its padding"),
        ] {
            let mut bytes = example().to_bytes();
            bytes[position] ^= 1;
            let error = Superblock::from_bytes(&bytes).expect_err("a byte was changed");
            assert_eq!(error.to_string(), message);
        }
        assert_eq!(Superblock::from_bytes(&[0; 100]), Err(SuperblockError::Absent));
    }
}
