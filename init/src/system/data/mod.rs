//! The data disk: found, made when blank, checked, mounted, grown. Nothing that is not ours is ever written to.
//!
//! A power cut at any point is harmless: until the marker says "made" nothing was ever mounted, so making is simply
//! done again; after that, ext4's journal and the online resize of the kernel carry it.

pub mod header;
mod tool;

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use eci_contract::disk::DATA_NAME;
use eci_contract::paths::ENGINE_DATA;
use eci_sys::block;
use rustix::mount::{MountFlags, mount as mount_file_system};

use self::header::{BACKUP_SUPERBLOCKS, Content, HEAD_BYTES, Marker, SECTOR_BYTES};
use crate::kmsg;
use crate::system::program;

/// Growing by less than this is not worth it.
const GROW_STEP_BYTES: u64 = 16 * 1024 * 1024;

/// Smallest disk that the engine can do anything with.
const SMALLEST_BYTES: u64 = 256 * 1024 * 1024;

/// `discard`: deleting an image gives its space back to the host.
const MOUNT_OPTIONS: &std::ffi::CStr = c"discard";

/// Why there is no data disk to use. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error(
        "no data disk: attach a virtio disk with serial `{DATA_NAME}`, or let the image's disk with its `{DATA_NAME}` partition be written to"
    )]
    None,
    /// Something else is on it.
    #[error(
        "data disk {} holds {what} and was left alone: attach another disk, or wipe its first MiB if nothing on it is needed", .device.display()
    )]
    Foreign {
        /// The device.
        device: PathBuf,
        /// What was found.
        what: &'static str,
    },
    /// The disk is smaller than what is on it.
    #[error(
        "data disk {} has {disk} bytes but its file system has {filesystem}: the disk was shrunk; give it its size back", .device.display()
    )]
    Shrunk {
        /// The device.
        device: PathBuf,
        /// Size of the disk.
        disk: u64,
        /// Size of the file system.
        filesystem: u64,
    },
    /// Not enough room for a file system.
    #[error("data disk {} has {disk} bytes, at least {SMALLEST_BYTES} are needed", .device.display())]
    TooSmall {
        /// The device.
        device: PathBuf,
        /// Size of the disk.
        disk: u64,
    },
    /// Reading or writing failed.
    #[error("cannot {operation} data disk {}", .device.display())]
    Device {
        /// What was tried.
        operation: &'static str,
        /// The device.
        device: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// mkfs cleared the marker, so a power cut could not be told from a foreign disk.
    #[error("mkfs.ext4 cleared the marker on data disk {}", .device.display())]
    MarkerLost {
        /// The device.
        device: PathBuf,
    },
    /// The file system has damage that needs a decision.
    #[error("data disk {} needs repair by hand: run `e2fsck -f` on its file from the host", .device.display())]
    Damaged {
        /// The device.
        device: PathBuf,
        /// What e2fsck said.
        source: program::Error,
    },
    /// mkfs failed.
    #[error("cannot make a file system on data disk {}", .device.display())]
    Make {
        /// The device.
        device: PathBuf,
        /// What mkfs said.
        source: program::Error,
    },
}

/// Makes the data disk ready at [`ENGINE_DATA`]. `boot_disk` is the disk that the root is on.
///
/// # Errors
/// When there is none, it holds something else, or it is damaged.
pub fn mount(boot_disk: &str) -> Result<(), Error> {
    let device = find(boot_disk).ok_or(Error::None)?;
    let disk = Disk::open(device)?;
    match disk.content()? {
        Content::Foreign { what } => return Err(Error::Foreign { device: disk.device, what }),
        Content::Make => disk.make()?,
        Content::Made { bytes, .. } if bytes > disk.bytes => {
            return Err(Error::Shrunk { device: disk.device, disk: disk.bytes, filesystem: bytes });
        }
        Content::Made { clean: false, .. } => disk.check()?,
        // e2fsck would look at the same few fields and go.
        Content::Made { clean: true, .. } => {}
    }
    disk.mount()?;
    disk.grow()
}

/// A separate disk with our serial, else the partition of the boot disk with our name, if that disk may be written to.
fn find(boot_disk: &str) -> Option<PathBuf> {
    let partition = || find_partition(boot_disk).map(|name| Path::new("/dev").join(name));
    disk_with_serial(DATA_NAME).or_else(partition)
}

