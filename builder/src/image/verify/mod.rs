//! Checks artifacts against a public key: signature first, then everything the signed manifest says, recomputed.
//!
//! Invariant: nothing of a manifest is believed before its signature holds, and what was not checked is never counted
//! as holding.

mod apple;
mod disk;
mod esp;
mod files;
mod iso;
mod provenance;
mod wsl;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use eci_contract::errors::chain;
use eci_contract::manifest::{Flavour, Manifest};
use serde::Serialize;

use super::formats::{self, Format};
use super::secure_boot::Certificate;
use super::signature::PublicKey;
use super::{apple as apple_folder, assemble, manifest, sums};
use crate::ui::Ui;

/// Why an artifact cannot be checked at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A disk image cannot be brought into raw form.
    #[error("cannot open the disk image")]
    Format(#[from] formats::Error),
    /// A distro's parts cannot be laid out to look at.
    #[error("cannot write a temporary file")]
    Scratch(#[source] io::Error),
}

/// What a check says of a manifest without a signature.
const UNSIGNED: &str = "nobody has signed it yet";

/// What is expected of an image.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Key that must have signed it.
    pub key: PublicKey,
    /// Certificate that the unified kernel image must be signed for; anybody's will do where none is given.
    pub certificate: Option<Certificate>,
    /// What it must be for. A test image is no shipped one, whoever signed it.
    pub flavour: Flavour,
}

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The file or slot that was checked.
    pub subject: String,
    /// What was checked.
    pub check: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// Values, or the reason.
    pub detail: String,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is as it should be.
    Holds,
    /// It is not.
    Fails,
    /// It was not checked; the detail says why.
    Skipped,
}

/// All checks of an artifact in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether the artifact may be trusted: something was checked and nothing failed.
    #[must_use]
    pub fn holds(&self) -> bool {
        let count = |verdict| self.checks.iter().filter(|check| check.verdict == verdict).count();
        count(Verdict::Fails) == 0 && count(Verdict::Holds) > 0
    }

    /// Whether it was built to be signed later, and still waits for that.
    #[must_use]
    pub fn is_unsigned(&self) -> bool {
        self.checks.iter().any(|check| check.verdict == Verdict::Fails && check.detail == UNSIGNED)
    }

    /// What failed and why, a phrase each.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let failed = self.checks.iter().filter(|check| check.verdict == Verdict::Fails);
        failed.map(|check| format!("{}: {}: {}", check.subject, check.check, check.detail)).collect()
    }

    pub(crate) fn add(
        &mut self,
        subject: &str,
        check: &'static str,
        outcome: Result<String, String>,
    ) -> bool {
        let (verdict, detail) = match outcome {
            Ok(detail) => (Verdict::Holds, detail),
            Err(detail) => (Verdict::Fails, detail),
        };
        self.checks.push(Check { subject: subject.to_owned(), check, verdict, detail });
        verdict == Verdict::Holds
    }

    pub(crate) fn skip(&mut self, subject: &str, check: &'static str, detail: &str) {
        let (subject, detail) = (subject.to_owned(), detail.to_owned());
        self.checks.push(Check { subject, check, verdict: Verdict::Skipped, detail });
    }
}

/// Checks an output folder, a `manifest.json` in one, a disk image of any format, a CD, a distro for WSL, or a copy of the folder for Apple's
/// framework.
///
/// # Errors
/// [`Error`] when the artifact cannot be looked at. An artifact that is not as it should be is a [`Report`] that does
/// not hold.
pub fn verify(artifact: &Path, expected: &Expected, ui: &Ui) -> Result<Report, Error> {
    let mut report = Report::default();
    if apple_folder::is_alone(artifact) {
        apple::check(artifact, "", expected, &mut report, ui)?;
    } else if artifact.is_dir() {
        verify_folder(artifact, expected, &mut report, ui)?;
    } else if artifact.extension().is_some_and(|extension| extension == "json") {
        verify_beside(artifact.parent().unwrap_or(Path::new("")), artifact, expected, &mut report)?;
    } else if formats::of_file(artifact)? == Format::Wsl {
        wsl::distro(&name(artifact), artifact, expected, &mut report)?;
    } else {
        verify_disk(artifact, expected, &mut report, ui)?;
    }
    Ok(report)
}

