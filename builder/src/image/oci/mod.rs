//! An image as an artifact of an OCI registry: each file of an output folder is a layer, by the name that its annotation
//! `org.opencontainers.image.title` gives it, as ORAS has it; an index has a manifest for each architecture.
//!
//! Invariant: a registry is not trusted. What comes from one is read only as far as `manifest.json` allows, which the caller's key signed,
//! and stands nowhere before everything in it is verified.
//!
//! [`layout`] is the format (OCI image layout 1.0), [`pack`] and [`unpack`] go between folder and layout, [`registry`] has skopeo carry
//! a layout.

pub mod layout;
pub mod pack;
pub mod registry;
pub mod unpack;

use eci_contract::manifest::{Architecture, Manifest};

use super::assemble::{self, KEY_FILE, disk_file};
use super::formats::Format;

/// What the artifact is.
pub const ARTIFACT_TYPE: &str = "application/vnd.eci.image.v1";
/// A layer that is a file.
const PLAIN: &str = "application/octet-stream";
/// A layer that is a file compressed with zstd (RFC 8878): the sparse disk.
const ZSTD: &str = "application/zstd";

/// Files that go into a registry: what is the same in every folder, and the forms that are read by nothing but our own programs. The
/// key and the sums are no part of it, they are the reader's to say.
fn names(manifest: &Manifest) -> Vec<String> {
    let fixed = assemble::FIXED.into_iter().filter(|name| *name != KEY_FILE).map(str::to_owned);
    fixed.chain(forms(manifest)).collect()
}

/// The disk, and the distro for WSL.
fn forms(manifest: &Manifest) -> [String; 2] {
    [Format::Raw, Format::Wsl]
        .map(|form| disk_file(&manifest.name, &manifest.version, manifest.architecture, form))
}

/// An architecture, as OCI platforms (after Go) spell it.
fn platform(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "amd64",
        Architecture::Aarch64 => "arm64",
    }
}

#[cfg(test)]
mod tests;
