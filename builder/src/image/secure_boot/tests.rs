//! Keys, signatures and variables, by themselves and against the field's tools.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use super::super::uki::{self, pe};
use super::*;
use crate::ui::Ui;

/// A signer for whoever needs one: making keys takes a while.
pub(crate) fn signer() -> &'static Signer {
    static SIGNER: LazyLock<Signer> = LazyLock::new(|| {
        let folder = tempfile::tempdir().expect("temporary folder");
        generate(folder.path(), &Ui::silent()).expect("openssl is installed")
    });
    &SIGNER
}

/// Keys in a folder; `None` where OpenSSL is not installed.
fn keys(folder: &Path) -> Option<Signer> {
    match generate(folder, &Ui::silent()) {
        Err(Error::OpenSsl { source: tool::Error::Missing { .. }, .. }) => {
            eprintln!("skipped: openssl is not installed");
            None
        }
        made => Some(made.expect("fresh folder")),
    }
}

fn image() -> Vec<u8> {
    uki::make(&pe::tests::stub(".sbat", b"sbat,1\n", 10), &uki::tests::PARTS).expect("made")
}

fn run(program: &str, arguments: &[&Path]) -> Option<Output> {
    let output = Command::new(program).args(arguments).output();
    if output.is_err() {
        eprintln!("skipped: {program} is not installed");
    }
    output.ok()
}

#[test]
fn a_signed_image_is_the_same_every_time_and_verifies() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let Some(signer) = keys(folder.path()) else { return };
    let signed = sign(&image(), &signer).expect("signed");
    assert_eq!(signed, sign(&image(), &signer).expect("signed"));
    assert_eq!(verify(&signed, Some(signer.certificate())).expect("it holds"), *signer.certificate());
    assert_eq!(uki::read(&signed).expect("sound"), uki::tests::PARTS, "the sections are as they were");
    assert!(matches!(sign(&signed, &signer), Err(SignatureError::Pe(pe::Error::Signed))));
}

#[test]
fn no_byte_of_a_signed_image_can_be_changed() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let Some(signer) = keys(folder.path()) else { return };
    let signed = sign(&image(), &signer).expect("signed");
    for at in (0..image().len()).step_by(61).chain(image().len()..signed.len()) {
        let mut changed = signed.clone();
        changed[at] ^= 1;
        // Nobody looks at the checksum, and the length of the signature may count what fills it up.
        let checksum = 0x40 + 24 + 64..0x40 + 24 + 68;
        if !checksum.contains(&at) && at != image().len() {
            assert!(verify(&changed, Some(signer.certificate())).is_err(), "byte {at}");
        }
    }
    for length in (0..signed.len()).step_by(97) {
        assert!(verify(&signed[..length], None).is_err(), "{length} bytes");
    }
    let longer = [&signed[..], b"more"].concat();
    assert!(verify(&longer, None).is_err(), "bytes behind the signature");
}

#[test]
fn an_unsigned_image_and_another_s_are_told_apart() {
    let (one, two) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let (Some(signer), Some(other)) = (keys(one.path()), keys(two.path())) else { return };
    assert_eq!(verify(&image(), None).expect_err("unsigned").to_string(), "it is not signed");
    let signed = sign(&image(), &other).expect("signed");
    let error = verify(&signed, Some(signer.certificate())).expect_err("another's").to_string();
    assert!(error.starts_with("it is signed by CN=ECI appliance db ("), "{error}");
}

#[test]
fn sbverify_agrees_and_we_agree_with_sbsign() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let Some(signer) = keys(folder.path()) else { return };
    let path = |name: &str| folder.path().join(name);
    let (key, certificate) = (path("secure-boot/db.key"), path("secure-boot/db.crt"));
    fs::write(path("ours"), sign(&image(), &signer).expect("signed")).expect("image");
    let option = Path::new("--cert");
    let Some(said) = run("sbverify", &[option, &certificate, &path("ours")]) else { return };
    assert!(said.status.success(), "{said:?}");
    fs::write(path("image"), image()).expect("image");
    let (by, to) = (Path::new("--key"), Path::new("--output"));
    let said = run("sbsign", &[by, &key, option, &certificate, to, &path("theirs"), &path("image")]);
    assert!(said.expect("it is of the same package").status.success());
    let theirs = fs::read(path("theirs")).expect("signed");
    verify(&theirs, Some(signer.certificate())).expect("it holds");
}

