//! Checks of files: a signed manifest, the artifacts that it names, the sums.

use std::fs;
use std::path::Path;

use eci_contract::manifest::{Artifact, Flavour, MAX_BYTES, Manifest, UnifiedKernelImage};

use super::super::digest::Sha256;
use super::super::sums::Sums;
use super::super::uki::pe;
use super::super::{manifest, secure_boot};
use super::{Expected, Report, UNSIGNED, chain};

/// Name of the check of the signature that firmware looks at.
const SECURE_BOOT: &str = "Secure Boot signature";

/// Checks signature, schema and flavour; gives the manifest when all of them hold.
pub(super) fn manifest(
    subject: &str,
    bytes: &[u8],
    signature: &[u8],
    expected: &Expected,
    report: &mut Report,
) -> Option<Manifest> {
    let id = expected.key.id();
    let signed = match bytes.len() {
        0..=MAX_BYTES if signature.is_empty() => Err(UNSIGNED.to_owned()),
        0..=MAX_BYTES if expected.key.verifies(bytes, signature) => Ok(format!("by key {id}")),
        0..=MAX_BYTES => Err(format!("the signature does not verify with key {id}")),
        _ => Err(format!("the manifest is larger than {MAX_BYTES} bytes")),
    };
    if !report.add(subject, "signature", signed) {
        return None;
    }
    let parsed = manifest::parse(bytes);
    let summary = match &parsed {
        Ok(read) => Ok(format!("{} {} {}", read.name, read.version, read.architecture.as_str())),
        Err(error) => Err(chain(error)),
    };
    report.add(subject, "manifest", summary);
    let manifest = parsed.ok()?;
    let (is, wanted) = (flavour(manifest.flavour), flavour(expected.flavour));
    let verdict = if is == wanted {
        Ok(is.to_owned())
    } else {
        Err(format!("this is a {is} image, not a {wanted} one"))
    };
    report.add(subject, "flavour", verdict).then_some(manifest)
}

/// Checks size and digest of a file that a trusted manifest names.
pub(super) fn artifact(folder: &Path, artifact: &Artifact, report: &mut Report) {
    let path = folder.join(&artifact.file);
    let outcome = match fs::metadata(&path).and_then(|metadata| Ok((metadata.len(), Sha256::of_file(&path)?)))
    {
        Err(error) => Err(format!("cannot read it: {error}")),
        Ok((size, _)) if size != artifact.size => {
            Err(format!("it is {size} bytes long, the manifest says {}", artifact.size))
        }
        Ok((_, digest)) if digest.to_string() != artifact.sha256 => {
            Err(format!("it has sha256 {digest}, the manifest says {}", artifact.sha256))
        }
        Ok((_, digest)) => Ok(format!("sha256 {digest}")),
    };
    report.add(&artifact.file, "digest", outcome);
}

/// Checks digest and signature of the unified kernel image beside a trusted manifest.
pub(super) fn uki(folder: &Path, named: &UnifiedKernelImage, expected: &Expected, report: &mut Report) {
    match fs::read(folder.join(&named.file)) {
        Ok(image) => {
            report.add(&named.file, "digest", uki_digest(&image, named));
            signature(&named.file, &image, expected, report);
        }
        Err(error) => {
            report.add(&named.file, "digest", Err(format!("cannot read it: {error}")));
        }
    }
}

/// Whether a unified kernel image is the one that a manifest names, signed or not.
pub(super) fn uki_digest(image: &[u8], named: &UnifiedKernelImage) -> Result<String, String> {
    let digest = pe::authenticode_digest(image).map_err(|error| chain(&error))?.to_string();
    if digest == named.authenticode_sha256 {
        Ok(format!("Authenticode sha256 {digest}"))
    } else {
        Err(format!("it has Authenticode sha256 {digest}, the manifest says {}", named.authenticode_sha256))
    }
}

/// Checks the signature of a unified kernel image.
pub(super) fn signature(subject: &str, image: &[u8], expected: &Expected, report: &mut Report) {
    let wanted = expected.certificate.as_ref();
    let note = if wanted.is_some() { "" } else { "; --certificate would say whether it should be" };
    let outcome = secure_boot::verify(image, wanted)
        .map(|by| format!("by {}, valid until {}{note}", by.name(), by.valid_until()))
        .map_err(|error| chain(&error));
    report.add(subject, SECURE_BOOT, outcome);
}

/// Checks every file that the sums name.
pub(super) fn sums(folder: &Path, path: &Path, report: &mut Report) {
    let subject = super::name(path);
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            report.add(&subject, "sums", Err(format!("cannot read it: {error}")));
            return;
        }
    };
    let outcome = Sums::parse(&text).map_err(|error| chain(&error)).and_then(|sums| {
        let wrong: Vec<_> =
            sums.0.iter().filter_map(|(name, digest)| mismatch(folder, name, *digest)).collect();
        if wrong.is_empty() { Ok(format!("{} files", sums.0.len())) } else { Err(wrong.join(", ")) }
    });
    report.add(&subject, "sums", outcome);
}

fn mismatch(folder: &Path, name: &str, digest: Sha256) -> Option<String> {
    match Sha256::of_file(&folder.join(name)) {
        Ok(found) if found == digest => None,
        Ok(_) => Some(format!("{name} differs")),
        Err(error) => Some(format!("cannot read {name}: {error}")),
    }
}

fn flavour(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Shipped => "shipped",
        Flavour::Test => "test",
    }
}
