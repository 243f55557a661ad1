//! The config disk: found by its serial number, trusted by its signature, and never older than the one before.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use eci_contract::config_disk::{Anchor, ConfigDisk, DISK_NAME, MAX_BYTES, VERSION, signed};
use eci_contract::json_disk::text;
use eci_contract::paths::{SETTINGS_ANCHOR, SETTINGS_EDITIONS};
use ring::signature::{ED25519, UnparsedPublicKey};
use rustix::fs::{Mode, OFlags, open};

use super::sha256;
use crate::system::data::{beginning, disk_with_serial};

/// Why a config disk is not used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There has to be one.
    #[error(
        "there is no config disk, and this image does not go without: attach the one that `eci-builder settings sign` made as a \
         virtio disk with serial `{DISK_NAME}` (`eci-builder run --settings FILE`)"
    )]
    Missing,
    /// The image names nobody whose disks it takes.
    #[error(
        "this image takes no config disk, for it names no key for them (`[settings] key` in eci.toml): detach it"
    )]
    NotTaken,
    /// A file or the disk cannot be read or written.
    #[error("cannot {operation} `{}`", .path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// What the image or the disk holds is not understood.
    #[error("{what} is not understood")]
    Malformed {
        /// Whose.
        what: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// It is of another version, or has a value that is none.
    #[error("{what} is not understood: {why}")]
    Odd {
        /// Whose.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Somebody else signed it, or something in it was changed.
    #[error(
        "edition {edition} on the config disk is not signed by the key that this image takes settings from"
    )]
    Untrusted {
        /// What it says that it is.
        edition: u64,
    },
    /// A newer one was taken before.
    #[error(
        "edition {edition} on the config disk is older than {taken}, which was taken before: attach that one, or a newer"
    )]
    Older {
        /// Of the disk.
        edition: u64,
        /// Of the one before.
        taken: u64,
    },
}

/// Settings that the right key signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Counts up, for each key by itself.
    pub edition: Edition,
    /// The file.
    pub settings: Vec<u8>,
}

/// Which settings of a key's these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edition {
    /// The key's short name: 16 digits of the SHA-256 of its bytes.
    key: String,
    /// Counts up.
    pub number: u64,
}

/// Reads the disk; `None` when there is none and need not be.
///
/// # Errors
/// [`Error`].
pub fn read() -> Result<Option<Signed>, Error> {
    let anchor = match fs::read(SETTINGS_ANCHOR) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        read => Some(anchor(&read.map_err(failed("read", Path::new(SETTINGS_ANCHOR)))?)?),
    };
    let Some((anchor, device)) = due(anchor, disk_with_serial(DISK_NAME))? else { return Ok(None) };
    let bytes = beginning(&device, MAX_BYTES).map_err(failed("read", &device))?;
    trusted(&anchor, &bytes).map(Some)
}

/// Whether a disk is to be read, by what the image says and what is attached.
fn due<D>(anchor: Option<Anchor>, device: Option<D>) -> Result<Option<(Anchor, D)>, Error> {
    match (anchor, device) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Error::NotTaken),
        (Some(anchor), None) if anchor.required => Err(Error::Missing),
        (Some(_), None) => Ok(None),
        (Some(anchor), Some(device)) => Ok(Some((anchor, device))),
    }
}

fn anchor(bytes: &[u8]) -> Result<Anchor, Error> {
    const WHAT: &str = "what this image says of config disks";
    let anchor: Anchor =
        serde_json::from_slice(bytes).map_err(|source| Error::Malformed { what: WHAT, source })?;
    of_this_version(WHAT, anchor.version)?;
    Ok(anchor)
}

fn of_this_version(what: &'static str, version: u32) -> Result<(), Error> {
    let why = || format!("it is of version {version}, and this is {VERSION}");
    if version == VERSION { Ok(()) } else { Err(Error::Odd { what, why: why() }) }
}

/// The settings in these bytes of a disk, if the anchor's key signed them.
fn trusted(anchor: &Anchor, bytes: &[u8]) -> Result<Signed, Error> {
    const WHAT: &str = "the config disk";
    let disk: ConfigDisk =
        serde_json::from_slice(text(bytes)).map_err(|source| Error::Malformed { what: WHAT, source })?;
    of_this_version(WHAT, disk.version)?;
    let decode = |what: &'static str, text: &str| {
        BASE64.decode(text).map_err(|error| Error::Odd { what: WHAT, why: format!("{what}: {error}") })
    };
    let (settings, signature) = (decode("settings", &disk.settings)?, decode("signature", &disk.signature)?);
    let key = decode("the image's key", &anchor.key)?;
    let name = sha256(&key).chars().take(16).collect();
    let untrusted = |_| Error::Untrusted { edition: disk.edition };
    let key = UnparsedPublicKey::new(&ED25519, key);
    key.verify(&signed(disk.edition, &settings), &signature).map_err(untrusted)?;
    Ok(Signed { edition: Edition { key: name, number: disk.edition }, settings })
}

/// See [`super::Administered::take`].
///
/// # Errors
/// [`Error::Older`] and [`Error::File`].
pub fn take(edition: &Edition) -> Result<(), Error> {
    take_at(Path::new(SETTINGS_EDITIONS), edition)
}

