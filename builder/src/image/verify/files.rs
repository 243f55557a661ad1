//! Checks of files: a signed manifest, the artifacts that it names, the sums.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use eci_contract::manifest::{Artifact, Flavour, MAX_BYTES, Manifest, Measured, UnifiedKernelImage};

use super::super::digest::Sha256;
use super::super::secure_boot::{Certificate, root_hash};
use super::super::sums::Sums;
use super::super::uki::{self, pe};
use super::super::{manifest, secure_boot};
use super::{Expected, Report, UNSIGNED, chain};

/// Name of the check of the signature that firmware looks at.
const SECURE_BOOT: &str = "Secure Boot signature";

/// Name of the check of the signature that the kernel looks at.
const ROOT_HASH: &str = "signature of the root hash";

/// What is said of images from before there was one, too.
const NOBODY: &str = "nobody has signed it: a machine that enforces Secure Boot refuses this image";

/// What a signature is worth whose certificate is only what came with it.
fn note(expected: &Expected) -> &'static str {
    if expected.certificate.is_some() { "" } else { "; --certificate would say whether it should be" }
}

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

/// Checks digest and signature of the unified kernel image beside a trusted manifest, whose root hash `signer` has signed.
pub(super) fn uki(
    folder: &Path,
    named: &UnifiedKernelImage,
    signer: Option<&Certificate>,
    expected: &Expected,
    report: &mut Report,
) {
    match fs::read(folder.join(&named.file)) {
        Ok(image) => {
            report.add(&named.file, "digest", uki_digest(&image, named));
            if let Some(foretold) = &named.measured {
                report.add(&named.file, "measurements", uki_measured(&image, foretold));
            }
            signature(&named.file, &image, signer, expected, report);
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

/// Whether a machine with a TPM will measure what a manifest foretells.
fn uki_measured(image: &[u8], foretold: &Measured) -> Result<String, String> {
    let found = uki::measured(image).map_err(|error| chain(&error))?;
    if found == *foretold {
        Ok(format!("PCR 9 {}, PCR 11 {}", found.pcr9, found.pcr11))
    } else {
        let [found, foretold] =
            [&found, foretold].map(|of| format!("PCR 9 {}, PCR 11 {}", of.pcr9, of.pcr11));
        Err(format!("a TPM would measure {found}; the manifest says {foretold}"))
    }
}

/// Checks the signature of a unified kernel image. Who made it has to be the one who signed the root hash: firmware that trusts one of
/// them would boot a kernel that refuses the other's.
pub(super) fn signature(
    subject: &str,
    image: &[u8],
    root_hash_signer: Option<&Certificate>,
    expected: &Expected,
    report: &mut Report,
) {
    let wanted = expected.certificate.as_ref();
    let verified = secure_boot::verify(image, wanted).map_err(|error| chain(&error));
    let outcome = verified.and_then(|by| match root_hash_signer.filter(|other| other.der() != by.der()) {
        Some(other) => Err(format!("it is signed by {}, and the root hash by {}", by.name(), other.name())),
        None => Ok(format!("by {}, valid until {}{}", by.name(), by.valid_until(), note(expected))),
    });
    report.add(subject, SECURE_BOOT, outcome);
}

/// Checks the signature of the root hash, which the kernel looks at where the firmware enforces Secure Boot; `named` is the digest of
/// the certificate that stands beside it. Gives the certificate of who made it.
pub(super) fn root_hash(
    subject: &str,
    of: Sha256,
    signature: &[u8],
    named: Option<&str>,
    expected: &Expected,
    report: &mut Report,
) -> Option<Certificate> {
    let verified = match signature {
        [] => Err(NOBODY.to_owned()),
        signature => {
            root_hash::verify(of, signature, expected.certificate.as_ref()).map_err(|error| chain(&error))
        }
    };
    let verified = verified.and_then(|by| {
        let found = by.fingerprint();
        match named.filter(|named| *named != found) {
            Some(named) => {
                Err(format!("the certificate beside it has sha256 {named}, the signer's has {found}"))
            }
            None => Ok(by),
        }
    });
    let outcome =
        verified.as_ref().map(|by| format!("by {}{}", by.name(), note(expected))).map_err(Clone::clone);
    report.add(subject, ROOT_HASH, outcome);
    verified.ok()
}

/// The same of the file beside a trusted manifest.
pub(super) fn root_hash_file(
    folder: &Path,
    manifest: &Manifest,
    expected: &Expected,
    report: &mut Report,
) -> Option<Certificate> {
    let of = manifest.root.root_hash.parse().expect("a parsed manifest has a root hash");
    match fs::read(folder.join(root_hash::FILE)) {
        Ok(signature) => root_hash(root_hash::FILE, of, &signature, None, expected, report),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            root_hash(root_hash::FILE, of, &[], None, expected, report)
        }
        Err(error) => {
            report.add(root_hash::FILE, ROOT_HASH, Err(format!("cannot read it: {error}")));
            None
        }
    }
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
