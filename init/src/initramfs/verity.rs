//! Activating dm-verity over the root's data and tree, and reading back what the kernel made of it.

use std::ffi::CStr;
use std::fs;
use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eci_contract::manifest::VerityRoot;
use eci_sys::dm::{self, Table, Target};
use eci_sys::user_key;
use rustix::io::Errno;

use super::disk::Partition;
use super::slot::SlotPartitions;

/// Name of the mapped device that the root is mounted from.
pub const DEVICE_NAME: &str = "eci-root";

/// Corruption and read errors stop the machine at once: what was read before may have been acted on already.
/// Never `ignore_corruption`, `restart_on_corruption` (it loops) or `check_at_most_once`.
pub const OPTIONS: [&str; 2] = ["panic_on_corruption", "panic_on_error"];

/// Names the key that has the root hash's signature.
pub const SIGNATURE_OPTION: &str = "root_hash_sig_key_desc";
/// That key's description, for the key service and for the table.
pub const SIGNATURE_KEY: (&CStr, &str) = (c"eci:root-hash", "eci:root-hash");

const SECTORS_PER_BLOCK: u64 = 8;

/// Why the root is not protected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A partition has no device number.
    #[error("cannot read the device number of partition {partition}")]
    Number {
        /// Partition name.
        partition: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A manifest value has a form that may not go into a table.
    #[error("signed manifest: {what} is not hexadecimal")]
    NotHexadecimal {
        /// Which value.
        what: &'static str,
    },
    /// The manifest covers more than a device can have.
    #[error("signed manifest: {blocks} data blocks are too many")]
    TooLarge {
        /// Number of blocks.
        blocks: u64,
    },
    /// Device-mapper refused.
    #[error("cannot activate dm-verity on {device}")]
    Activate {
        /// What the root is read from.
        device: String,
        /// What device-mapper said.
        source: dm::Error,
    },
    /// There is none, or it is no base64.
    #[error("the firmware enforces Secure Boot, and nobody has signed the root hash of {device}")]
    Unsigned {
        /// What the root is read from.
        device: String,
    },
    /// The root hash's signature does not reach the kernel.
    #[error("cannot give the root hash's signature to the kernel")]
    Key {
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel knows no key that made the signature, or it is one of something else.
    #[error(
        "the firmware enforces Secure Boot, and by none of its keys the kernel accepts the signature of the root hash of {device}: boot \
         an image that is signed for this machine, or enrol the certificate that it comes with"
    )]
    Signature {
        /// What the root is read from.
        device: String,
        /// What device-mapper said.
        source: dm::Error,
    },
    /// The kernel runs another table than it was given.
    #[error("dm-verity table reads back as `{found}`, expected `{expected}`")]
    ReadBack {
        /// What is active.
        found: String,
        /// What was loaded.
        expected: String,
    },
}

/// What the root is read from, as `major:minor`.
#[derive(Clone, Debug)]
pub struct Devices {
    /// The data, in words.
    pub name: String,
    /// Device number of the data.
    pub data: String,
    /// Device number of the hash tree.
    pub hash: String,
}

impl Devices {
    /// The partitions of a slot.
    ///
    /// # Errors
    /// When the kernel does not tell a number.
    pub fn of_slot(partitions: &SlotPartitions) -> Result<Self, Error> {
        let name = format!("partition {}", partitions.root.name);
        Ok(Self { name, data: number(&partitions.root)?, hash: number(&partitions.verity)? })
    }
}

/// Creates the device `name` and checks that the kernel runs it as the signed manifest says, with these options. With a `signature` of
/// the root hash, base64, the kernel first holds that against the keys that it has from the firmware.
///
/// # Errors
/// When the kernel refuses the table or runs another one.
pub fn activate(
    name: &str,
    devices: &Devices,
    root: &VerityRoot,
    options: &[&str],
    signature: Option<&str>,
) -> Result<(), Error> {
    let device = || devices.name.clone();
    let activate = |source: dm::Error| match &source {
        dm::Error::Control { source: error, .. } if signature.is_some() && is_of_keys(error) => {
            Error::Signature { device: device(), source }
        }
        _ => Error::Activate { device: device(), source },
    };
    let mut options = options.to_vec();
    if let Some(signature) = signature {
        let signature = STANDARD.decode(signature).ok().filter(|bytes| !bytes.is_empty());
        let signature = signature.ok_or_else(|| Error::Unsigned { device: device() })?;
        user_key::add_to_thread(SIGNATURE_KEY.0, &signature).map_err(|source| Error::Key { source })?;
        options.extend([SIGNATURE_OPTION, SIGNATURE_KEY.1]);
    }
    let target = plan(root, devices, &options)?;
    dm::create_read_only(name, &target).map_err(activate)?;
    let table = dm::table(name).map_err(activate)?;
    if table.read_only && table.targets == [target.clone()] {
        return Ok(());
    }
    Err(Error::ReadBack { found: describe(&table), expected: target.parameters })
}

