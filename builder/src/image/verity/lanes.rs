//! Digests of many data blocks: several at a time where the processor can, one by one elsewhere.

use eci_sys::sha256::{BLOCK as MESSAGE_BLOCK, INITIAL, LANES, Lanes};

use super::super::digest::Sha256;
use super::BLOCK;

/// Bytes of a digest.
const DIGEST: usize = 32;
/// Where the length stands in the last message block.
const LENGTH_AT: usize = MESSAGE_BLOCK - 8;

/// Puts the digest of `salt` and each block of `blocks` into `digests`.
pub(super) fn hash(salt: &[u8], blocks: &[u8], digests: &mut [u8]) {
    let mut rest = (blocks, digests);
    if let (Some(lanes), Ok(salt)) = (Lanes::detect(), <&[u8; DIGEST]>::try_from(salt)) {
        let whole = rest.0.len() / (LANES * BLOCK);
        let (head, tail) = rest.0.split_at(whole * LANES * BLOCK);
        let (head_digests, tail_digests) = rest.1.split_at_mut(whole * LANES * DIGEST);
        for (group, digests) in
            head.chunks_exact(LANES * BLOCK).zip(head_digests.chunks_exact_mut(LANES * DIGEST))
        {
            hash_group(lanes, salt, group, digests);
        }
        rest = (tail, tail_digests);
    }
    for (block, digest) in rest.0.chunks_exact(BLOCK).zip(rest.1.chunks_exact_mut(DIGEST)) {
        digest.copy_from_slice(&Sha256::of(&[salt, block]).0);
    }
}

/// Hashes as many blocks as there are lanes. A salt of half a message block puts the data off by half of one: the first
/// and the last message block are put together here, all between are read where they lie.
fn hash_group(lanes: Lanes, salt: &[u8; DIGEST], group: &[u8], digests: &mut [u8]) {
    let data: [&[u8]; LANES] = std::array::from_fn(|lane| &group[lane * BLOCK..(lane + 1) * BLOCK]);
    let bits = u64::try_from((DIGEST + BLOCK) * 8).expect("a few thousand bits");
    let first = data.map(|data| {
        let mut block = [0; MESSAGE_BLOCK];
        block[..DIGEST].copy_from_slice(salt);
        block[DIGEST..].copy_from_slice(&data[..DIGEST]);
        block
    });
    let last = data.map(|data| {
        let mut block = [0; MESSAGE_BLOCK];
        block[..DIGEST].copy_from_slice(&data[BLOCK - DIGEST..]);
        block[DIGEST] = 0x80;
        block[LENGTH_AT..].copy_from_slice(&bits.to_be_bytes());
        block
    });
    let mut states = [INITIAL; LANES];
    lanes.compress(&mut states, first.each_ref().map(|block| block.as_slice()));
    lanes.compress(&mut states, data.map(|data| &data[DIGEST..BLOCK - DIGEST]));
    lanes.compress(&mut states, last.each_ref().map(|block| block.as_slice()));
    for (word, bytes) in states.as_flattened().iter().zip(digests.chunks_exact_mut(4)) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_one_by_one_for_any_number_of_blocks_and_any_salt() {
        let data: Vec<u8> = (0..9 * BLOCK).map(|index| (index * 7 % 251) as u8).collect();
        for salt in [&[9; 32][..], b"", b"short"] {
            for blocks in 0..=9 {
                let mut digests = vec![0; blocks * DIGEST];
                hash(salt, &data[..blocks * BLOCK], &mut digests);
                let one_by_one: Vec<u8> = data
                    .chunks_exact(BLOCK)
                    .take(blocks)
                    .flat_map(|block| Sha256::of(&[salt, block]).0)
                    .collect();
                assert_eq!(digests, one_by_one, "{blocks} blocks");
            }
        }
    }
}
