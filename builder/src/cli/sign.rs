//! `eci-builder sign`: signatures for what `build --unsigned` left.

use std::path::PathBuf;

use clap::ArgGroup;
use serde_json::json;

use super::exit::{Classify, Exit};
use super::{artifact_lines, artifact_values, print_data};
use crate::image::sign::{self, Error, Source, Sources};
use crate::image::token::{SCHEME, UriError};
use crate::image::{assemble, secure_boot};
use crate::ui::Ui;

/// Version of what `--json` prints.
const JSON_VERSION: u32 = 1;
/// What to do about an image that nobody has signed.
pub const HINT: &str = "`eci-builder sign DIR` puts the signatures in; its --help says how they are made";

/// Arguments of `sign`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = FORMS)]
#[command(group(ArgGroup::new("manifest").required(true).args(["key", "manifest_signature"])))]
#[command(group(ArgGroup::new("uki").required(true).args(["secure_boot_key", "secure_boot_signature"])))]
pub struct Args {
    /// Output folder of `build --unsigned`.
    #[arg(value_name = "DIR", default_value = "out")]
    folder: PathBuf,
    /// Ed25519 private key (PEM) that signs manifest and provenance, or the `pkcs11:` URI of one.
    #[arg(long, value_name = "FILE|URI", value_parser = parse_key)]
    key: Option<Source>,
    /// The manifest's signature, made with that key elsewhere.
    #[arg(long, value_name = "FILE", requires = "provenance_signature")]
    manifest_signature: Option<PathBuf>,
    /// The provenance's signature, made with the same key.
    #[arg(long, value_name = "FILE", requires = "manifest_signature", conflicts_with = "key")]
    provenance_signature: Option<PathBuf>,
    /// RSA private key (PEM) that signs the unified kernel image for Secure Boot, and the root hash, or the `pkcs11:` URI of one.
    #[arg(long, value_name = "FILE|URI", value_parser = parse_key)]
    secure_boot_key: Option<Source>,
    /// The unified kernel image's signature, made with that key elsewhere.
    #[arg(long, value_name = "FILE", requires = "root_hash_signature")]
    secure_boot_signature: Option<PathBuf>,
    /// The root hash's signature, made with the same key.
    #[arg(long, value_name = "FILE", requires = "secure_boot_signature", conflicts_with = "secure_boot_key")]
    root_hash_signature: Option<PathBuf>,
    /// Print the artifacts as JSON.
    #[arg(long)]
    json: bool,
}

/// How tokens are named, and how signatures are made with what everybody has.
const FORMS: &str = "\
Keys on a token (RFC 7512), with the PIN in a file:
  'pkcs11:token=LABEL;object=LABEL;id=%01?module-path=/usr/lib/…/pkcs11.so&pin-source=file:/path'

Signatures that are made elsewhere:
  manifest.json, Ed25519, 64 bytes:
    openssl pkeyutl -sign -rawin -inkey image.key -in manifest.json -out manifest.json.sig
  provenance.intoto.json.tbs, the same:
    openssl pkeyutl -sign -rawin -inkey image.key -in provenance.intoto.json.tbs -out provenance.sig
  eci.efi, one of:
    RSA (PKCS #1 1.5, SHA-256) of eci.efi.tbs, which gives the bytes that `build` with the key gives:
      openssl dgst -sha256 -sign db.key -out eci.efi.sig eci.efi.tbs
    PKCS #7 in DER:
      sbsign --detached --key db.key --cert secure-boot.crt --output eci.efi.p7 eci.efi
    the signed file:
      sbsign --key db.key --cert secure-boot.crt --output eci.efi.signed eci.efi
  root-hash.tbs, by the same key, one of:
    RSA:
      openssl dgst -sha256 -sign db.key -out root-hash.sig root-hash.tbs
    PKCS #7 in DER, detached, without attributes:
      openssl smime -sign -binary -noattr -outform der -signer secure-boot.crt -inkey db.key -in root-hash.tbs -out root-hash.p7";

/// Runs the subcommand.
///
/// # Errors
/// When a signature does not hold, a key is another one than the image was built for, or the folder does not wait for any.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let sources = Sources {
        manifest: source(args.key.as_ref(), args.manifest_signature.as_ref()),
        provenance: source(args.key.as_ref(), args.provenance_signature.as_ref()),
        secure_boot: source(args.secure_boot_key.as_ref(), args.secure_boot_signature.as_ref()),
        root_hash: source(args.secure_boot_key.as_ref(), args.root_hash_signature.as_ref()),
    };
    let placed = sign::sign(&args.folder, &sources, ui).map_err(not_signed)?;
    if args.json {
        let artifacts = artifact_values(&placed);
        return print_data(&json!({ "version": JSON_VERSION, "artifacts": artifacts }).to_string());
    }
    print_data(&artifact_lines(&placed))?;
    let key = args.folder.join(assemble::KEY_FILE);
    let certificate = args.folder.join(assemble::CERTIFICATE_FILE);
    ui.note(&format!(
        "check it: eci-builder verify {} --key {} --certificate {}",
        args.folder.display(),
        key.display(),
        certificate.display()
    ));
    Ok(())
}

pub(super) fn parse_key(text: &str) -> Result<Source, UriError> {
    if text.starts_with(SCHEME) {
        text.parse().map(Box::new).map(Source::Token)
    } else {
        Ok(Source::Key(text.into()))
    }
}

fn source(key: Option<&Source>, signature: Option<&PathBuf>) -> Source {
    key.cloned()
        .or_else(|| signature.map(|path| Source::Signature(path.clone())))
        .expect("clap asks for exactly one of them")
}

fn not_signed(error: Error) -> anyhow::Error {
    let (exit, hint) = match &error {
        Error::Signed { .. } => (Exit::Config, "`eci-builder build --unsigned` makes one that is not"),
        Error::Changed { .. } | Error::NoDisk { .. } | Error::NoPartition { .. } | Error::Unsound { .. } => (
            Exit::Untrusted,
            "copy the folder again, or build it again: signatures of the same bytes stay good",
        ),
        Error::OtherKey { .. } => (Exit::Untrusted, "name that key's file with --key, or build for this one"),
        Error::NotEd25519 { .. }
        | Error::OtherSignature { .. }
        | Error::OtherUki { .. }
        | Error::OtherRootHash { .. } => (
            Exit::Untrusted,
            "sign this folder's files with the keys that it was built for: `eci-builder sign --help`",
        ),
        Error::SecureBoot(secure_boot::Error::Mismatch { .. }) => {
            (Exit::Untrusted, "name the key of that certificate with --secure-boot-key")
        }
        Error::SecureBoot(secure_boot::Error::Expired { .. }) => {
            (Exit::Config, "build for another certificate, or check this host's clock")
        }
        Error::Read { .. }
        | Error::Manifest { .. }
        | Error::Provenance { .. }
        | Error::Key(_)
        | Error::SecureBoot(_) => (
            Exit::Config,
            "name an output folder of `eci-builder build --unsigned`, and keys of `eci-builder keygen`",
        ),
        Error::Token(_) => {
            (Exit::Config, "`pkcs11-tool --module LIBRARY --login -O` lists the keys that a token has")
        }
        _ => return Err::<(), _>(error).or_exit(Exit::Failure).expect_err("an error was given"),
    };
    Err::<(), _>(error).or_exit_with_hint(exit, hint).expect_err("an error was given")
}
