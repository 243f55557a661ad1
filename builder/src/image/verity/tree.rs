//! The hash tree: computed on all cores in one pass over the data, kept in memory (a 128th of the data).

use std::ops::Range;
use std::sync::Mutex;
use std::thread;

use super::super::digest::Sha256;
use super::super::region::Region;
use super::{BLOCK, BLOCK_BYTES, Error, lanes};

/// Bytes of a digest in the tree.
const DIGEST: usize = 32;
/// Digests in a hash block.
const FANOUT: usize = BLOCK / DIGEST;
/// Data blocks that a thread reads and hashes at a time: 512 KiB stays in its second-level cache.
const CHUNK_BLOCKS: usize = 128;

/// A computed hash tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    bytes: Vec<u8>,
    levels: Vec<Range<usize>>,
    root_hash: Sha256,
    data_blocks: u64,
}

impl Tree {
    /// The tree as it lies after the superblock: levels from the top down, each padded to whole blocks.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Digest of the top block.
    #[must_use]
    pub fn root_hash(&self) -> Sha256 {
        self.root_hash
    }

    /// Number of data blocks that the tree covers.
    #[must_use]
    pub fn data_blocks(&self) -> u64 {
        self.data_blocks
    }

    /// Where the digests of the data blocks lie in [`Tree::bytes`]; `None` for a single block, whose digest is the root.
    fn leaves(&self) -> Option<Range<usize>> {
        self.levels.first().cloned()
    }
}

/// What differs first between the tree that the data has and the one that was stored with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A data block does not have the digest that the stored tree says.
    DataBlock(u64),
    /// A byte of the stored tree above the data blocks' digests, as a block of the tree.
    HashBlock(u64),
    /// The stored tree ends early or goes on.
    Length,
}

/// Compares the tree computed from data with the `stored` one.
#[must_use]
pub fn first_difference(computed: &Tree, stored: &[u8]) -> Option<Difference> {
    if computed.bytes.len() != stored.len() {
        return Some(Difference::Length);
    }
    let position = computed.bytes.iter().zip(stored).position(|(ours, theirs)| ours != theirs)?;
    // A changed data block changes a leaf and every block above it, a changed tree only itself: judge by the leaves.
    let leaves = computed.leaves().unwrap_or(0..0);
    let leaf = leaves.clone().find(|index| computed.bytes[*index] != stored[*index]);
    let block = |bytes: usize, size: usize| u64::try_from(bytes / size).unwrap_or(u64::MAX);
    let data_block = leaf.map(|index| block(index - leaves.start, DIGEST));
    match data_block.filter(|number| *number < computed.data_blocks) {
        Some(number) => Some(Difference::DataBlock(number)),
        None => Some(Difference::HashBlock(block(position, BLOCK))),
    }
}

/// Computes the tree of `data` on `threads` threads.
pub(super) fn compute(data: Region<'_>, salt: &[u8], threads: usize) -> Result<Tree, Error> {
    let bytes = data.length();
    if bytes == 0 || bytes % BLOCK_BYTES != 0 {
        return Err(Error::Size { bytes });
    }
    let data_blocks = bytes / BLOCK_BYTES;
    let count = usize::try_from(data_blocks).map_err(|_| Error::TooLarge { bytes })?;
    let levels = layout(count);
    let mut tree = vec![0; levels.first().map_or(0, |leaves| leaves.end)];
    let mut leaves = vec![0; count * DIGEST];
    hash_data(data, salt, threads, &mut leaves)?;
    let mut below = leaves;
    for level in &levels {
        let place = &mut tree[level.clone()];
        place[..below.len()].copy_from_slice(&below);
        below = place.chunks_exact(BLOCK).flat_map(|block| Sha256::of(&[salt, block]).0).collect();
    }
    let root_hash = Sha256(below.try_into().expect("the top level is one block, whose digest is 32 bytes"));
    Ok(Tree { bytes: tree, levels, root_hash, data_blocks })
}

/// Where each level lies in the tree, bottom level first. Empty for a single data block.
fn layout(data_blocks: usize) -> Vec<Range<usize>> {
    let mut sizes = Vec::new();
    let mut blocks = data_blocks;
    while blocks > 1 {
        blocks = blocks.div_ceil(FANOUT);
        sizes.push(blocks * BLOCK);
    }
    let mut start = 0;
    let mut levels: Vec<_> = sizes
        .iter()
        .rev()
        .map(|size| {
            let level = start..start + size;
            start = level.end;
            level
        })
        .collect();
    levels.reverse();
    levels
}

/// Puts the digest of every data block into `digests`. Threads take the next chunk when they are done with one, so that
/// while one waits for the disk the others hash.
fn hash_data(data: Region<'_>, salt: &[u8], threads: usize, digests: &mut [u8]) -> Result<(), Error> {
    let chunks = Mutex::new((0_u64..).step_by(CHUNK_BLOCKS).zip(digests.chunks_mut(CHUNK_BLOCKS * DIGEST)));
    let work = || {
        let mut buffer = vec![0; CHUNK_BLOCKS * BLOCK];
        loop {
            let next = chunks.lock().expect("no thread panics while it holds the lock").next();
            let Some((first, digests)) = next else { return Ok(()) };
            let blocks = &mut buffer[..digests.len() / DIGEST * BLOCK];
            data.read_exact_at(blocks, first * BLOCK_BYTES)
                .map_err(|source| Error::Read { block: first, source })?;
            lanes::hash(salt, blocks, digests);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("hashing does not panic"))
            .fold(own, Result::and)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_lie_from_the_top_down() {
        assert_eq!(layout(1), []);
        assert_eq!(layout(2), vec![0..4096]);
        assert_eq!(layout(128), layout(2));
        assert_eq!(layout(129), [4096..3 * 4096, 0..4096]);
        assert_eq!(layout(128 * 128 + 1), [3 * 4096..132 * 4096, 4096..3 * 4096, 0..4096]);
    }
}
