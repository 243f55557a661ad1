//! From output folders to a layout.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use eci_contract::manifest::Architecture;

use super::layout::{self, Descriptor, INDEX, Index, Layout, MANIFEST, Manifest, Platform, TITLE};
use super::{ARTIFACT_TYPE, PLAIN, ZSTD, forms, names, platform};
use crate::image::digest::Sha256;
use crate::image::manifest;
use crate::image::sums::{self, Sums};
use crate::ui::Ui;

/// zstd's default. The disk's content is compressed already, what counts are its holes.
const LEVEL: i32 = 3;

/// Why a folder does not become an artifact.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The layout cannot be written.
    #[error(transparent)]
    Layout(#[from] layout::Error),
    /// A file of the folder cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The manifest is none.
    #[error("`{}` is not a manifest", .path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: manifest::Error,
    },
    /// Nobody has signed the image.
    #[error("`{}` is not signed yet", .folder.display())]
    Unsigned {
        /// The folder.
        folder: PathBuf,
    },
    /// A file is not what its sum says.
    #[error("`{}` is not what {} says", .path.display(), sums::FILE)]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing in the folder that could be booted elsewhere.
    #[error("`{}` has no `{raw}`", .folder.display())]
    NoForm {
        /// The folder.
        folder: PathBuf,
        /// The disk that is missing.
        raw: String,
    },
    /// Two folders are for the same architecture.
    #[error("`{}` is for {}, and so is another folder", .folder.display(), .architecture.as_str())]
    Twice {
        /// The folder.
        folder: PathBuf,
        /// The architecture.
        architecture: Architecture,
    },
    /// Folders are of different images.
    #[error("`{}` is {found}, another folder is {expected}", .folder.display())]
    OtherImage {
        /// The folder.
        folder: PathBuf,
        /// Its name and version.
        found: String,
        /// The other's.
        expected: String,
    },
}

/// Packs output folders, one for each architecture, into the empty folder `to`, and gives the digest of the index.
///
/// # Errors
/// [`Error`].
pub fn pack(folders: &[PathBuf], to: &Path, ui: &Ui) -> Result<String, Error> {
    let layout = Layout::create(to)?;
    let mut index = Index { schema_version: 2, media_type: Some(INDEX.to_owned()), manifests: Vec::new() };
    let mut first: Option<String> = None;
    for folder in folders {
        let stage = ui.stage("pack");
        let (descriptor, image) = pack_folder(folder, &layout)?;
        let expected = first.get_or_insert_with(|| image.clone()).clone();
        if image != expected {
            return Err(Error::OtherImage { folder: folder.clone(), found: image, expected });
        }
        if index.manifests.iter().any(|other| other.platform == descriptor.platform) {
            let architecture = read_manifest(folder)?.architecture;
            return Err(Error::Twice { folder: folder.clone(), architecture });
        }
        index.manifests.push(descriptor);
        stage.done(&image);
    }
    let index = layout.add_document(INDEX, &index)?;
    let digest = index.digest.clone();
    layout.finish(index)?;
    Ok(digest)
}

/// Adds the manifest of a folder's image and gives its name and version besides.
fn pack_folder(folder: &Path, layout: &Layout) -> Result<(Descriptor, String), Error> {
    let image = read_manifest(folder)?;
    if read(&folder.join(manifest::SIGNATURE_FILE))?.is_empty() {
        return Err(Error::Unsigned { folder: folder.to_owned() });
    }
    let path = folder.join(sums::FILE);
    let text = read(&path)?;
    let sums = Sums::parse(&String::from_utf8_lossy(&text)).map_err(|_| Error::Changed { path })?;
    let [raw, distro] = forms(&image);
    if ![&raw, &distro].iter().any(|form| folder.join(form).exists()) {
        return Err(Error::NoForm { folder: folder.to_owned(), raw });
    }
    let mut layers = Vec::new();
    for name in names(&image) {
        let path = folder.join(&name);
        if !path.exists() {
            continue;
        }
        let digest = digest_of(&path)?;
        if sums.0.get(&name) != Some(&digest) {
            return Err(Error::Changed { path });
        }
        let mut layer = if name == raw {
            let packed = layout.folder().join("packed");
            compress(&path, &packed).map_err(|source| Error::Read { path: path.clone(), source })?;
            let layer = layout.add_file(ZSTD, &packed, digest_of(&packed)?)?;
            // The blob is another name of the same file.
            fs::remove_file(&packed).map_err(|source| Error::Read { path: packed, source })?;
            layer
        } else {
            layout.add_file(PLAIN, &path, digest)?
        };
        layer.annotations.insert(TITLE.to_owned(), name);
        layers.push(layer);
    }
    let annotations =
        [(TITLE, image.name.clone()), ("org.opencontainers.image.version", image.version.clone())];
    let document = Manifest {
        schema_version: 2,
        media_type: MANIFEST.to_owned(),
        artifact_type: Some(ARTIFACT_TYPE.to_owned()),
        config: layout.add_empty()?,
        layers,
        annotations: annotations.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    };
    let architecture = platform(image.architecture).to_owned();
    let mut descriptor = layout.add_document(MANIFEST, &document)?;
    descriptor.platform = Some(Platform { architecture, os: "linux".to_owned() });
    Ok((descriptor, format!("{} {}", image.name, image.version)))
}

fn read_manifest(folder: &Path) -> Result<eci_contract::manifest::Manifest, Error> {
    let path = folder.join(manifest::FILE);
    manifest::parse(&read(&path)?).map_err(|source| Error::Manifest { path, source })
}

fn digest_of(path: &Path) -> Result<Sha256, Error> {
    Sha256::of_file(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn compress(from: &Path, to: &Path) -> io::Result<()> {
    let mut encoder = zstd::Encoder::new(File::create(to)?, LEVEL)?;
    io::copy(&mut File::open(from)?, &mut encoder)?;
    encoder.finish().map(drop)
}
