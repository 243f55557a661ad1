//! An OCI image layout: `oci-layout`, `index.json`, and blobs by their digests.
//! Source: <https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md>.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::image::digest::Sha256;

/// Media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of a configuration that has nothing to say.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Annotation with a file's name.
pub const TITLE: &str = "org.opencontainers.image.title";
/// Upper bound on an index or manifest in bytes, as registries have it.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// A blob, by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Size in bytes.
    pub size: u64,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// An operating system on an architecture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64` or `arm64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
}

/// A manifest: of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// [`MANIFEST`].
    pub media_type: String,
    /// What the artifact is; older registries lose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// An empty object.
    pub config: Descriptor,
    /// The files.
    pub layers: Vec<Descriptor>,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An index: of manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// [`INDEX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
}

/// Why a layout cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of it cannot be written or read.
    #[error("cannot use `{}`", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An index or manifest is none.
    #[error("`{}` is not what the OCI image specification says", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// An index or manifest is larger than any may be.
    #[error("`{}` is larger than {MAX_DOCUMENT_BYTES} bytes", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A digest is not of the one kind that we use.
    #[error("`{digest}` is not the name of a blob")]
    Digest {
        /// What is written.
        digest: String,
    },
}

/// A layout's folder.
#[derive(Clone, Debug)]
pub struct Layout(PathBuf);

impl Layout {
    /// Starts an empty layout in a folder.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn create(folder: &Path) -> Result<Self, Error> {
        let layout = Self::at(folder);
        let blobs = layout.0.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(|source| Error::File { path: blobs, source })?;
        layout.write("oci-layout", b"{\"imageLayoutVersion\":\"1.0.0\"}")?;
        Ok(layout)
    }

    /// The layout that is in a folder.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// A blob's file.
    ///
    /// # Errors
    /// [`Error::Digest`].
    pub fn blob(&self, descriptor: &Descriptor) -> Result<PathBuf, Error> {
        let digits =
            descriptor.digest.strip_prefix("sha256:").and_then(|digits| digits.parse::<Sha256>().ok());
        let digits = digits.ok_or_else(|| Error::Digest { digest: descriptor.digest.clone() })?;
        Ok(self.0.join("blobs/sha256").join(digits.to_string()))
    }

    /// Adds a blob of these bytes.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn add(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, Error> {
        let digest = Sha256::of(&[bytes]);
        self.write(&format!("blobs/sha256/{digest}"), bytes)?;
        Ok(describe(media_type, digest, bytes.len() as u64))
    }

    /// Adds an empty configuration.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn add_empty(&self) -> Result<Descriptor, Error> {
        self.add(EMPTY, b"{}")
    }

    /// Adds a file as a blob: a link to it where that can be, a copy elsewhere.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn add_file(&self, media_type: &str, file: &Path, digest: Sha256) -> Result<Descriptor, Error> {
        let place = self.0.join("blobs/sha256").join(digest.to_string());
        let failed = |source| Error::File { path: file.to_owned(), source };
        // A link to what a symbolic link leads to, never to the link itself.
        let whole = file.canonicalize().map_err(failed)?;
        if !place.exists() && fs::hard_link(&whole, &place).is_err() {
            fs::copy(&whole, &place).map_err(failed)?;
        }
        Ok(describe(media_type, digest, fs::metadata(file).map_err(failed)?.len()))
    }

    /// Adds a document as a blob.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn add_document(&self, media_type: &str, document: &impl Serialize) -> Result<Descriptor, Error> {
        self.add(media_type, &serde_json::to_vec(document).expect("strings, numbers and maps"))
    }

    /// Makes this the one thing that the layout has.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn finish(&self, content: Descriptor) -> Result<(), Error> {
        let index = Index { schema_version: 2, media_type: None, manifests: vec![content] };
        self.write("index.json", &serde_json::to_vec(&index).expect("strings, numbers and maps"))
    }

    /// What the layout has.
    ///
    /// # Errors
    /// [`Error`].
    pub fn index(&self) -> Result<Index, Error> {
        read(self.0.join("index.json"))
    }

    /// A document that is a blob.
    ///
    /// # Errors
    /// [`Error`].
    pub fn document<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T, Error> {
        read(self.blob(descriptor)?)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.0.join(name);
        fs::write(&path, bytes).map_err(|source| Error::File { path, source })
    }
}

fn describe(media_type: &str, digest: Sha256, size: u64) -> Descriptor {
    let (media_type, digest) = (media_type.to_owned(), format!("sha256:{digest}"));
    Descriptor { media_type, digest, size, annotations: BTreeMap::new(), platform: None }
}

fn read<T: DeserializeOwned>(path: PathBuf) -> Result<T, Error> {
    let failed = |source| Error::File { path: path.clone(), source };
    if fs::metadata(&path).map_err(failed)?.len() > MAX_DOCUMENT_BYTES {
        return Err(Error::TooLarge { path });
    }
    let bytes = fs::read(&path).map_err(failed)?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Malformed { path, source })
}
