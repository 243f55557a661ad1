//! Raw disk images as other tools see them: partitions found by sgdisk, pieces copied out, bytes changed.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use eci_contract::disk::SignaturePartition;

use crate::command;

/// Bytes of a sector, in which sgdisk counts.
const SECTOR: u64 = 512;

/// A partition of a raw disk.
#[derive(Clone, Debug)]
pub struct Partition {
    /// Its name in the table.
    pub name: String,
    /// Its first byte.
    pub start: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

impl Partition {
    /// Asks sgdisk for a partition by its number, which counts from 1.
    ///
    /// # Errors
    /// When there is none, or sgdisk prints something else than it used to.
    pub fn of(disk: &Path, number: u32) -> Result<Self> {
        let info = command::host("sgdisk", &["-i", &number.to_string(), &disk.to_string_lossy()])?.ok()?;
        let field = |key: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(key));
            line.with_context(|| format!("sgdisk prints no `{key}`:\n{info}"))
        };
        let sector = |key: &str| -> Result<u64> {
            let number = field(key)?.split_whitespace().next().context("sgdisk prints a number")?;
            number.parse().with_context(|| format!("`{number}` is no sector"))
        };
        let (first, last) = (sector("First sector: ")?, sector("Last sector: ")?);
        let name = field("Partition name: ")?.trim_matches('\'').to_owned();
        Ok(Self { name, start: first * SECTOR, bytes: (last - first + 1) * SECTOR })
    }

    /// Copies its bytes out of the disk.
    ///
    /// # Errors
    /// When they cannot be read or written.
    pub fn copy(&self, disk: &Path, to: &Path) -> Result<()> {
        let mut from = fs::File::open(disk).with_context(|| format!("cannot open {}", disk.display()))?;
        from.seek(SeekFrom::Start(self.start))?;
        let mut to = fs::File::create(to).with_context(|| format!("cannot make {}", to.display()))?;
        io::copy(&mut from.take(self.bytes), &mut to)?;
        Ok(())
    }
}

/// Changes what a signature partition of the disk says.
///
/// # Errors
/// When it does not say what it should, or cannot be written.
pub fn rewrite_signature(
    disk: &Path,
    partition: &Partition,
    change: impl FnOnce(&mut SignaturePartition),
) -> Result<()> {
    let file = fs::File::options().read(true).write(true).open(disk);
    let file = file.with_context(|| format!("cannot open {}", disk.display()))?;
    let mut bytes = vec![0; usize::try_from(partition.bytes)?];
    file.read_exact_at(&mut bytes, partition.start)?;
    let end = bytes.iter().position(|byte| *byte == 0).context("the JSON is padded with NUL")?;
    let mut signature: SignaturePartition = serde_json::from_slice(&bytes[..end])?;
    change(&mut signature);
    let mut changed = serde_json::to_vec(&signature)?;
    ensure!(changed.len() <= bytes.len(), "the partition is too small");
    changed.resize(bytes.len(), 0);
    file.write_all_at(&changed, partition.start)?;
    Ok(())
}

/// Copies a file and leaves its holes holes.
///
/// # Errors
/// When `cp` fails.
pub fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (from.to_string_lossy(), to.to_string_lossy());
    command::host("cp", &["--sparse=always", "--reflink=auto", &from, &to])?.ok().map(drop)
}

/// Changes one bit of a file.
///
/// # Errors
/// When the file has no such byte or cannot be written.
pub fn flip(path: &Path, offset: u64) -> Result<()> {
    let file = fs::File::options().read(true).write(true).open(path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    byte[0] ^= 0x40;
    file.write_all_at(&byte, offset)?;
    Ok(())
}
