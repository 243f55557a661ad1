//! Hyper-V's disk image, of the kind that grows (dynamic), written by us: `qemu-img` draws its identifiers at random.
//!
//! Format: Microsoft's [MS-VHDX]. Everything up to the first block is made here; a block of the disk that is all zeros takes
//! no room. The identifiers are digests of what is in the disk, so that the same disk gives the same bytes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use ring::digest::{Context, SHA256};
use uuid::{Uuid, uuid};

use super::super::content_uuid;

/// First bytes of the file.
pub(super) const MAGIC: &[u8] = b"vhdxfile";
/// Unit in which regions and blocks lie.
const MIB: u64 = 1 << 20;
/// Size of a block: the smallest, which is what Microsoft advises for Linux guests.
const BLOCK_BYTES: u64 = MIB;
const LOGICAL_SECTOR_BYTES: u32 = 512;
/// What most hosts' disks have.
const PHYSICAL_SECTOR_BYTES: u32 = 4096;
/// After so many entries of blocks the table has one of a bitmap, which only disks with a parent use.
const CHUNK_RATIO: u64 = (1 << 23) * LOGICAL_SECTOR_BYTES as u64 / BLOCK_BYTES;
/// States of a block: its zeros are not stored, or all of it is.
const ZERO: u64 = 2;
const FULLY_PRESENT: u64 = 6;

/// Where the parts of the first MiB are, two headers and two region tables.
const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];
const HEADER_BYTES: usize = 4 << 10;
const REGION_TABLE_BYTES: usize = 64 << 10;
/// The log follows, empty; then the metadata, then the table of blocks.
const LOG: u64 = MIB;
const METADATA: u64 = 2 * MIB;
const BLOCK_TABLE: u64 = 3 * MIB;
/// Items of the metadata begin behind their table.
const ITEMS: usize = 64 << 10;

const METADATA_REGION: Uuid = uuid!("8b7ca206-4790-4b9a-b8fe-575f050f886e");
const BLOCK_TABLE_REGION: Uuid = uuid!("2dc27766-f623-4200-9d64-115e9bfd4a08");
const FILE_PARAMETERS: Uuid = uuid!("caa16737-fa36-4d43-b3b6-33f0aa44e76b");
const VIRTUAL_DISK_SIZE: Uuid = uuid!("2fa54224-cd1b-4876-b211-5dbed83bf4b8");
const VIRTUAL_DISK_ID: Uuid = uuid!("beca12ab-b2e6-4523-93ef-c309e000c746");
const LOGICAL_SECTOR_SIZE: Uuid = uuid!("8141bf1d-a96f-4709-ba47-f233a8faab5f");
const PHYSICAL_SECTOR_SIZE: Uuid = uuid!("cda348c7-445d-4471-9cc9-e9885251c556");
/// Whoever does not know an item or a region must not open the disk.
const REQUIRED: u32 = 1;
const ITEM_REQUIRED: u32 = 4;
const ITEM_OF_THE_DISK: u32 = 2;

/// CRC-32C (Castagnoli), of headers and region tables.
const CRC32C: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// Writes the raw disk `from`, whose size is a multiple of 1 MiB, as the new file `to`.
///
/// # Errors
/// What reading or writing gave; `InvalidInput` for another size.
pub(super) fn write(from: &Path, to: &Path) -> io::Result<()> {
    let mut raw = File::open(from)?;
    let size = raw.metadata()?.len();
    if size == 0 || size % BLOCK_BYTES != 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the disk's size is not a multiple of 1 MiB",
        ));
    }
    let file = OpenOptions::new().write(true).create_new(true).open(to)?;
    let blocks = size / BLOCK_BYTES;
    let entries = blocks + (blocks - 1) / CHUNK_RATIO;
    let table_bytes = (entries * 8).next_multiple_of(MIB);
    let mut table = vec![0; usize::try_from(table_bytes).map_err(io::Error::other)?];
    let mut end = BLOCK_TABLE + table_bytes;
    let mut digest = Context::new(&SHA256);
    let mut block = vec![0; usize::try_from(BLOCK_BYTES).map_err(io::Error::other)?];
    let zeros = block.clone();
    for number in 0..blocks {
        raw.read_exact(&mut block)?;
        let entry = if block == zeros {
            ZERO
        } else {
            digest.update(&number.to_le_bytes());
            digest.update(&block);
            file.write_all_at(&block, end)?;
            end += BLOCK_BYTES;
            // Offsets are in bits 20 and up, which makes them multiples of 1 MiB.
            (end - BLOCK_BYTES) | FULLY_PRESENT
        };
        let at = usize::try_from((number + number / CHUNK_RATIO) * 8).map_err(io::Error::other)?;
        table[at..at + 8].copy_from_slice(&entry.to_le_bytes());
    }
    digest.update(&size.to_le_bytes());
    let content = digest.finish();
    let id = |purpose| content_uuid(purpose, content.as_ref());
    file.write_all_at(MAGIC, 0)?;
    for (offset, sequence) in HEADERS.into_iter().zip(1..) {
        file.write_all_at(&header(sequence, id("eci vhdx file"), id("eci vhdx data")), offset)?;
    }
    let regions = region_table(table_bytes)?;
    for offset in REGION_TABLES {
        file.write_all_at(&regions, offset)?;
    }
    file.write_all_at(&metadata(size, id("eci vhdx disk"))?, METADATA)?;
    file.write_all_at(&table, BLOCK_TABLE)?;
    // The log's zeros and, behind the last block, nothing.
    file.set_len(end)
}