/// Path of the mapped device `name`.
///
/// # Errors
/// When there is none.
pub fn device_path(name: &str) -> Result<String, dm::Error> {
    dm::table(name).map(|table| format!("/dev/dm-{}", table.device.1))
}

/// The table line, as `Documentation/admin-guide/device-mapper/verity.rst` defines it.
fn plan(root: &VerityRoot, devices: &Devices, options: &[&str]) -> Result<Target, Error> {
    hexadecimal("root hash", &root.root_hash)?;
    hexadecimal("salt", &root.salt)?;
    let too_large = Error::TooLarge { blocks: root.data_blocks };
    let sectors = root.data_blocks.checked_mul(SECTORS_PER_BLOCK).ok_or(too_large)?;
    let VerityRoot { data_block_size, hash_block_size, data_blocks, hash_start_block, .. } = root;
    let VerityRoot { algorithm, root_hash, salt, .. } = root;
    let Devices { data, hash, .. } = devices;
    let salt = if salt.is_empty() { "-" } else { salt };
    let mut parameters = format!(
        "1 {data} {hash} {data_block_size} {hash_block_size} {data_blocks} {hash_start_block} {algorithm} \
         {root_hash} {salt}"
    );
    if !options.is_empty() {
        parameters = format!("{parameters} {} {}", options.len(), options.join(" "));
    }
    Ok(Target { start: 0, sectors, kind: "verity".into(), parameters })
}

/// Whether it was the signature that the kernel refused: no key, no good one, an algorithm that it does not have, or no signature in its
/// format.
fn is_of_keys(error: &io::Error) -> bool {
    let of_keys =
        [Errno::NOKEY, Errno::KEYREJECTED, Errno::KEYEXPIRED, Errno::KEYREVOKED, Errno::BADMSG, Errno::NOPKG];
    Errno::from_io_error(error).is_some_and(|errno| of_keys.contains(&errno))
}

fn hexadecimal(what: &'static str, text: &str) -> Result<(), Error> {
    let good = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if good { Ok(()) } else { Err(Error::NotHexadecimal { what }) }
}

fn number(partition: &Partition) -> Result<String, Error> {
    let path = format!("/sys/class/block/{}/dev", partition.device);
    let number = fs::read_to_string(path)
        .map_err(|source| Error::Number { partition: partition.name.clone(), source })?;
    Ok(number.trim().to_owned())
}

fn describe(table: &Table) -> String {
    let mode = if table.read_only { "read-only" } else { "writable" };
    let lines: Vec<_> =
        table.targets.iter().map(|line| format!("{} {}", line.kind, line.parameters)).collect();
    format!("{mode}: {}", lines.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> VerityRoot {
        VerityRoot {
            filesystem: "erofs".into(),
            algorithm: "sha256".into(),
            root_hash: "ab".repeat(32),
            salt: "cd".into(),
            data_block_size: 4096,
            hash_block_size: 4096,
            data_blocks: 10,
            hash_start_block: 1,
        }
    }

    fn devices() -> Devices {
        Devices { name: "partition p".into(), data: "254:1".into(), hash: "254:2".into() }
    }

    #[test]
    fn the_table_is_the_one_of_the_kernel_documentation() {
        let target = plan(&root(), &devices(), &OPTIONS).unwrap();
        assert_eq!(target.sectors, 80);
        let hash = "ab".repeat(32);
        let expected =
            format!("1 254:1 254:2 4096 4096 10 1 sha256 {hash} cd 2 panic_on_corruption panic_on_error");
        assert_eq!(target.parameters, expected);
        let without = plan(&root(), &devices(), &[]).unwrap();
        assert_eq!(without.parameters, format!("1 254:1 254:2 4096 4096 10 1 sha256 {hash} cd"));
    }

    #[test]
    fn values_that_could_add_words_to_the_table_are_refused() {
        let spaced = VerityRoot { salt: "cd 1 ignore_corruption".into(), ..root() };
        assert!(matches!(plan(&spaced, &devices(), &OPTIONS), Err(Error::NotHexadecimal { what: "salt" })));
        let upper = VerityRoot { root_hash: "AB".repeat(32), ..root() };
        assert!(matches!(
            plan(&upper, &devices(), &OPTIONS),
            Err(Error::NotHexadecimal { what: "root hash" })
        ));
        let huge = VerityRoot { data_blocks: u64::MAX, ..root() };
        assert!(matches!(plan(&huge, &devices(), &OPTIONS), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn errors_name_their_object() {
        let source = io::ErrorKind::NotFound.into();
        let error = Error::Number { partition: "eci-root-a".into(), source };
        assert_eq!(error.to_string(), "cannot read the device number of partition eci-root-a");
    }
}
