//! `eci.resources` and `eci.updates`: what a machine may be that starts an engine, whatever hypervisor it has: its size, and its version.

use std::fmt;

use eci_contract::version::{Version, is_at_least};

use super::json::At;
use super::{Problem, Problems};

/// Bytes of the units that sizes are written in.
const UNITS: [(char, u64); 2] = [('m', 1 << 20), ('g', 1 << 30)];
/// Least memory that may be the most: the engine needs so much.
const LEAST_MEMORY: u64 = 256 << 20;
/// Most of both that may be written: no machine has more.
const MOST_MEMORY: u64 = 64 << 40;
const MOST_CPUS: u64 = 8192;

/// What a machine may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The most memory, in bytes.
    pub memory: Option<u64>,
    /// The most processors.
    pub cpus: Option<u32>,
    /// The oldest version of the image.
    pub minimum_version: Option<String>,
}

/// What a machine is.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// Memory that its kernel has, in bytes: somewhat less than it was given.
    pub memory: u64,
    /// Its processors.
    pub cpus: u32,
    /// The image's version.
    pub version: &'a str,
}

/// Why a machine starts no engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It has more memory than it may have.
    #[error(
        "the machine has {} of memory, and the administrator's settings allow {}: give it less (`eci-builder run --memory`)",
        Size(*.has),
        Size(*.most)
    )]
    Memory {
        /// Bytes that it has.
        has: u64,
        /// Bytes that it may have.
        most: u64,
    },
    /// It has more processors than it may have.
    #[error(
        "the machine has {has} processors, and the administrator's settings allow {most}: give it fewer (`eci-builder run --cpus`)"
    )]
    Cpus {
        /// Processors that it has.
        has: u32,
        /// Processors that it may have.
        most: u32,
    },
    /// The image is older than it may be.
    #[error(
        "the image is of version {version}, and the administrator's settings want {minimum} or later: update it (`eci-builder update`)"
    )]
    Version {
        /// Its version.
        version: String,
        /// The oldest that it may have.
        minimum: String,
    },
}

impl Limits {
    /// Judges a machine.
    ///
    /// # Errors
    /// The first limit that it goes beyond.
    pub fn judge(&self, machine: Machine<'_>) -> Result<(), Error> {
        self.judge_version(machine.version)?;
        let Machine { memory: has, cpus, .. } = machine;
        match (self.memory, self.cpus) {
            (Some(most), _) if has > most => Err(Error::Memory { has, most }),
            (_, Some(most)) if cpus > most => Err(Error::Cpus { has: cpus, most }),
            _ => Ok(()),
        }
    }

    /// Judges the version of an image, which a build knows as well.
    ///
    /// # Errors
    /// [`Error::Version`].
    pub fn judge_version(&self, version: &str) -> Result<(), Error> {
        match &self.minimum_version {
            Some(minimum) if !is_at_least(version, minimum) => {
                Err(Error::Version { version: version.to_owned(), minimum: minimum.clone() })
            }
            _ => Ok(()),
        }
    }
}

/// Bytes, in the largest unit that says them without a fraction, else rounded to MiB.
#[derive(Clone, Copy, Debug)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [(_, mebi), (_, gibi)] = UNITS;
        match self.0 {
            bytes if bytes % gibi == 0 => write!(formatter, "{} GiB", bytes / gibi),
            bytes => write!(formatter, "{} MiB", bytes.div_ceil(mebi)),
        }
    }
}

/// Reads the value of `eci.resources`.
pub(super) fn read_resources(at: &At<'_>, limits: &mut Limits, problems: &mut Problems) {
    for (key, at) in problems.keep(at.table()).unwrap_or_default() {
        match key {
            "memory" => limits.memory = problems.keep(read_size(&at)),
            "cpus" => {
                let cpus = problems.keep(at.number(1, MOST_CPUS));
                limits.cpus = cpus.and_then(|cpus| u32::try_from(cpus).ok());
            }
            _ => problems
                .add(at.problem("it is no key of resources", "leave it out; those are memory and cpus")),
        }
    }
}

/// Reads the value of `eci.updates`.
pub(super) fn read_updates(at: &At<'_>, limits: &mut Limits, problems: &mut Problems) {
    for (key, at) in problems.keep(at.table()).unwrap_or_default() {
        match key {
            "minimumVersion" => limits.minimum_version = problems.keep(read_version(&at)),
            _ => {
                problems.add(
                    at.problem("it is no key of updates", "leave it out; the one key is minimumVersion"),
                );
            }
        }
    }
}

fn read_size(at: &At<'_>) -> Result<u64, Problem> {
    let text = at.text()?;
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with([*unit, unit.to_ascii_uppercase()]));
    let bytes = unit.and_then(|(_, unit)| {
        let number = &text[..text.len() - 1];
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        number.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(*unit)
    });
    bytes
        .filter(|bytes| (LEAST_MEMORY..=MOST_MEMORY).contains(bytes))
        .ok_or_else(|| at.problem("it is no size of a machine's memory", "write one such as 4G or 1536M"))
}

fn read_version(at: &At<'_>) -> Result<String, Problem> {
    let text = at.text()?;
    let version = Version::parse(text).map(|_| text.to_owned());
    version.ok_or_else(|| at.problem("it is no version", "write numbers with dots between, such as 1.2.0"))
}