/// The disk with this serial number; of several the first by name.
pub(in crate::system) fn disk_with_serial(wanted: &str) -> Option<PathBuf> {
    let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut names: Vec<_> = disks.map(|disk| disk.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let is_it = |name: &String| {
        let serial = fs::read_to_string(format!("/sys/block/{name}/serial"));
        serial.is_ok_and(|serial| serial.trim() == wanted)
    };
    names.into_iter().find(is_it).map(|name| Path::new("/dev").join(name))
}

/// As many bytes of a disk, from its beginning.
pub(in crate::system) fn beginning(device: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(device)?.take(u64::try_from(most).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn find_partition(disk: &str) -> Option<String> {
    let disk = Path::new("/sys/block").join(disk);
    if fs::read_to_string(disk.join("ro")).is_ok_and(|read_only| read_only.trim() == "1") {
        return None;
    }
    let entries = fs::read_dir(disk).ok()?;
    let mut partitions = entries.flatten().filter(|entry| {
        let uevent = fs::read_to_string(entry.path().join("uevent")).unwrap_or_default();
        uevent.lines().any(|line| line.strip_prefix("PARTNAME=") == Some(DATA_NAME))
    });
    Some(partitions.next()?.file_name().to_string_lossy().into_owned())
}

struct Disk {
    device: PathBuf,
    file: File,
    bytes: u64,
}

impl Disk {
    fn open(device: PathBuf) -> Result<Self, Error> {
        // Only for reading: a kernel may refuse to mount what is open for writing.
        let file = File::open(&device).map_err(|source| Error::Device {
            operation: "open",
            device: device.clone(),
            source,
        })?;
        let bytes = block::size(file.as_fd());
        let bytes =
            bytes.map_err(|source| Error::Device { operation: "size", device: device.clone(), source })?;
        Ok(Self { device, file, bytes })
    }

    fn content(&self) -> Result<Content, Error> {
        if self.bytes < SMALLEST_BYTES {
            return Err(Error::TooSmall { device: self.device.clone(), disk: self.bytes });
        }
        let head = self.read(0, HEAD_BYTES)?;
        let mut backup = false;
        for position in BACKUP_SUPERBLOCKS.into_iter().filter(|at| at + 4096 <= self.bytes) {
            backup |= header::is_superblock(&self.read(position, 1024)?);
        }
        Ok(header::judge(&head, backup))
    }

    fn make(&self) -> Result<(), Error> {
        kmsg::notice(&format!("making a file system on data disk {}", self.device.display()));
        self.write_marker(Marker::Making)?;
        tool::mkfs(&self.device).map_err(|source| Error::Make { device: self.device.clone(), source })?;
        if self.read(0, SECTOR_BYTES)? != header::sector(Marker::Making) {
            return Err(Error::MarkerLost { device: self.device.clone() });
        }
        self.file.sync_all().map_err(self.failed("sync"))?;
        self.write_marker(Marker::Made)
    }

    fn check(&self) -> Result<(), Error> {
        tool::check(&self.device).map_err(|source| Error::Damaged { device: self.device.clone(), source })
    }

    fn mount(&self) -> Result<(), Error> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
        mount_file_system(self.device.as_path(), ENGINE_DATA, "ext4", flags, MOUNT_OPTIONS)
            .map_err(|err| self.failed("mount")(err.into()))
    }

    /// Grows the mounted file system to the size of the disk. The check may have changed the superblock, so it is read
    /// again.
    fn grow(&self) -> Result<(), Error> {
        let Content::Made { bytes, block, .. } = self.content()? else { return Ok(()) };
        if self.bytes < bytes + GROW_STEP_BYTES {
            return Ok(());
        }
        kmsg::notice(&format!(
            "growing data disk {} from {bytes} to {} bytes",
            self.device.display(),
            self.bytes
        ));
        let root = File::open(ENGINE_DATA).map_err(self.failed("open"))?;
        block::grow_ext4(root.as_fd(), self.bytes / block).map_err(self.failed("grow"))
    }

    fn read(&self, position: u64, length: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; length];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(position))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(self.failed("read"))?;
        Ok(bytes)
    }

    fn write_marker(&self, marker: Marker) -> Result<(), Error> {
        let write = || {
            let mut file = File::options().write(true).open(&self.device)?;
            file.write_all(&header::sector(marker))?;
            file.sync_all()
        };
        write().map_err(self.failed("write the marker of"))
    }

    fn failed(&self, operation: &'static str) -> impl Fn(io::Error) -> Error {
        let device = self.device.clone();
        move |source| Error::Device { operation, device: device.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_the_disk_what_was_found_and_what_to_do() {
        let device = PathBuf::from("/dev/vdb");
        let error = Error::Foreign { device: device.clone(), what: "an XFS file system" };
        let text = "data disk /dev/vdb holds an XFS file system and was left alone: \
                    attach another disk, or wipe its first MiB if nothing on it is needed";
        assert_eq!(error.to_string(), text);
        let error = Error::Shrunk { device, disk: 1, filesystem: 2 };
        let text = "data disk /dev/vdb has 1 bytes but its file system has 2: \
                    the disk was shrunk; give it its size back";
        assert_eq!(error.to_string(), text);
        assert!(Error::None.to_string().starts_with("no data disk: attach"));
    }
}