/// The header with the higher sequence number counts. No log means that nothing is to be done again.
fn header(sequence: u64, file: Uuid, data: Uuid) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend(b"head\0\0\0\0");
    header.extend(sequence.to_le_bytes());
    header.extend(file.to_bytes_le());
    header.extend(data.to_bytes_le());
    header.extend(Uuid::nil().to_bytes_le());
    // Versions of log and file, and where the log is.
    header.extend([0, 0, 1, 0, 0, 0, 0x10, 0]);
    header.extend(LOG.to_le_bytes());
    header.resize(HEADER_BYTES, 0);
    with_checksum(header)
}

fn region_table(table_bytes: u64) -> io::Result<Vec<u8>> {
    let mut table = Vec::with_capacity(REGION_TABLE_BYTES);
    table.extend(b"regi\0\0\0\0");
    table.extend([2, 0, 0, 0, 0, 0, 0, 0]);
    for (region, offset, length) in
        [(BLOCK_TABLE_REGION, BLOCK_TABLE, table_bytes), (METADATA_REGION, METADATA, MIB)]
    {
        table.extend(region.to_bytes_le());
        table.extend(offset.to_le_bytes());
        table.extend(u32::try_from(length).map_err(io::Error::other)?.to_le_bytes());
        table.extend(REQUIRED.to_le_bytes());
    }
    table.resize(REGION_TABLE_BYTES, 0);
    Ok(with_checksum(table))
}

/// The checksum is computed with zeros in its place.
fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = CRC32C.checksum(&bytes);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn metadata(size: u64, disk: Uuid) -> io::Result<Vec<u8>> {
    let block = u32::try_from(BLOCK_BYTES).map_err(io::Error::other)?;
    let of_the_disk = ITEM_OF_THE_DISK | ITEM_REQUIRED;
    // Blocks may be given back, and there is no parent.
    let parameters = [block.to_le_bytes(), [0; 4]].concat();
    let items = [
        (FILE_PARAMETERS, ITEM_REQUIRED, parameters),
        (VIRTUAL_DISK_SIZE, of_the_disk, size.to_le_bytes().to_vec()),
        (VIRTUAL_DISK_ID, of_the_disk, disk.to_bytes_le().to_vec()),
        (LOGICAL_SECTOR_SIZE, of_the_disk, LOGICAL_SECTOR_BYTES.to_le_bytes().to_vec()),
        (PHYSICAL_SECTOR_SIZE, of_the_disk, PHYSICAL_SECTOR_BYTES.to_le_bytes().to_vec()),
    ];
    let word = |value: usize| u32::try_from(value).map(u32::to_le_bytes).map_err(io::Error::other);
    let count = u16::try_from(items.len()).map_err(io::Error::other)?;
    let mut region = [&b"metadata\0\0"[..], &count.to_le_bytes(), &[0; 20]].concat();
    let mut values = Vec::new();
    for (id, flags, value) in items {
        region.extend(id.to_bytes_le());
        region.extend(word(ITEMS + values.len())?);
        region.extend(word(value.len())?);
        region.extend(flags.to_le_bytes());
        region.extend([0; 4]);
        values.extend(value);
    }
    region.resize(ITEMS, 0);
    region.extend(values);
    Ok(region)
}