/// Each key has a file: an image that names another one, and the image before it, do not keep each other's disks out.
fn take_at(folder: &Path, edition: &Edition) -> Result<(), Error> {
    const WHAT: &str = "the edition that was taken last";
    let Edition { key, number: edition } = edition;
    let (path, edition) = (&folder.join(key), *edition);
    let taken = match read_plain(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        read => {
            let text = read.map_err(failed("read", path))?;
            let odd = || Error::Odd { what: WHAT, why: format!("`{}` says {text:?}", path.display()) };
            text.trim().parse().map_err(|_| odd())?
        }
    };
    if edition < taken {
        return Err(Error::Older { edition, taken });
    }
    if edition == taken {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("make", folder))?;
    let beside = path.with_extension("new");
    let mut file = File::create(&beside).map_err(failed("make", &beside))?;
    let written = file.write_all(format!("{edition}\n").as_bytes()).and_then(|()| file.sync_all());
    written.map_err(failed("write", &beside))?;
    fs::rename(&beside, path).map_err(failed("replace", path))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("write", folder))
}

/// What is in a file, and not in what a link leads to; a pipe is empty, and nobody waits for it.
fn read_plain(path: &Path) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut text = String::new();
    File::from(open(path, flags, Mode::empty())?).read_to_string(&mut text)?;
    Ok(text)
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { operation, path, source }
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    fn pair(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn anchor_of(pair: &Ed25519KeyPair) -> Anchor {
        Anchor { version: VERSION, key: BASE64.encode(pair.public_key()), required: true }
    }

    fn disk(pair: &Ed25519KeyPair, edition: u64, settings: &[u8]) -> ConfigDisk {
        let signature = pair.sign(&signed(edition, settings));
        ConfigDisk {
            version: VERSION,
            edition,
            settings: BASE64.encode(settings),
            signature: BASE64.encode(signature),
        }
    }

    fn bytes(disk: &ConfigDisk) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(disk).unwrap();
        bytes.resize(4096, 0);
        bytes
    }

    #[test]
    fn settings_are_those_that_the_right_key_signed_with_their_edition() {
        let (right, other) = (pair(1), pair(2));
        let good = disk(&right, 7, b"{}");
        let read = |disk: &ConfigDisk| trusted(&anchor_of(&right), &bytes(disk));
        let signed = read(&good).unwrap();
        assert_eq!((signed.edition.number, signed.settings.as_slice()), (7, &b"{}"[..]));
        let theirs = trusted(&anchor_of(&other), &bytes(&disk(&other, 7, b"{}"))).unwrap();
        assert_ne!(theirs.edition, signed.edition, "two keys have one number");
        let cases = [
            disk(&other, 7, b"{}"),
            ConfigDisk { edition: 8, ..good.clone() },
            ConfigDisk { settings: BASE64.encode(b"{ }"), ..good.clone() },
            ConfigDisk { signature: BASE64.encode([0; 64]), ..good.clone() },
            ConfigDisk { signature: String::new(), ..good.clone() },
        ];
        for bad in cases {
            assert!(matches!(read(&bad), Err(Error::Untrusted { .. })), "{bad:?}");
        }
        for bad in [
            ConfigDisk { version: 2, ..good.clone() },
            ConfigDisk { settings: "?".to_owned(), ..good.clone() },
            ConfigDisk { signature: "?".to_owned(), ..good },
        ] {
            assert!(matches!(read(&bad), Err(Error::Odd { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_disk_of_something_else_is_named_as_such() {
        for text in ["", "\0\0", "{}", "settings", "{\"version\": 1, \"edition\": -1}"] {
            let error = trusted(&anchor_of(&pair(1)), text.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), "the config disk is not understood", "{text:?}");
        }
        // One key more could be one that a later version heeds.
        let mut text = serde_json::to_value(disk(&pair(1), 1, b"{}")).unwrap();
        text["until"] = 1.into();
        assert!(trusted(&anchor_of(&pair(1)), text.to_string().as_bytes()).is_err());
        assert!(matches!(anchor(b"{\"version\":2,\"key\":\"\",\"required\":false}"), Err(Error::Odd { .. })));
    }

    #[test]
    fn a_disk_is_read_where_the_image_names_a_key_and_missed_where_it_has_to_be() {
        let taken = anchor_of(&pair(1));
        let optional = Anchor { required: false, ..taken.clone() };
        assert!(matches!(due::<()>(None, None), Ok(None)));
        assert!(matches!(due(None, Some(())), Err(Error::NotTaken)));
        assert!(matches!(due::<()>(Some(taken.clone()), None), Err(Error::Missing)));
        assert!(matches!(due::<()>(Some(optional), None), Ok(None)));
        assert_eq!(due(Some(taken.clone()), Some(7)).unwrap(), Some((taken, 7)));
    }

    #[test]
    fn an_edition_does_not_go_back() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("eci/editions");
        let of = |key: &str, number| Edition { key: key.to_owned(), number };
        for number in [1, 3, 3, 4] {
            take_at(&folder, &of("one", number)).unwrap();
        }
        let error = take_at(&folder, &of("one", 3)).unwrap_err().to_string();
        assert!(error.starts_with("edition 3 on the config disk is older than 4, "), "{error}");
        take_at(&folder, &of("one", 4)).unwrap();
        // Another key counts by itself.
        take_at(&folder, &of("two", 1)).unwrap();
        take_at(&folder, &of("one", 4)).unwrap();
        fs::write(folder.join("one"), "four").unwrap();
        assert!(matches!(take_at(&folder, &of("one", 5)), Err(Error::Odd { .. })));
    }
}