#[test]
fn a_signature_that_was_made_elsewhere_gives_the_same_bytes_and_holds_for_one_image_and_one_key() {
    let (folder, other) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let (Some(signer), Some(other)) = (keys(folder.path()), keys(other.path())) else { return };
    let path = |name: &str| folder.path().join(name);
    fs::write(path("tbs"), to_be_signed(&image()).expect("a PE file")).expect("written");
    let [digest, sha256, sign_with, out] = ["dgst", "-sha256", "-sign", "-out"].map(Path::new);
    let key = path("secure-boot/db.key");
    let said = run("openssl", &[digest, sha256, sign_with, &key, out, &path("rsa"), &path("tbs")]);
    assert!(said.expect("it made the keys").status.success());
    let rsa = fs::read(path("rsa")).expect("signature");
    let ours = sign(&image(), &signer).expect("signed");
    let attach = |image: &[u8], signature: &[u8]| attach(image, signature, signer.certificate());
    assert_eq!(attach(&image(), &rsa).expect("it holds"), ours);
    let pkcs7 = pe::signature(&ours).expect("sound").expect("signed");
    for signature in [pkcs7, &ours] {
        assert_eq!(attach(&image(), signature).expect("it holds"), ours);
    }
    let changed = uki::make(
        &pe::tests::stub(".sbat", b"sbat,1\n", 10),
        &uki::Parts { release: "6.12.2", ..uki::tests::PARTS },
    );
    let changed = changed.expect("made");
    let others = sign(&image(), &other).expect("signed");
    let mut flipped = rsa.clone();
    flipped[9] ^= 1;
    for (image, signature, reason) in [
        (&changed, &rsa[..], "its signature does not verify with the certificate of CN=ECI appliance db"),
        (&changed, pkcs7, "and "),
        (&changed, &ours, "and "),
        (&image(), &flipped, "its signature does not verify with the certificate of CN=ECI appliance db"),
        (&image(), &rsa[1..], "its signature does not follow the format"),
        (&image(), b"", "its signature does not follow the format"),
        (&image(), &image(), "it is not signed"),
        (&image(), &others, "it is signed by CN=ECI appliance db"),
        (&ours, &rsa, "it is signed already"),
    ] {
        let error = attach(image, signature).expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn what_sbsign_and_osslsigncode_make_is_taken() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let Some(signer) = keys(folder.path()) else { return };
    let path = |name: &str| folder.path().join(name);
    let (key, certificate) = (path("secure-boot/db.key"), path("secure-boot/db.crt"));
    fs::write(path("image"), image()).expect("image");
    let words = ["--detached", "--key", "--cert", "--output"].map(Path::new);
    let [detached, by, cert, to] = words;
    let said = run("sbsign", &[detached, by, &key, cert, &certificate, to, &path("p7"), &path("image")]);
    if said.is_some_and(|said| said.status.success()) {
        let signature = fs::read(path("p7")).expect("signature");
        attach(&image(), &signature, signer.certificate()).expect("it holds");
    }
    let [verb, by, cert, from, to, hash, sha256] =
        ["sign", "-key", "-certs", "-in", "-out", "-h", "sha256"].map(Path::new);
    let (image_path, out) = (path("image"), path("signed"));
    let arguments = [verb, hash, sha256, by, &key, cert, &certificate, from, &image_path, to, &out];
    if run("osslsigncode", &arguments).is_some_and(|said| said.status.success()) {
        let signed = fs::read(path("signed")).expect("signed");
        attach(&image(), &signed, signer.certificate()).expect("it holds");
    }
}

#[test]
fn keys_are_private_and_are_never_overwritten() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let Some(signer) = keys(folder.path()) else { return };
    let mut names: Vec<_> = fs::read_dir(folder.path().join(FOLDER))
        .expect("listing")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let wanted =
        ["KEK", "PK", "db"].map(|name| ["auth", "crt", "esl", "key"].map(|end| format!("{name}.{end}")));
    assert_eq!(names, wanted.concat());
    for name in ["PK.key", "KEK.key", "db.key"] {
        let mode = fs::metadata(folder.path().join(FOLDER).join(name)).expect("key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let error = generate(folder.path(), &Ui::silent()).expect_err("they are there");
    assert!(error.to_string().ends_with("secure-boot` exists; a key is never overwritten"), "{error}");
    let again = host_signer(folder.path(), &Ui::silent()).expect("they are there");
    assert_eq!(again.certificate(), signer.certificate());
}

#[test]
fn changes_of_variables_are_signed_by_whom_the_firmware_asks() {
    let folder = tempfile::tempdir().expect("temporary folder");
    if keys(folder.path()).is_none() {
        return;
    }
    let read = |name: &str| fs::read(folder.path().join(FOLDER).join(name)).expect("file");
    let certificate = |name: &str| {
        let path = folder.path().join(FOLDER).join(name);
        Certificate::read(&path).expect("our own")
    };
    for (name, by) in [("PK", "PK.crt"), ("KEK", "PK.crt"), ("db", "KEK.crt")] {
        let (list, change) = (read(&format!("{name}.esl")), read(&format!("{name}.auth")));
        assert!(change.ends_with(&list) && list.ends_with(certificate(&format!("{name}.crt")).der()));
        let length = u32::from_le_bytes(change[16..20].try_into().expect("four bytes"));
        assert_eq!(16 + usize::try_from(length).expect("small") + list.len(), change.len());
        let holds = |needle: &[u8]| change.windows(needle.len()).any(|window| window == needle);
        assert!(holds(certificate(by).der()), "{name} carries its signer's certificate");
    }
}

#[test]
fn what_is_no_key_or_no_certificate_is_named_with_the_reason() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let Some(signer) = keys(folder.path()) else { return };
    let path = |name: &str| folder.path().join(name);
    let (key, certificate) = (path("secure-boot/db.key"), path("secure-boot/db.crt"));
    let refusal =
        |key: &Path, certificate: &Path| Signer::read(key, certificate).expect_err("it is wrong").to_string();
    assert!(
        refusal(&certificate, &certificate).ends_with("is a PEM file of something else than a private key")
    );
    assert!(refusal(&key, &key).ends_with("is a PEM file of something else"));
    assert!(refusal(&path("none"), &certificate).starts_with("cannot read `"));
    assert!(refusal(&key, &path("secure-boot/PK.crt")).contains("is not the one of the key"));
    fs::write(path("text"), "no key").expect("file");
    assert!(refusal(&path("text"), &certificate).ends_with("is not a PEM file"));
    let ed25519 = super::super::signature::generate(&path("ed25519"));
    ed25519.expect("fresh folder");
    let other = path("ed25519/image.key");
    assert!(refusal(&other, &certificate).ends_with("is not an RSA private key of 2048 to 4096 bits"));
    let certificate = signer.certificate();
    assert_eq!(certificate.expired(SystemTime::now()), None);
    let later = SystemTime::now() + Duration::from_secs(8000 * 24 * 60 * 60);
    assert_eq!(certificate.expired(later), Some(certificate.valid_until()));
}