fn verify_folder(folder: &Path, expected: &Expected, report: &mut Report, ui: &Ui) -> Result<(), Error> {
    let path = folder.join(manifest::FILE);
    let signed = verify_beside(folder, &path, expected, report)?;
    files::sums(folder, &folder.join(sums::FILE), report);
    let Some(signed) = signed else {
        report.skip(
            "provenance",
            "all",
            "what it has to be about is in the manifest, and that is not trusted",
        );
        report.skip("disk images", "all", "which they are is in the manifest, and that is not trusted");
        return Ok(());
    };
    provenance::check(folder, &signed, expected, report);
    let mut disks = 0;
    for format in Format::DISKS.into_iter().chain([Format::Iso]) {
        let disk = assemble::disk_file(&signed.name, &signed.version, signed.architecture, format);
        let disk = folder.join(disk);
        if disk.exists() {
            disks += 1;
            let manifests = verify_disk(&disk, expected, report, ui)?;
            report.add(&name(&disk), "manifest beside it", same_as_beside(&path, manifests.iter())?);
        }
    }
    if folder.join(apple_folder::FOLDER).exists() {
        disks += 1;
        let prefix = format!("{}/", apple_folder::FOLDER);
        let manifests = apple::check(folder, &prefix, expected, report, ui)?;
        let outcome = same_as_beside(&path, manifests.iter())?;
        report.add(apple_folder::FOLDER, "manifest beside it", outcome);
    }
    if disks == 0 {
        report.skip("disk images", "all", "the folder has none");
    }
    let distro = assemble::disk_file(&signed.name, &signed.version, signed.architecture, Format::Wsl);
    let distro = folder.join(distro);
    if distro.exists() {
        let manifest = wsl::distro(&name(&distro), &distro, expected, report)?;
        report.add(&name(&distro), "manifest beside it", same_as_beside(&path, manifest.iter())?);
    }
    Ok(())
}

/// Whether one of an artifact's manifests is the one beside it.
fn same_as_beside<'a>(
    path: &Path,
    mut manifests: impl Iterator<Item = &'a Vec<u8>>,
) -> Result<Result<String, String>, Error> {
    let beside = read(path)?;
    let same = manifests.any(|manifest| *manifest == beside);
    Ok(if same { Ok("the same bytes".to_owned()) } else { Err("another manifest".to_owned()) })
}

/// Checks a manifest with its signature beside it, and the kernel, initrd and unified kernel image that it names.
/// Checks a manifest by itself: its signature, its schema and what it is for. Nothing that it names need be there.
///
/// # Errors
/// [`Error`] when manifest or signature cannot be read. One that is not as it should be is a [`Report`] that does not hold.
pub fn manifest_in(
    folder: &Path,
    expected: &Expected,
    report: &mut Report,
) -> Result<Option<Manifest>, Error> {
    let bytes = read(&folder.join(manifest::FILE))?;
    let signature = read(&folder.join(manifest::SIGNATURE_FILE))?;
    Ok(files::manifest(manifest::FILE, &bytes, &signature, expected, report))
}

fn verify_beside(
    folder: &Path,
    path: &Path,
    expected: &Expected,
    report: &mut Report,
) -> Result<Option<Manifest>, Error> {
    let bytes = read(path)?;
    let signature = read(&folder.join(manifest::SIGNATURE_FILE))?;
    let signed = files::manifest(&name(path), &bytes, &signature, expected, report);
    if let Some(signed) = &signed {
        for artifact in [&signed.kernel, &signed.initrd] {
            files::artifact(folder, artifact, report);
        }
        let signer = files::root_hash_file(folder, signed, expected, report);
        files::uki(folder, &signed.uki, signer.as_ref(), expected, report);
    }
    Ok(signed)
}

/// Checks a disk image and gives the manifests whose signature holds.
fn verify_disk(
    path: &Path,
    expected: &Expected,
    report: &mut Report,
    ui: &Ui,
) -> Result<Vec<Vec<u8>>, Error> {
    let disk = formats::open(path, ui)?;
    Ok(disk::disk(&name(path), &disk, path, expected, report))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
