//! From a layout that came from somewhere to an output folder.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use eci_contract::manifest::{Architecture, Manifest, VerityRoot};

use super::layout::{self, Descriptor, Layout, TITLE};
use super::{PLAIN, ZSTD, forms, names};
use crate::image::assemble::{self, KEY_FILE, Placed};
use crate::image::formats::{self, Format, MAX_DISK_BYTES};
use crate::image::signature::PublicKey;
use crate::image::verify::{self, Expected};
use crate::image::{disk, manifest};
use crate::staging::{self, Staging};
use crate::ui::Ui;

/// What a disk has beyond root file system, hash tree, kernel and initrd: tables, signatures, file systems' own.
const SLACK_BYTES: u64 = 64 << 20;

/// Why a layout does not become a folder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The layout cannot be read.
    #[error(transparent)]
    Layout(#[from] layout::Error),
    /// It is an artifact of something else.
    #[error("it is no image of ours: {why}")]
    Foreign {
        /// What is not as it should be.
        why: String,
    },
    /// The signature of the manifest is not by the expected key.
    #[error("`manifest.json` is not signed by key {key}")]
    Untrusted {
        /// The key's id.
        key: String,
    },
    /// It is for another kind of machine.
    #[error("the image is for {}, not for {}", .found.as_str(), .wanted.as_str())]
    OtherArchitecture {
        /// What it is for.
        found: Architecture,
        /// What was asked for.
        wanted: Architecture,
    },
    /// The manifest is none, although it is signed.
    #[error("`manifest.json` is not a manifest")]
    Manifest(#[from] manifest::Error),
    /// A file is larger than what the manifest accounts for.
    #[error("`{name}` has more in it than the image that was signed")]
    TooLarge {
        /// Its name.
        name: String,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is signed, and is not what was signed.
    #[error("the image does not hold: {}", .failures.join("; "))]
    Unsound {
        /// A phrase for each check that failed.
        failures: Vec<String>,
    },
    /// It cannot be looked at.
    #[error("cannot verify the image")]
    Verify(#[from] verify::Error),
    /// The output folder cannot be used.
    #[error("cannot write the artifacts")]
    Staging(#[from] staging::Error),
    /// The files cannot be put in place.
    #[error(transparent)]
    Place(#[from] assemble::Error),
}

/// Puts the one image in the layout into the folder `out`, if it is for `architecture` and all of it is as expected.
///
/// # Errors
/// [`Error`]; what stood in `out` before still stands there, unless the putting in place itself fails.
pub fn unpack(
    layout: &Layout,
    architecture: Architecture,
    expected: &Expected,
    out: &Path,
    ui: &Ui,
) -> Result<Vec<Placed>, Error> {
    let staging = Staging::beside(out)?;
    let stage = ui.stage("unpack");
    let (image, mut names) = write_files(layout, architecture, expected, &staging)?;
    // What a reader takes for the image's key, certificate and sums are not the registry's to say.
    assemble::write(&staging, KEY_FILE, expected.key.to_pem().as_bytes())?;
    names.push(KEY_FILE.to_owned());
    assemble::sum(&staging, &names)?;
    stage.done(&format!("{} {} for {}", image.name, image.version, image.architecture.as_str()));
    let stage = ui.stage("verify");
    let report = verify::verify(&staging.path(""), expected, ui)?;
    if !report.holds() {
        return Err(Error::Unsound { failures: report.failures() });
    }
    stage.done(&format!("{} checks", report.checks.len()));
    Ok(assemble::place(staging, &names, out)?)
}

/// Stages the files, as far as `manifest.json` allows, and gives their names.
fn write_files(
    layout: &Layout,
    architecture: Architecture,
    expected: &Expected,
    staging: &Staging,
) -> Result<(Manifest, Vec<String>), Error> {
    let index = layout.index()?;
    let [descriptor] = &index.manifests[..] else {
        return Err(Error::Foreign { why: format!("{} manifests", index.manifests.len()) });
    };
    let document: layout::Manifest = layout.document(descriptor)?;
    let mut files = Vec::new();
    for layer in &document.layers {
        let name = layer.annotations.get(TITLE);
        files.push((name.ok_or_else(|| Error::Foreign { why: "a layer has no name".to_owned() })?, layer));
    }
    let small = |wanted: &str| -> Result<Vec<u8>, Error> {
        let layer = files.iter().find(|(name, _)| *name == wanted).map(|(_, layer)| *layer);
        let layer = layer.ok_or_else(|| Error::Foreign { why: format!("it has no `{wanted}`") })?;
        read_small(layout, layer, wanted)
    };
    let (bytes, signature) = (small(manifest::FILE)?, small(manifest::SIGNATURE_FILE)?);
    let image = trusted(&bytes, &signature, &expected.key)?;
    if image.architecture != architecture {
        return Err(Error::OtherArchitecture { found: image.architecture, wanted: architecture });
    }
    let (known, forms, limit) = (names(&image), forms(&image), limit(&image));
    let missing = |name: &&String| !forms.contains(name) && !files.iter().any(|(there, _)| there == name);
    if let Some(name) = known.iter().find(missing) {
        return Err(Error::Foreign { why: format!("it has no `{name}`") });
    }
    if !files.iter().any(|(name, _)| forms.contains(name)) {
        return Err(Error::Foreign { why: format!("it has no `{}`", forms[0]) });
    }
    for (name, layer) in &files {
        if !known.contains(*name) {
            return Err(Error::Foreign { why: format!("an image has no file `{name}`") });
        }
        let path = staging.path(name);
        let failed = |source| Error::Write { path: path.clone(), source };
        // Two layers of one name would be one file: the second one is refused.
        let file = File::create_new(&path).map_err(failed)?;
        let blob = File::open(layout.blob(layer)?).map_err(failed)?;
        let written = match layer.media_type.as_str() {
            PLAIN => write(blob, &file, limit),
            ZSTD => zstd::Decoder::new(blob).and_then(|content| write(content, &file, limit)),
            other => return Err(Error::Foreign { why: format!("`{name}` is of the type `{other}`") }),
        };
        written.map_err(|source| match source.kind() {
            io::ErrorKind::FileTooLarge => Error::TooLarge { name: (*name).clone() },
            _ => Error::Write { path: path.clone(), source },
        })?;
        // A form that only looks like one is opened by other programs, with what those look for in it.
        let kind = [Format::Raw, Format::Wsl].into_iter().zip(&forms).find(|(_, form)| form == name);
        if kind.is_some_and(|(format, _)| !formats::of_file(&path).is_ok_and(|found| found == format)) {
            return Err(Error::Foreign { why: format!("`{name}` is something else") });
        }
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).map_err(failed)?;
    }
    let names = files.into_iter().map(|(name, _)| name.clone()).collect();
    Ok((image, names))
}

fn read_small(layout: &Layout, layer: &Descriptor, name: &str) -> Result<Vec<u8>, Error> {
    let path = layout.blob(layer)?;
    let most = eci_contract::manifest::MAX_BYTES as u64;
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes));
    read.map_err(|source| layout::Error::File { path, source })?;
    if bytes.len() as u64 > most { Err(Error::TooLarge { name: name.to_owned() }) } else { Ok(bytes) }
}

fn trusted(bytes: &[u8], signature: &[u8], key: &PublicKey) -> Result<Manifest, Error> {
    if key.verifies(bytes, signature) {
        Ok(manifest::parse(bytes)?)
    } else {
        Err(Error::Untrusted { key: key.id() })
    }
}

/// How many bytes that are not in holes any file of the image can have: a disk has all the others in it.
fn limit(image: &Manifest) -> u64 {
    let VerityRoot { data_block_size, data_blocks, .. } = image.root;
    let root = data_blocks.saturating_mul(u64::from(data_block_size));
    // A block of hashes for each 128 of data, and one for each 128 of those.
    let tree = root / 64;
    [root, tree, image.kernel.size, image.initrd.size].into_iter().fold(SLACK_BYTES, u64::saturating_add)
}

/// What comes out of a blob, as long as it is not more than a file of the image can have.
struct Bounded<R> {
    from: R,
    total: u64,
    content: u64,
    limit: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.total += read as u64;
        if buffer[..read].iter().any(|&byte| byte != 0) {
            self.content += read as u64;
        }
        if self.content > self.limit || self.total > MAX_DISK_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(read)
    }
}

/// Writes all of it, zeros as holes.
fn write(from: impl Read, to: &File, limit: u64) -> io::Result<()> {
    let mut from = Bounded { from, total: 0, content: 0, limit };
    disk::copy_sparse(&mut from, to, 0)?;
    to.set_len(from.total)
}
